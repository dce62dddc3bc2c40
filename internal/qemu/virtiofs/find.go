package virtiofs

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu/virtiofs/serve"
)

// Program is what serves volumes on this host.
type Program struct {
	Path    string
	Version string // "7.2.19", "1.13.2"; of strata's own ""
	Kind    Kind
}

// Kind is what a Program is, and so which arguments it takes.
type Kind int

// The kinds of programs.
const (
	QEMUs Kind = iota // the virtiofsd of QEMU, up to 7.2
	Rust              // its successor
	Own               // strata's, for hosts that have neither
)

// String is what the program is called.
func (k Kind) String() string {
	if k == Own {
		return serve.Own
	}
	return "virtiofsd"
}

// places are where distributions have it. Debian 12: qemu-system-common, 13 and
// Ubuntu from 23.10 on: virtiofsd, /usr/libexec; Fedora: virtiofsd, /usr/libexec;
// Arch: virtiofsd, /usr/lib.
var places = []string{"/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/local/libexec/virtiofsd"}

// askPatience bounds the wait for a program to say its version.
const askPatience = 10 * time.Second

// FindOr returns the virtiofsd of this host, and where there is none strata's own program,
// which is at path.
func FindOr(ctx context.Context, path string) (Program, error) { return findOr(ctx, places, path) }

func findOr(ctx context.Context, places []string, path string) (Program, error) {
	p, err := find(ctx, places)
	if fault.Is(err, fault.Unable) {
		return Program{Path: path, Kind: Own}, nil
	}
	return p, err
}

// Find returns the virtiofsd of this host. Kinds: Unable where there is none.
func Find(ctx context.Context) (Program, error) { return find(ctx, places) }

func find(ctx context.Context, places []string) (Program, error) {
	missing := fault.Unablef("this host has no virtiofsd").At("volumes").Help("install virtiofsd (Debian 12 and before: qemu-system-common)")
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	for _, path := range places {
		if _, err := exec.LookPath(path); err != nil {
			continue
		}
		said, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
		if ctx.Err() != nil {
			return Program{}, ctx.Err()
		}
		p, ok := parseVersion(string(said))
		if err != nil || !ok {
			missing = fault.Unablef("%s does not say which version it is: %.200q", path, said).At("volumes").Help("install virtiofsd again")
			continue
		}
		p.Path = path
		return p, nil
	}
	return Program{}, missing
}

var versionForm = regexp.MustCompile(`(?m)^virtiofsd (?:backend |version )*([0-9]+\.[0-9]+(?:\.[0-9]+)?)`)

// parseVersion reads what --version says: "virtiofsd 1.13.2" where it is written
// in Rust, "virtiofsd version 7.2.19 …" and a line on FUSE where it is QEMU's.
func parseVersion(said string) (Program, bool) {
	m := versionForm.FindStringSubmatch(said)
	if m == nil {
		return Program{}, false
	}
	p := Program{Version: m[1], Kind: Rust}
	if strings.Contains(said, "FUSE kernel interface") {
		p.Kind = QEMUs
	}
	return p, true
}
