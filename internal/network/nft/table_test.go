package nft

import (
	"flag"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/strata-project/strata/internal/network/internal/fresh"
	"github.com/strata-project/strata/internal/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func TestRulesetPrintsAsWrittenDown(t *testing.T) {
	golden(t, "testdata/ruleset.nft", Ruleset{Table: "strata"}.String())
}

var (
	testNetwork = Network{
		Bridge: "strata0", IPv4: netip.MustParsePrefix("10.64.16.0/20"), IPv6: netip.MustParsePrefix("fd12:3456:789a:1::/64"),
		Gateway4: netip.MustParseAddr("10.64.16.1"), Gateway6: netip.MustParseAddr("fd12:3456:789a:1::1"),
	}
	testGuest = Guest{
		Link: "sv0123456789aba", MAC: net.HardwareAddr{2, 0, 10, 64, 16, 2},
		IPv4: netip.MustParseAddr("10.64.16.2"), IPv6: netip.MustParseAddr("fd12:3456:789a:1::2"),
	}
	testPublish = []Publish{
		{HostPort: 8080, Port: 80, Protocol: "tcp", IPv4: testGuest.IPv4, IPv6: testGuest.IPv6},
		{HostIP: netip.MustParseAddr("192.0.2.2"), HostPort: 53, Port: 5353, Protocol: "udp", IPv4: testGuest.IPv4, IPv6: testGuest.IPv6},
	}
)

func testElements() []Element {
	isolated := testNetwork
	isolated.Bridge, isolated.Isolated = "strata-1", true
	isolated.IPv4, isolated.Gateway4 = netip.MustParsePrefix("10.64.32.0/20"), netip.MustParseAddr("10.64.32.1")
	isolated.IPv6, isolated.Gateway6 = netip.MustParsePrefix("fd12:3456:789a:2::/64"), netip.MustParseAddr("fd12:3456:789a:2::1")
	found := append(testNetwork.Elements(), isolated.Elements()...)
	found = append(found, PortElement(testGuest.Link))
	found = append(found, testGuest.Elements()...)
	for _, p := range testPublish {
		found = append(found, p.Elements()...)
	}
	return found
}

func TestElementsPrintAsWrittenDown(t *testing.T) {
	var b strings.Builder
	for _, e := range testElements() {
		b.WriteString(e.String() + "\n")
	}
	golden(t, "testdata/elements.txt", b.String())
}

func TestIntervalOfAPrefixEndsWithTheNextOne(t *testing.T) {
	for prefix, end := range map[string]string{
		"10.64.0.0/20": "10.64.16.0", "10.64.240.0/20": "10.65.0.0", "192.168.255.0/24": "192.169.0.0", "fd00:0:0:ffff::/64": "fd00:0:1::", "10.0.0.0/8": "11.0.0.0",
	} {
		got := interval("s", netip.MustParsePrefix(prefix))[1]
		if got.Key != address(netip.MustParseAddr(end)) {
			t.Errorf("%s ends with %x, not %s", prefix, got.Key, end)
		}
	}
}

var elementsLine = regexp.MustCompile(`(?ms)^\t\telements = \{.*?\}\n`)

func TestKernelHasWhatIsPrinted(t *testing.T) {
	require.Root(t)
	tool := require.Tool(t, "nft")
	if !fresh.Namespace(t) {
		return
	}
	table := Open("strata")
	defer table.Close()
	made, err := table.Ensure(testElements)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	list := func() string {
		out, err := exec.Command(tool, "list", "ruleset").CombinedOutput()
		if err != nil {
			t.Fatalf("nft list: %v\n%s", err, out)
		}
		return string(out)
	}
	said := list()
	kernel := elementsLine.ReplaceAllString(said, "")
	kernel = strings.ReplaceAll(kernel, "\t}\n\n", "\t}\n")
	kernel = regexp.MustCompile(`(\tchain .*\n\t\t.*)\n\n`).ReplaceAllString(kernel, "$1\n")
	if diff := cmp.Diff(Ruleset{Table: "strata"}.String(), kernel); diff != "" {
		t.Errorf("printed and real rules differ (-printed +real):\n%s", diff)
	}
	for _, want := range []string{
		"10.64.16.0/20", "tcp . 8080 : 10.64.16.2 . 80", "192.0.2.2 . udp . 53 : 10.64.16.2 . 5353",
		`"sv0123456789aba" . 02:00:0a:40:10:02 . 10.64.16.2`, `"strata0" . "strata0"`, "10.64.16.1 . tcp . 53", "fd12:3456:789a:1::/64",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in the kernel's ruleset:\n%s", want, said)
		}
	}
	if made, err = table.Ensure(testElements); err != nil || made {
		t.Fatal("a ruleset that is there was made again", made, err)
	}
	if added, removed, err := table.Match(testElements); err != nil || added+removed != 0 {
		t.Fatal("what was put in is not what is found", added, removed, err)
	}
	if err := table.Change(testGuest.Elements(), nil); err != nil {
		t.Fatal(err)
	}
	if err := table.Change(testGuest.Elements(), nil); !Missing(err) {
		t.Fatal("taking out what is gone:", err)
	}
	if added, removed, err := table.Match(testElements); err != nil || added != 4 || removed != 0 {
		t.Fatal(added, removed, err)
	}
	if added, removed, err := table.Match(testNetwork.Elements); err != nil || added != 0 || removed == 0 {
		t.Fatal(added, removed, err)
	}
	if _, _, err := table.Match(testElements); err != nil {
		t.Fatal(err)
	}
	nothing := func() []Element { return nil }
	if _, _, err := table.Match(nothing); err != nil {
		t.Fatal("two networks whose subnets meet, taken out at once:", err)
	}
	if held, err := table.Elements(); err != nil || len(held) != 0 {
		t.Fatal(held, err)
	}
	if err := table.Destroy(); err != nil {
		t.Fatal(err)
	}
	if said := list(); said != "" {
		t.Errorf("left behind:\n%s", said)
	}
	if err := table.Destroy(); err != nil {
		t.Fatal(err)
	}
}
