package network

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/network/dns"
)

// gather is how long a change of names waits for further ones before it is
// written, unless somebody needs it sooner.
const gather = 20 * time.Millisecond

// zoneFile keeps the file of names. Changes are counted; flush writes once for
// all of them, so a hundred parallel starts cost a few writes.
type zoneFile struct {
	path    string
	content func() []byte

	mu      sync.Mutex // of the counters
	changed uint64
	written uint64
	timer   *time.Timer
	stopped bool

	writing sync.Mutex
}

// touch says that names have changed. It may be called with Host.mu held.
func (z *zoneFile) touch() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.changed++
	if z.timer == nil && !z.stopped {
		z.timer = time.AfterFunc(gather, func() { _ = z.flush() })
	}
}

func (z *zoneFile) stop() {
	_ = z.flush()
	z.mu.Lock()
	defer z.mu.Unlock()
	z.stopped = true
	if z.timer != nil {
		z.timer.Stop()
	}
}

// flush returns once every change until now is in the file.
func (z *zoneFile) flush() error {
	z.mu.Lock()
	wanted := z.changed
	done := z.written >= wanted
	z.mu.Unlock()
	if done {
		return nil
	}
	z.writing.Lock()
	defer z.writing.Unlock()
	z.mu.Lock()
	if z.written >= wanted { // somebody wrote it meanwhile
		z.mu.Unlock()
		return nil
	}
	now := z.changed
	if z.timer != nil {
		z.timer.Stop()
		z.timer = nil
	}
	z.mu.Unlock()
	data := z.content()
	err := replaceFile(z.path, data, false)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(z.path), 0o700); err == nil {
			err = replaceFile(z.path, data, false)
		}
	}
	if err != nil {
		return fmt.Errorf("write names: %w", err)
	}
	z.mu.Lock()
	z.written = max(z.written, now)
	z.mu.Unlock()
	return nil
}

// zoneNow prints what is to be answered.
func (h *Host) zoneNow() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	var z dns.Zone
	for _, n := range h.networks {
		z.Networks = append(z.Networks, dns.Network{
			Name: n.Name, Link: n.Bridge, IPv4: n.IPv4, IPv6: n.IPv6, Gateway4: n.Gateway4, Gateway6: n.Gateway6, Isolated: n.Isolated, Up: n.index != 0,
		})
	}
	for _, e := range h.environments {
		z.Hosts = append(z.Hosts, dns.Host{Network: e.address.Network, Name: e.name, IPv4: e.address.IPv4, IPv6: e.address.IPv6})
	}
	return z.Append(nil)
}
