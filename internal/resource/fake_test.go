package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
	"golang.org/x/sys/unix"
)

// Recorded mounts: Debian 12 with systemd (v2), Debian 10 (hybrid), a host
// without systemd (hybrid, each controller by itself), plain v1, and inside a
// container whose mounts show a part only, twice.
const (
	mountsV2 = `22 28 0:21 / /proc rw,nosuid - proc proc rw
26 23 0:23 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`
	mountsSystemdHybrid = `31 24 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:28 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
36 31 0:31 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:14 - cgroup cgroup rw,memory
37 31 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
38 31 0:33 / /sys/fs/cgroup/net_cls,net_prio rw shared:16 - cgroup cgroup rw,net_cls,net_prio
39 31 0:34 / /sys/fs/cgroup/pids rw shared:17 - cgroup cgroup rw,pids
40 31 0:35 / /sys/fs/cgroup/devices rw shared:18 - cgroup cgroup rw,devices
41 31 0:36 / /sys/fs/cgroup/freezer rw shared:19 - cgroup cgroup rw,freezer
`
	mountsV1 = `36 31 0:31 / /cg/memory rw - cgroup cgroup rw,memory
37 31 0:32 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
39 31 0:34 / /cg/pids rw - cgroup cgroup rw,pids
40 31 0:35 / /cg/a\040b/devices rw - cgroup cgroup rw,devices
`
	mountsContainer = `36 31 0:31 /docker/abc /in/memory ro - cgroup cgroup rw,memory
46 31 0:31 / /whole/memory rw - cgroup cgroup rw,memory
56 31 0:31 / /second/memory rw - cgroup cgroup rw,memory
`
)

