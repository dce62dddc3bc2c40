// The console of one machine: its screen by noVNC, over a websocket of the API.
import RFB from './third_party/novnc/core/rfb.js';

const ref = decodeURIComponent(location.pathname.split('/').pop());
// Beside the page's own folder, wherever that is: `strata vnc --web` serves both below its key.
const api = new URL(`../v1/environments/${encodeURIComponent(ref)}/`, location.href);
const part = (id) => document.getElementById(id);

document.title = `${ref} - strata console`;
part('name').textContent = ref;
part('picture').href = new URL('screen.png', api);
part('picture').download = `${ref}.png`;

// say shows what goes on; state is for whoever looks at the page by program.
function say(state, text) {
  document.body.dataset.state = state;
  part('state').textContent = text;
  part('reset').disabled = state !== 'connected';
  part('again').hidden = state !== 'ended';
}

// why asks the API for the reason: a websocket that is refused tells none.
async function why() {
  try {
    const answer = await fetch(new URL('screen.png', api));
    if (answer.ok) return 'the connection ended';
    const fault = await answer.json();
    return fault.hint ? `${fault.message} (${fault.hint})` : fault.message;
  } catch {
    return 'strata does not answer';
  }
}

let rfb;

function connect() {
  say('connecting', 'connecting');
  const socket = new URL('vnc', api);
  socket.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  rfb = new RFB(part('screen'), socket.href, { shared: true, wsProtocols: ['binary'] });
  rfb.scaleViewport = true;
  rfb.background = 'transparent';
  rfb.addEventListener('connect', () => { say('connected', 'connected'); rfb.focus(); });
  rfb.addEventListener('securityfailure', (e) => say('ended', e.detail.reason || 'refused'));
  rfb.addEventListener('disconnect', async () => say('ended', await why()));
}

part('reset').addEventListener('click', () => { rfb.sendCtrlAltDel(); rfb.focus(); });
part('again').addEventListener('click', connect);
connect();
