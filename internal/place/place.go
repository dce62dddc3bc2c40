// Package place says where strata keeps things: state, run folder, socket and
// the programs of its own. It is shared by the CLI and the daemon, so that both
// mean the same place.
//
// A private root (--root DIR or STRATA_ROOT) puts everything below one folder.
// Its Tag goes into every name that strata gives on the host outside that
// folder (bridge, nft table, cgroup), so that two roots never meet.
package place

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// RootVariable names the environment variable with the private root.
const RootVariable = "STRATA_ROOT"

// LXCFS is where Debian's lxcfs service shows its view of /proc. Source: lxcfs.service.
const LXCFS = "/var/lib/lxcfs"

// Places are the paths of one strata root.
type Places struct {
	Root   string // the private root; "" for the installed one
	State  string // what outlives a reboot: records, templates, disks, logs
	Run    string // what does not: sockets, layer mounts, process ids
	Socket string // the daemon's API
	Tag    string // "" for the installed root, else 6 hex digits of the root's path
}

// maxSocketPath is the longest path of a unix socket. Unit: bytes.
// Source: linux/un.h, UNIX_PATH_MAX less the closing zero.
const maxSocketPath = 107

// What the longest paths of sockets below Run are made of: the folder of guests, the ids of
// those that are nobody's, which end in a Moment, and the agent's socket. An
// environment's id is shorter, by more than the names of other folders are longer.
const (
	Guests        = "vm"
	SparePrefix   = "standby-" // made ahead
	SavingPrefix  = "saving-"  // booted to be saved
	ControlSocket = "control.sock"
)

// momentLength is that of a Moment, until the year 2120. Unit: bytes.
const momentLength = 12

// Moment returns a word for this moment, for what is made more than once.
func Moment() string { return strconv.FormatInt(time.Now().UnixNano(), 36) }

// runSocketTail is the longest path that strata puts a socket at below Run. Unit: bytes.
const runSocketTail = len("/"+Guests+"/") + max(len(SparePrefix), len(SavingPrefix)) + momentLength + len("/"+ControlSocket)

// usedSocketTail is the longest of environments'. A root that is in use may be as long as
// that leaves room for: no system is saved below it then, and none made ahead.
const usedSocketTail = len("/env/") + 12 + len("/keeper.sock")

// Find returns the places of a private root, of STRATA_ROOT where root is
// empty, and the installed ones where both are. Kinds: Invalid.
func Find(root string) (Places, error) {
	if root == "" {
		root = os.Getenv(RootVariable)
	}
	if root == "" {
		return Places{State: "/var/lib/strata", Run: "/run/strata", Socket: "/run/strata/strata.sock"}, nil
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return Places{}, fault.Invalidf("%q is not a folder: %w", root, err).At("root")
	}
	abs = resolve(abs)
	if abs == "/" {
		return Places{}, fault.Invalidf("the root folder / cannot be a private root").At("root").Help("name a folder of its own, such as /srv/strata-test")
	}
	tail := runSocketTail
	if _, err := os.Stat(filepath.Join(abs, "state")); err == nil {
		tail = usedSocketTail
	}
	if len(abs)+len("/run")+tail > maxSocketPath {
		return Places{}, fault.Invalidf("%q is too long for the sockets below it", abs).At("root").Help("use a path of at most %d bytes", maxSocketPath-len("/run")-runSocketTail)
	}
	sum := sha256.Sum256([]byte(abs))
	return Places{
		Root:   abs,
		State:  filepath.Join(abs, "state"),
		Run:    filepath.Join(abs, "run"),
		Socket: filepath.Join(abs, "strata.sock"),
		Tag:    hex.EncodeToString(sum[:3]),
	}, nil
}

// resolve follows the links in a path, of which the end may not be there yet: a root
// has the same Tag before it is made and after.
func resolve(abs string) string {
	rest := ""
	for dir := abs; dir != "/"; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
	return abs
}

// Name joins word and the tag: "strata" for the installed root, "strata-1a2b3c" for a private one.
func (p Places) Name(word string) string {
	if p.Tag == "" {
		return word
	}
	return word + "-" + p.Tag
}

// libexec is where `make install` puts the programs that users do not call, below its PREFIX.
const libexec = "lib/strata"

// Binary returns the path of one of strata's own programs: beside the running
// one, in lib/strata below the same PREFIX or /usr, or on the PATH. Kinds: Missing.
func Binary(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fault.Wrap(err, "find the running program")
	}
	return binary(filepath.Dir(self), name)
}

func binary(beside, name string) (string, error) {
	tried := []string{filepath.Join(beside, name), filepath.Join(beside, "..", libexec, name), filepath.Join("/usr", libexec, name)}
	for _, path := range tried {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fault.Missingf("the program %s was not found in %v nor on the PATH", name, slices.Compact(tried)).Help("run `make build`, or `make install`")
}