func TestMountsAreUnderstood(t *testing.T) {
	for _, c := range []struct {
		name, mounts string
		want         hierarchies
	}{
		{"v2", mountsV2, hierarchies{map[string]string{}, "/sys/fs/cgroup"}},
		{"systemd's hybrid mounts cpu and cpuacct together", mountsSystemdHybrid, hierarchies{map[string]string{
			"memory": "/sys/fs/cgroup/memory", "cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "pids": "/sys/fs/cgroup/pids",
			"devices": "/sys/fs/cgroup/devices", "freezer": "/sys/fs/cgroup/freezer", "name=systemd": "/sys/fs/cgroup/systemd"}, "/sys/fs/cgroup/unified"}},
		{"a blank in the path is escaped", mountsV1, hierarchies{map[string]string{
			"memory": "/cg/memory", "cpu": "/cg/cpu,cpuacct", "cpuacct": "/cg/cpu,cpuacct", "pids": "/cg/pids", "devices": "/cg/a b/devices"}, ""}},
		{"a mount of the whole goes before one of a part", mountsContainer, hierarchies{map[string]string{"memory": "/whole/memory"}, ""}},
		{"nonsense is passed over", "1 2 3\n - \n1 2 3 4 5 - cgroup2\n\x00", hierarchies{map[string]string{}, ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, parseMounts(c.mounts), cmp.AllowUnexported(hierarchies{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzMounts(f *testing.F) {
	f.Add(mountsV2)
	f.Add(mountsSystemdHybrid)
	f.Fuzz(func(t *testing.T, text string) { parseMounts(text) })
}

// gate records the devices of each folder.
type gate map[string][]Device

func (g gate) attach(dir string, d []Device) error { g[dir] = d; return nil }
func (g gate) close()                              {}

// fakeV2 is a v2 hierarchy of ordinary files: a group gets the files that the
// kernel would give it.
type fakeV2 struct {
	top   string
	gates gate
}

var fakeFiles = map[string][]string{
	"":       {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "cgroup.freeze", "cgroup.kill", "cgroup.max.descendants", "cgroup.max.depth", "cpu.stat"},
	"memory": {"memory.max", "memory.min", "memory.high", "memory.swap.max", "memory.oom.group", "memory.current", "memory.events", "memory.stat"},
	"cpu":    {"cpu.max", "cpu.weight"},
	"pids":   {"pids.max", "pids.current"},
	"io":     {"io.stat"},
}

func (f *fakeV2) populate(dir, controllers string) error {
	content := map[string]string{"cgroup.controllers": controllers, "cgroup.events": "populated 0\nfrozen 0\n"}
	for c, files := range fakeFiles {
		if c == "" || slices.Contains(strings.Fields(controllers), c) {
			for _, file := range files {
				content[file] = ""
			}
		}
	}
	for file, text := range content {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeV2) mkdir(dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return err
	}
	above, _ := os.ReadFile(filepath.Join(filepath.Dir(dir), "cgroup.subtree_control"))
	return f.populate(dir, strings.ReplaceAll(string(above), "+", ""))
}

// rmdir refuses a group with groups below it, as the kernel does.
func (f *fakeV2) rmdir(dir string) error {
	below, err := children(dir)
	if err != nil || len(below) > 0 {
		return unix.EBUSY
	}
	if !exists(dir) {
		return unix.ENOENT
	}
	return os.RemoveAll(dir)
}

func newFakeV2(t *testing.T, controllers string) (*fakeV2, facts) {
	f := &fakeV2{top: t.TempDir(), gates: gate{}}
	if err := f.populate(f.top, controllers); err != nil {
		t.Fatal(err)
	}
	return f, facts{mounts: "26 23 0:23 / " + f.top + " rw - cgroup2 cgroup2 rw\n", own: "0::/\n",
		programs: func() (deviceGate, error) { return f.gates, nil }, tree: tree{f.mkdir, f.rmdir}}
}

// read returns the written files of a group.
func read(t *testing.T, dir string, files ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Error(err)
		}
		out[file] = string(text)
	}
	return out
}

func TestV2WritesWhatTheKernelReads(t *testing.T) {
	f, host := newFakeV2(t, "cpuset cpu io memory hugetlb pids")
	r, err := open("strata", host)
	if err != nil {
		t.Fatal(err)
	}
	if r.layout.Version != V2 || len(r.dirs) != 1 || r.dirs[0] != f.top+"/strata" {
		t.Fatalf("%+v in %v", r.layout, r.dirs)
	}
	for _, dir := range []string{f.top, f.top + "/strata"} {
		if got := read(t, dir, "cgroup.subtree_control")["cgroup.subtree_control"]; got != "+cpu +io +memory +pids" {
			t.Errorf("%s hands down %q", dir, got)
		}
	}
	none := unit.Size(0)
	g, err := r.Create(t.Context(), "a", Limits{Memory: unit.GiB, Swap: &none, CPUs: 1500, PIDs: 99}, DefaultDevices(), 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := f.top + "/strata/a/payload"
	want := map[string]string{"memory.max": "1073741824", "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "99"}
	if diff := cmp.Diff(want, read(t, dir, "memory.max", "memory.swap.max", "cpu.max", "pids.max")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(DefaultDevices(), f.gates[dir]); diff != "" {
		t.Error(diff)
	}
	if got := g.ExecFiles(); !slices.Equal(got, []string{dir + "/cgroup.procs"}) || len(g.ThreadFiles()) != 0 {
		t.Errorf("exec by %v", got)
	}
	if own, err := g.OpenKeeper(); err != nil || own.Name() != f.top+"/strata/a/keeper" {
		t.Errorf("the keeper goes to %v, %v", own, err)
	} else {
		own.Close()
	}
	if file, key := g.OOMSource(); file != dir+"/memory.events" || key != "oom_kill" {
		t.Errorf("out of memory is in %s of %s", key, file)
	}
	if err := r.Share("a", Share{Weight: 250, Memory: unit.MiB}); err != nil {
		t.Error(err)
	}
	for group, want := range map[string]map[string]string{"": {"cpu.weight": "250", "memory.min": "1048576"},
		"/payload": {"cpu.weight": "", "memory.min": "1048576"}, "/keeper": {"cpu.weight": "", "memory.min": "1048576"}} {
		if diff := cmp.Diff(want, read(t, f.top+"/strata/a"+group, "cpu.weight", "memory.min")); diff != "" {
			t.Errorf("share of %q: %s", group, diff)
		}
	}
	if err := r.Remove(t.Context()); err != nil || exists(f.top+"/strata") {
		t.Errorf("removed: %v", err)
	}
}

func TestV2KeepsLimitsAboveWhatAnOwnerWrites(t *testing.T) {
	f, host := newFakeV2(t, "cpu memory pids")
	r, err := open("strata", host)
	if err != nil {
		t.Fatal(err)
	}
	g, err := r.Create(t.Context(), "a", Limits{Memory: unit.GiB}, nil, uint32(os.Getuid())|1)
	require.Root(t) // only root hands over files
	if err != nil {
		t.Fatal(err)
	}
	dir := f.top + "/strata/a/payload"
	for file, owner := range map[string]uint32{"": 0, "/memory.max": 0, "/cgroup.procs": 0, "/init": 1, "/init/cgroup.procs": 1,
		"/init/cgroup.subtree_control": 1, "/init/memory.max": 0, "/exec": 0, "/exec/cgroup.procs": 0, "/../keeper/cgroup.procs": 0} {
		var st unix.Stat_t
		if err := unix.Stat(dir+file, &st); err != nil || st.Uid != owner {
			t.Errorf("%q belongs to %d, %v; want %d", file, st.Uid, err, owner)
		}
	}
	if born, err := g.OpenUnified(); err != nil || born.Name() != dir+"/init" {
		t.Errorf("born in %v, %v", born, err)
	} else {
		born.Close()
	}
	if got := g.ExecFiles(); !slices.Equal(got, []string{dir + "/exec/cgroup.procs"}) {
		t.Errorf("exec by %v", got)
	}
	if err := g.Remove(t.Context()); err != nil || exists(dir) {
		t.Errorf("removed: %v", err)
	}
}

func TestLimitsThatAreRefusedLeaveTheFormerOnes(t *testing.T) {
	f, host := newFakeV2(t, "cpu io memory pids")
	r, err := open("strata", host)
	if err != nil {
		t.Fatal(err)
	}
	none := unit.Size(0)
	g, err := r.Create(t.Context(), "a", Limits{Memory: unit.GiB, Swap: &none, CPUs: 1500, PIDs: 99}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := f.top + "/strata/a/payload"
	files := []string{"memory.max", "memory.swap.max", "cpu.max", "pids.max"}
	before := read(t, dir, files...)
	one := unit.Size(1)
	err = g.Set(Limits{Memory: 2 * unit.GiB, Swap: &one, CPUs: 2500, PIDs: 88, IO: IO{Read: unit.MiB, Disks: []string{"8:0"}}})
	if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "io.max") {
		t.Errorf("got %v, want that there is no io.max", err)
	}
	if diff := cmp.Diff(before, read(t, dir, files...)); diff != "" {
		t.Error(diff)
	}
}

func TestV2FiguresAreRead(t *testing.T) {
	f, host := newFakeV2(t, "cpu io memory pids")
	r, err := open("strata", host)
	if err != nil {
		t.Fatal(err)
	}
	g, err := r.Create(t.Context(), "a", Limits{}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"memory.current": "4096\n", "memory.peak": "8192\n", "memory.max": "max\n", "memory.stat": "anon 1\nfile 2\nbroken\n", "memory.events": "low 0\nmax 7\noom_kill 3\n",
		"memory.swap.current": "5\n", "memory.swap.max": "99\n", "memory.swap.peak": "50\n", "memory.swap.events": "high 0\nmax 6\nfail 9\n",
		"cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 4\nthrottled_usec 6\n", "pids.current": "2\n", "pids.max": "10\n", "pids.events": "max 1\n",
		"io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n253:1 rbytes=10 wbytes=20 rios=30 wios=40\n",
	} {
		if err := os.WriteFile(filepath.Join(f.top, "strata/a/payload", file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := Stats{Memory: MemoryStats{Current: 4096, Peak: 8192, Limit: Unlimited, Anon: 1, File: 2, Kills: 3, Hits: 7, Swap: 5, SwapLimit: 99, SwapPeak: 50, SwapHits: 6},
		CPU:  CPUStats{Usage: 5000, User: 3000, System: 2000, Throttled: 6000, Throttles: 4},
		PIDs: PIDsStats{Current: 2, Limit: 10, Hits: 1}, IO: IOStats{Known: true, ReadBytes: 11, WriteBytes: 22, Reads: 33, Writes: 44}}
	got, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatAHostLacksIsNamed(t *testing.T) {
	_, poor := newFakeV2(t, "cpu io")
	_, closed := newFakeV2(t, "cpu memory pids")
	closed.programs = func() (deviceGate, error) { return nil, errors.New("no BPF") }
	for _, c := range []struct {
		name  string
		facts facts
		word  string
		kind  fault.Kind
	}{
		{"no control groups at all", facts{}, "no control groups are mounted", fault.Unable},
		{"controllers switched off", poor, "memory, pids", fault.Unable},
		{"no way to restrict devices", closed, "no BPF", fault.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := open("strata", c.facts)
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.word) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAServicesGroupIsUsedFromALeafOfIt(t *testing.T) {
	f, host := newFakeV2(t, "cpu memory pids")
	service := f.top + "/service"
	if err := f.mkdir(service); err != nil {
		t.Fatal(err)
	}
	if err := f.populate(service, "cpu memory pids"); err != nil {
		t.Fatal(err)
	}
	host.own = "0::/service\n"
	r, err := open("strata", host)
	if err != nil || r.unified != f.top+"/strata" {
		t.Fatalf("not delegated, yet in %s, %v", r.unified, err)
	}
	err = unix.Setxattr(service, "user.delegate", []byte("1"), 0)
	require.Host(t, "user-xattr", err == nil, fmt.Sprint("the temporary folder keeps no extended attributes: ", err))
	for own, want := range map[string]string{"0::/service\n": f.top, "0::/service/daemon\n": service} {
		host.own = own
		if r, err = open("strata", host); err != nil || r.unified != want+"/strata" {
			t.Errorf("%q: in %s, %v", own, r.unified, err)
		}
	}
	// A root with environments stays where it is, wherever the daemon is started.
	if err := f.mkdir(service + "/strata/env"); err != nil {
		t.Fatal(err)
	}
	if err := f.mkdir(f.top + "/strata/env"); err != nil {
		t.Fatal(err)
	}
	if r, err = open("strata", host); err != nil || r.unified != f.top+"/strata" {
		t.Errorf("in %s, %v", r.unified, err)
	}
}

func TestLimitsAreChecked(t *testing.T) {
	under := unit.Size(-2)
	for _, c := range []struct {
		name   string
		limits Limits
		field  string
	}{
		{"nothing", Limits{}, ""}, {"everything", Limits{Memory: 1, CPUs: 10, PIDs: 1}, ""},
		{"negative memory", Limits{Memory: -1}, "memory"}, {"swap below unlimited", Limits{Swap: &under}, "swap"},
		{"too little of a processor", Limits{CPUs: 9}, "cpus"}, {"negative processes", Limits{PIDs: -1}, "pids"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := fault.All(c.limits.Check())
			if c.field == "" && len(all) > 0 || c.field != "" && (len(all) != 1 || all[0].Field != c.field) {
				t.Errorf("got %v", all)
			}
		})
	}
}

func TestSettingsOnEachVersion(t *testing.T) {
	for _, c := range []struct {
		name      string
		limits    Limits
		v2, fresh bool
		want      string
	}{
		{"a fresh group without limits needs no write", Limits{}, true, true, "[]"},
		{"taking limits away on v2", Limits{}, true, false, "[{cpu cpu.max max 100000} {pids pids.max max}]"},
		{"taking limits away on v1", Limits{}, false, false, "[{cpu cpu.cfs_quota_us -1} {pids pids.max max}]"},
		{"half a processor on v1", Limits{CPUs: 500}, false, true, "[{cpu cpu.cfs_quota_us 50000}]"},
		{"the least on v2", Limits{CPUs: 10, PIDs: 5}, true, true, "[{cpu cpu.max 1000 100000} {pids pids.max 5}]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := append(c.limits.cpuSettings(c.v2, c.fresh), c.limits.pidsSettings(c.fresh)...)
			if text := fmt.Sprint(got); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
		})
	}
}

func TestDeviceRulesAreChecked(t *testing.T) {
	if err := checkDevices(append(DefaultDevices(), FUSE)); err != nil {
		t.Error(err)
	}
	for _, d := range []Device{{}, {'x', 1, 1, "r"}, {'c', -2, 1, "r"}, {'c', 1, 1, ""}, {'c', 1, 1, "rx"}, {'b', 1 << 40, 1, "r"}} {
		if err := checkDevices([]Device{d}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v was taken: %v", d, err)
		}
	}
	if got := FUSE.String(); got != "c 10:229 rwm" {
		t.Error(got)
	}
}
