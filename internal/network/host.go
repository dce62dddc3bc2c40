package network

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/nft"
)

// Default is the name of the network that always exists.
const Default = "default"

// Options say where a Host keeps things.
type Options struct {
	Tag    string       // place.Places.Tag; "" for the installed root
	Dir    string       // records of networks; made when there is something to keep
	RunDir string       // names' zone file and control socket; made when needed
	Log    *slog.Logger // nil: nothing is logged

	// DNSCommand starts the process that answers names: it must call dns.Run
	// with RunDir. Empty: nobody answers names.
	DNSCommand []string
}

// Host is the host side of one strata root. It is safe for concurrent use.
type Host struct {
	o     Options
	log   *slog.Logger
	table *nft.Table
	rtnl  rtnl
	zone  zoneFile

	generation atomic.Uint32 // tells the runs of one environment apart in their links' names

	syncing  sync.Mutex // one at a time takes over what runs
	ensuring sync.Mutex // one at a time makes bridges and tables

	forgetting sync.Mutex // one at a time looks through what the kernel knows of senders; a leaf

	counters struct { // a leaf
		sync.Mutex
		text bytes.Buffer
	}

	mu           sync.Mutex
	networks     map[string]*networkState
	environments map[string]*environment
	watched      map[string]bool    // links that are gone or going, still in nft's set of ports
	unsynced     map[string]Running // what Sync was told and has not taken over; nil: nothing
	closed       bool
	namesFault   error         // why names are not answered
	names        *answering    // nil: no process is watched
	namesWait    time.Duration // before the last start anew
}

type networkState struct {
	Network
	given map[netip.Addr]string // IPv4 address → id
	next  uint32                // where the search for a free address starts
	index int32                 // the bridge's; 0: not made yet, or not looked at
	mtu   uint32
}

// environment is what is known of one: its address from Reserve, the rest while it is connected.
type environment struct {
	id, name string
	address  Address
	link     string // "" while it is not connected
	ports    []Port
	elements []nft.Element
	rate     Rate   // of the link, as it is
	unlease  func() // ends the answering of DHCP; nil: there is none
}

// Open loads the records of networks. Nothing on the host is touched.
func Open(ctx context.Context, o Options) (*Host, error) {
	h := &Host{
		o: o, log: o.Log, table: nft.Open(tableName(o.Tag)),
		networks: map[string]*networkState{}, environments: map[string]*environment{}, watched: map[string]bool{},
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.generation.Store(uint32(time.Now().UnixNano() >> 20)) // so that a new daemon seldom meets a name in use
	h.zone.path = filepath.Join(o.RunDir, "names")
	h.zone.content = h.zoneNow
	records, err := loadRecords(o.Dir)
	if err != nil {
		return nil, err
	}
	for _, n := range records {
		h.networks[n.Name] = newState(n)
	}
	return h, nil
}

// Close gives sockets back. Nothing on the host changes.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.unwatchDNS()
	h.zone.stop()
	h.table.Close()
	h.rtnl.close()
}

func newState(n Network) *networkState {
	return &networkState{Network: n, given: map[netip.Addr]string{}, next: firstHost}
}

func tableName(tag string) string {
	if tag == "" {
		return "strata"
	}
	return "strata-" + tag
}

// Network is one bridge that environments meet on.
type Network struct {
	Name     string
	Bridge   string // name of the link
	IPv4     netip.Prefix
	Gateway4 netip.Addr
	IPv6     netip.Prefix // a unique local /64 (RFC 4193); not valid where the host has no IPv6
	Gateway6 netip.Addr
	Isolated bool   // no way out, none in: environments reach each other only
	Project  string // of the environment file that made it; nothing of it is known here
	Created  time.Time
}

