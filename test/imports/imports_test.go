package imports

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/require"
)

const module = "github.com/strata-project/strata/"

// layer is a set of packages that may import the same of ours. A name that ends
// in "/..." stands for the folder and all below it.
type layer struct {
	packages []string
	may      []string // besides the packages of the layer itself, unless apart
	apart    bool     // packages of the layer never import one another
	why      string
}

var (
	words      = []string{"internal/fault", "internal/unit", "internal/undo", "internal/place", "internal/version", "internal/near", "internal/keyed"}
	wire       = []string{"api", "api/stream"}
	mechanisms = []string{
		"internal/template/...", "internal/disk/...", "internal/mount/...", "internal/network/...", "internal/resource",
		"internal/seccomp/...", "internal/keeper/...", "internal/agent/...", "internal/vmagent/...", "internal/host", "internal/jail", "internal/thread",
		"internal/kernel/...", "internal/qemu/...", "internal/sandbox", "internal/screen", "internal/process", "internal/history", "internal/oom", "internal/tool/...", "internal/checkpoint",
	}
	kept       = []string{"internal/environment", "internal/store", "internal/planner"}
	arithmetic = []string{"internal/settings", "internal/admission"}
)

var layers = []layer{
	{packages: []string{"internal/fault", "internal/undo", "internal/version", "internal/require", "internal/thread", "internal/near", "internal/keyed", "api/stream"}, apart: true,
		why: "everything stands on these, so they stand on nothing"},
	{packages: []string{"internal/unit", "internal/place"}, may: []string{"internal/fault"}, apart: true,
		why: "words that everybody uses know only how to refuse"},
	{packages: []string{"api"}, may: words,
		why: "wire types are plain data, for every client"},
	{packages: []string{"internal/shortform", "internal/envfile"}, may: join(words, wire, []string{"internal/settings", "internal/shortform"}),
		why: "what people write is read without a daemon"},
	{packages: []string{"client"}, may: join(words, wire),
		why: "who uses the client gets no daemon with it"},
	{packages: []string{"internal/network/internal/fresh"}, may: []string{"internal/require"},
		why: "it is for tests"},
	{packages: []string{"internal/resource/resourcetest"}, may: []string{"internal/fault", "internal/require", "internal/resource"},
		why: "it is for tests"},
	{packages: []string{"internal/screen/screentest"}, may: []string{"internal/qemu", "internal/require", "internal/screen"},
		why: "it is for tests"},
	{packages: mechanisms, may: join(words, []string{"api/stream"}),
		why: "a mechanism knows no environment, so that every stratum can use it"},
	{packages: []string{"internal/stratum"}, may: join(words, wire),
		why: "what every depth offers is said without saying how"},
	{packages: arithmetic, may: join(words, wire), apart: true,
		why: "tables and sums that the daemon and the CLI share touch nothing"},
	{packages: kept, may: join(words, wire, []string{"internal/stratum", "internal/settings"}),
		why: "records, states and choices are tested without a host"},
	{packages: []string{"internal/stratum/held"}, may: join(words, wire, mechanisms, []string{"internal/stratum"}),
		why: "what runs with a keeper have in common knows no stratum"},
	{packages: []string{"internal/stratum/virtual"}, may: join(words, wire, mechanisms, []string{"internal/stratum", "internal/stratum/held"}),
		why: "what systems of their own have in common knows no stratum"},
	{packages: []string{"internal/stratum/zone/...", "internal/stratum/guest/...", "internal/stratum/machine/..."}, may: join(words, wire, mechanisms, []string{"internal/stratum", "internal/stratum/held", "internal/stratum/virtual"}), apart: true,
		why: "strata never import one another, so that each can be left out"},
	{packages: []string{"docs"}, why: "documents know no code"},
	{packages: []string{"internal/price/chart"}, may: wire,
		why: "prices are drawn by whoever shows them"},
	{packages: []string{"internal/price"}, may: join(words, wire, []string{"internal/price/chart"}),
		why: "what is measured and judged is tested without environments"},
	{packages: []string{"internal/engine"}, may: join(words, wire, mechanisms, kept, arithmetic, []string{"docs", "internal/price", "internal/stratum"}),
		why: "the engine is given its drivers, and knows none of them"},
	{packages: []string{"internal/web"},
		why: "pages ask the API as any client does"},
	{packages: []string{"internal/server"}, may: join(words, wire, []string{"internal/engine", "internal/web"}),
		why: "the server turns requests into calls of the engine, and does nothing past it"},
	{packages: []string{"internal/cli"}, may: join(words, wire, []string{"client", "internal/price/chart", "internal/settings", "internal/shortform", "internal/envfile"}),
		why: "the CLI starts fast and does what any client could do"},
	{packages: []string{"cmd/strata"}, may: []string{"internal/cli"}, why: "a main function"},
	{packages: []string{"cmd/strata-keeper"}, may: []string{"internal/keeper/keep"}, why: "a main function"},
	{packages: []string{"cmd/strata-agent"}, may: []string{"internal/agent", "internal/qemu/accel/loop", "internal/qemu/confine", "internal/qemu/virtiofs/serve", "internal/tool/treat"}, why: "a main function"},
	{packages: []string{"cmd/strata-volume"}, may: []string{"internal/qemu/virtiofs/volume"}, why: "a main function"},
	{packages: []string{"cmd/strata-vmagent"}, may: []string{"internal/vmagent"}, why: "a main function"},
	{packages: []string{"cmd/stratad"}, may: join(words, wire, mechanisms, kept, arithmetic, []string{"internal/stratum/...", "internal/engine", "internal/server"}),
		why: "the daemon wires everything together, but for what is the client's"},
	{packages: []string{"internal/stratum/virtual/virtualtest"}, may: join(words, wire, mechanisms, []string{"internal/require", "internal/resource/resourcetest", "internal/stratum", "internal/stratum/drivertest"}),
		why: "it is for tests"},
	{packages: []string{"internal/stratum/drivertest"}, may: join(words, wire, []string{"internal/require", "internal/stratum"}),
		why: "the contract of drivers names no driver"},
	{packages: []string{"internal/engine/enginetest", "internal/server/servertest"}, may: join(words, wire, []string{"internal/engine", "internal/stratum"}),
		why: "stand-ins are without privilege"},
	{packages: []string{"bench"}, may: join(words, wire, []string{"client", "internal/kernel", "internal/kernel/bootdisk"}),
		why: "what it compares with is made of the same kernel, but for that it sees strata from outside"},
	{packages: []string{"test/..."}, may: join(words, wire, []string{"client", "internal/require"}),
		why: "they see strata from outside"},
	{packages: []string{"docs/reference"}, may: []string{"internal/cli", "internal/envfile", "internal/planner", "internal/server", "internal/server/servertest", "internal/settings"},
		why: "the reference is made of the commands, the routes and the needs"},
}

