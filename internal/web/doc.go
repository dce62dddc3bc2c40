// Package web has the pages that the daemon serves: the console of a machine, which
// shows its screen in a browser.
//
// A page has no power of its own: it asks the API at the address that it came from,
// as any client does, and who may not open the daemon's socket gets neither. Pages
// may load nothing from elsewhere, and no page of another place may show them.
//
// What others wrote is in the folder third_party, unchanged: noVNC, under the Mozilla
// Public License 2.0. third_party/novnc.sums has the version and the checksums;
// scripts/novnc fetches it anew and compares.
package web