// Networks returns all networks, the default one first, then by name. The
// default network is among them only once something has used it.
func (h *Host) Networks() []Network {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := make([]Network, 0, len(h.networks))
	for _, n := range h.networks {
		found = append(found, n.Network)
	}
	slices.SortFunc(found, func(a, b Network) int {
		if (a.Name == Default) != (b.Name == Default) {
			if a.Name == Default {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return found
}

// Network returns the network with the given name; the default one is recorded
// at the first call. Kinds: Missing; for the default one also Create's.
func (h *Host) Network(name string) (Network, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.network(name)
	if err != nil {
		return Network{}, err
	}
	return n.Network, nil
}

// network finds the state, with h.mu held.
func (h *Host) network(name string) (*networkState, error) {
	if n, ok := h.networks[name]; ok {
		return n, nil
	}
	if name != Default {
		return nil, fault.Missingf("there is no network %q", name).At("network").Help("strata network ls shows them; strata network create %s makes it", name)
	}
	return h.record(Network{Name: Default})
}

// record completes n and keeps it, with h.mu held.
func (h *Host) record(n Network) (*networkState, error) {
	facts, err := readFacts()
	if err != nil {
		return nil, err
	}
	host := facts.taken
	facts.taken = nil // what is strata's own comes first, by the name that users know
	for _, other := range h.networks {
		facts.add(other.IPv4, "the network "+other.Name)
		facts.add(other.IPv6, "the network "+other.Name)
	}
	facts.taken = append(facts.taken, host...)
	if err := complete(&n, h.o.Tag, facts, h.bridgeName(n.Name)); err != nil {
		return nil, err
	}
	n.Created = time.Now().UTC().Truncate(time.Second)
	if err := saveRecord(h.o.Dir, n); err != nil {
		return nil, err
	}
	state := newState(n)
	h.networks[n.Name] = state
	h.zone.touch()
	return state, nil
}

// bridgeName returns a name that no other network of this root has.
func (h *Host) bridgeName(network string) string {
	if network == Default {
		if h.o.Tag == "" {
			return "strata0"
		}
		return "strata-" + h.o.Tag
	}
	for i := 1; ; i++ {
		name := bridgePrefix(h.o.Tag) + itoa(i)
		if !slices.ContainsFunc(h.bridges(), func(b string) bool { return b == name }) {
			return name
		}
	}
}

func bridgePrefix(tag string) string { return "st" + tag + "-" }

// bridges returns the names of the bridges of all networks, with h.mu held.
func (h *Host) bridges() []string {
	var names []string
	for _, n := range h.networks {
		names = append(names, n.Bridge)
	}
	return names
}

// Create makes a network out of Name, Isolated and, where they are set, IPv4 and
// IPv6; the rest is chosen. Kinds: Invalid, Conflict.
func (h *Host) Create(ctx context.Context, n Network) (Network, error) {
	if err := validName(n.Name); err != nil {
		return Network{}, err
	}
	h.mu.Lock()
	if _, ok := h.networks[n.Name]; ok || n.Name == Default {
		h.mu.Unlock()
		return Network{}, fault.Conflictf("there is a network %q already", n.Name).At("name").Help("choose another name, or remove that one")
	}
	state, err := h.record(Network{Name: n.Name, IPv4: n.IPv4, IPv6: n.IPv6, Isolated: n.Isolated, Project: n.Project})
	h.mu.Unlock()
	if err != nil {
		return Network{}, err
	}
	if err := h.Ensure(ctx, n.Name); err != nil {
		h.mu.Lock()
		delete(h.networks, n.Name)
		h.mu.Unlock()
		return Network{}, fault.Join(err, removeRecord(h.o.Dir, n.Name))
	}
	return state.Network, nil
}

// Remove takes a network away, with its bridge. used are the names of
// environments that have it. Kinds: Missing, Conflict.
func (h *Host) Remove(ctx context.Context, name string, used []string) error {
	if name == Default {
		return fault.Conflictf("the network %q cannot be removed", name).At("network").Help("every root has it")
	}
	if err := h.SyncLate(ctx); err != nil {
		return err
	}
	h.ensuring.Lock()
	defer h.ensuring.Unlock()
	h.mu.Lock()
	n, ok := h.networks[name]
	if !ok {
		h.mu.Unlock()
		return fault.Missingf("there is no network %q", name).At("network")
	}
	if len(used) == 0 {
		for _, id := range n.given {
			used = append(used, h.environments[id].name)
		}
	}
	if len(used) > 0 {
		h.mu.Unlock()
		slices.Sort(used)
		return fault.Conflictf("the network %q is used by %s", name, strings.Join(used, ", ")).At("network").Help("remove these environments first")
	}
	delete(h.networks, name)
	h.mu.Unlock()
	if err := removeRecord(h.o.Dir, name); err != nil {
		return err
	}
	h.zone.touch()
	if present, err := h.table.Present(); err == nil && present {
		if err := h.match(); err != nil {
			return err
		}
	}
	if err := deleteBridge(n.Bridge); err != nil {
		return err
	}
	return h.syncDNS(ctx, false)
}

// validName checks a network's name: it is a DNS label and no word of its own.
func validName(name string) error {
	const rule = "1 to 63 lower-case letters, digits and inner hyphens"
	if name == "none" || name == "host" {
		return fault.Invalidf("%q is a word of its own", name).At("name").Help("choose another name")
	}
	if len(name) == 0 || len(name) > 63 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || name[0] == '-' || name[len(name)-1] == '-' {
		return fault.Invalidf("%q is not a network's name", name).At("name").Help(rule)
	}
	return nil
}

// exists tells whether a path is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