func TestPackagesKnowOnlyWhatTheirLayerMay(t *testing.T) {
	for name, imported := range list(t, "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
		own, ok := strings.CutPrefix(name, module)
		if !ok {
			continue
		}
		i := slices.IndexFunc(layers, func(l layer) bool { return within(own, l.packages) })
		if i < 0 {
			t.Errorf("%s is in no layer: give it a row in this table", own)
			continue
		}
		l := layers[i]
		for _, other := range imported {
			other, ours := strings.CutPrefix(other, module)
			if ours && !within(other, l.may) && (l.apart && !related(own, other) || !within(other, l.packages)) {
				t.Errorf("%s imports %s: %s", own, other, l.why)
			}
		}
	}
}

// programs says what never gets into a program, whoever imports it.
var programs = []struct {
	program string
	never   []string
	why     string
}{
	{"cmd/strata", []string{
		module + "internal/engine/...", module + "internal/server/...", module + "internal/stratum/...", module + "internal/environment",
		"github.com/danielgtaylor/...", "github.com/google/...", "github.com/prometheus/...", "github.com/vishvananda/...", "github.com/miekg/...", "github.com/cilium/...",
	}, "every command pays for what its program loads"},
	{"cmd/strata-keeper", []string{"net/...", "os/exec", "os/signal", "os/user", "log/...", "crypto/...", "text/...", "regexp/..."},
		"there is one for each running environment, and its memory counts a thousand times"},
	{"cmd/strata-agent", []string{"net/...", "os/exec", "log/...", "crypto/...", "text/...", "regexp/...", "encoding/json"},
		"there is one in each running environment, and its memory counts a thousand times"},
	{"cmd/strata-vmagent", []string{"net", "net/http", "os/exec", "log/...", "crypto/...", "text/...", "regexp/...", "encoding/json", "google.golang.org/...", "github.com/containerd/..."},
		"its start is a part of every guest's, and slow where the processor is emulated"},
}

func TestProgramsStaySmall(t *testing.T) {
	for _, p := range programs {
		deps := list(t, "{{.ImportPath}}", "-deps", "./"+p.program)
		for name := range deps {
			if within(name, p.never) {
				t.Errorf("%s links %s: %s", p.program, name, p.why)
			}
		}
	}
}

// direct says what packages do not import themselves, though a library that they
// need may: what is not called, the linker leaves out.
var direct = []struct {
	packages []string
	never    []string
	why      string
}{
	{[]string{"internal/agent/...", "internal/qemu/accel/loop", "internal/qemu/confine", "internal/jail", "internal/keeper/wire", "internal/keeper/enter", "internal/keeper/keep", "internal/keeper/logfile", "api/stream"}, []string{"fmt", "reflect", "log/..."},
		"formatting and reflection would be in the memory of every environment"},
	{[]string{"internal/environment", "internal/planner"}, []string{"os", "os/exec", "net"},
		"they read nothing and start nothing"},
}

func TestPackagesDoWithout(t *testing.T) {
	for name, imported := range list(t, "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
		own := strings.TrimPrefix(name, module)
		for _, d := range direct {
			for _, other := range imported {
				if within(own, d.packages) && within(other, d.never) {
					t.Errorf("%s imports %s: %s", own, other, d.why)
				}
			}
		}
	}
}

// seen reads the folders of the tree: what this process reads itself is what makes
// the go command run a test again whose last result it has kept.
func seen(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// list asks the go command; each line is a name and what belongs to it.
func list(t *testing.T, format string, args ...string) map[string][]string {
	t.Helper()
	seen(t)
	cmd := exec.Command(require.Tool(t, "go"), append([]string{"list", "-f", format}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	found := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		fields := strings.Fields(line)
		found[fields[0]] = fields[1:]
	}
	return found
}

func join(sets ...[]string) []string { return slices.Concat(sets...) }

// within tells whether a pattern takes the name.
func within(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		folder, all := strings.CutSuffix(pattern, "/...")
		return name == folder || all && strings.HasPrefix(name, folder+"/")
	})
}

// related tells whether one of two packages is below the other.
func related(a, b string) bool {
	return strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}
