package oom

import (
	"reflect"
	"strings"
	"testing"
)

const (
	front  = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
	behind = " total-vm:33360kB, anon-rss:31104kB, file-rss:1264kB, shmem-rss:8kB, UID:1537671168 pgtables:104kB oom_score_adj:0"
	held   = (31104 + 1264 + 8) << 10
)

func TestKillsAreReadFromTheKernelsWordsOnly(t *testing.T) {
	for name, row := range map[string]struct {
		lines []string
		want  Kill
	}{
		"a group at its limit": {
			[]string{front + "oom_memcg=/strata-d84e85/c200d65d6a4a/payload,task_memcg=/strata-d84e85/c200d65d6a4a/payload,task=tail,pid=21579,uid=1537671168",
				"Memory cgroup out of memory: Killed process 21579 (tail)" + behind},
			Kill{ID: "c200d65d6a4a", Process: "tail", PID: 21579, Held: held, Short: Limit}},
		"strata in a container": {
			[]string{front + "oom_memcg=/box/1/strata-d84e85/c200d65d6a4a/payload,task_memcg=/box/1/strata-d84e85/c200d65d6a4a/payload/init,task=tail,pid=5,uid=0",
				"Memory cgroup out of memory: Killed process 5 (tail)" + behind},
			Kill{ID: "c200d65d6a4a", Process: "tail", PID: 5, Held: held, Short: Limit}},
		"a group of its own init's": {
			[]string{front + "oom_memcg=/strata-d84e85/c200d65d6a4a/payload/init/x.service,task_memcg=/strata-d84e85/c200d65d6a4a/payload/init/x.service,task=tail,pid=5,uid=0",
				"Memory cgroup out of memory: Killed process 5 (tail)" + behind},
			Kill{ID: "c200d65d6a4a", Process: "tail", PID: 5, Held: held, Short: Group}},
		"the whole host": {
			[]string{"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/strata-d84e85/c200d65d6a4a.vm/payload,task=qemu-system-x86,pid=5,uid=0",
				"Out of memory: Killed process 5 (qemu-system-x86)" + behind},
			Kill{ID: "c200d65d6a4a", Process: "qemu-system-x86", PID: 5, Held: held, Short: Whole}},
		"a group that names another environment": {
			[]string{front + "oom_memcg=/strata-d84e85/c200d65d6a4a/payload/strata-d84e85/aaaaaaaaaaaa,task_memcg=/x,task=tail,pid=5,uid=0",
				"Memory cgroup out of memory: Killed process 5 (tail)" + behind},
			Kill{ID: "c200d65d6a4a", Process: "tail", PID: 5, Held: held, Short: Group}},
		"a group that names another in the middle of its name": {
			[]string{front + "oom_memcg=/strata-d84e85/c200d65d6a4a/payload/p,oom_memcg=/strata-d84e85/aaaaaaaaaaaa,task_memcg=/x,task=tail,pid=5,uid=0",
				"Memory cgroup out of memory: Killed process 5 (tail)" + behind},
			Kill{ID: "c200d65d6a4a", Process: "tail", PID: 5, Held: held, Short: Group}},
		"a process whose name is a message": {
			[]string{front + "oom_memcg=/strata-d84e85/c200d65d6a4a/payload,task_memcg=/strata-d84e85/c200d65d6a4a/payload,task=,pid=1,uid=0,x,pid=5,uid=0",
				"Memory cgroup out of memory: Killed process 5 (a) total-vm:1k)" + behind},
			Kill{ID: "c200d65d6a4a", Process: "a) total-vm:1k", PID: 5, Held: held, Short: Limit}},
		"only the second message": {
			[]string{"Memory cgroup out of memory: Killed process 5 (a\x1b[31m)" + behind},
			Kill{Process: "a?[31m", PID: 5, Held: held, Short: Limit}},
		"the second message is of another kill": {
			[]string{front + "oom_memcg=/strata-d84e85/c200d65d6a4a/payload,task_memcg=/strata-d84e85/c200d65d6a4a/payload,task=tail,pid=6,uid=0",
				"Memory cgroup out of memory: Killed process 5 (tail)" + behind},
			Kill{Process: "tail", PID: 5, Held: held, Short: Limit}},
		"before 5.3": {
			[]string{"Memory cgroup out of memory: Killed process 5 (tail), total-vm:33360kB, anon-rss:31104kB, file-rss:1264kB, shmem-rss:8kB"},
			Kill{Process: "tail", PID: 5, Held: held, Short: Limit}},
		"another root's": {
			[]string{front + "oom_memcg=/strata/c200d65d6a4a,task_memcg=/strata/c200d65d6a4a,task=tail,pid=5,uid=0",
				"Memory cgroup out of memory: Killed process 5 (tail)" + behind},
			Kill{Process: "tail", PID: 5, Held: held, Short: Whole}},
		"no number":   {[]string{"Memory cgroup out of memory: Killed process x (tail)" + behind}, Kill{}},
		"cut short":   {[]string{"Memory cgroup out of memory: Killed process 5 (tail"}, Kill{}},
		"too long":    {[]string{"Memory cgroup out of memory: Killed process 5 (" + strings.Repeat("a", maxLine) + ")" + behind}, Kill{}},
		"not a kill":  {[]string{"tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"}, Kill{}},
		"a huge size": {[]string{"Out of memory: Killed process 5 (tail) total-vm:1kB, anon-rss:4611686018427387903kB"}, Kill{}},
	} {
		p := Parser{Root: "strata-d84e85"}
		var got Kill
		for _, line := range row.lines {
			got, _ = p.Line(line)
		}
		if got != row.want {
			t.Errorf("%s: %+v; want %+v", name, got, row.want)
		}
	}
}

func TestAKillWithoutItsFirstMessageIsLookedUp(t *testing.T) {
	for name, row := range map[string]struct {
		groups string
		short  Short
		want   string
	}{
		"v1":                         {"12:cpu,memory:/strata-d84e85/c200d65d6a4a/payload\n0::/strata-d84e85/aaaaaaaaaaaa/payload\n", Limit, "c200d65d6a4a"},
		"hybrid without memory's":    {"1:name=systemd:/\n0::/strata-d84e85/c200d65d6a4a.vm/payload\n", Limit, "c200d65d6a4a"},
		"one that is gone":           {"0::/strata-d84e85/c200d65d6a4a/payload (deleted)\n", Limit, "c200d65d6a4a"},
		"a group within":             {"0::/strata-d84e85/c200d65d6a4a/payload/init/x\n", Limit, ""},
		"a group within, for all":    {"0::/strata-d84e85/c200d65d6a4a/payload/init/x\n", Whole, "c200d65d6a4a"},
		"the host's":                 {"12:memory:/system.slice/x\n0::/strata-d84e85/c200d65d6a4a/payload\n", Whole, ""},
		"nothing that can be read":   {"\x00:\n::::\n0::", Limit, ""},
		"a name that means to be it": {"12:memory:/x\n0::/y:memory:/strata-d84e85/c200d65d6a4a/payload\n", Limit, ""},
	} {
		p := Parser{Root: "strata-d84e85"}
		if got := p.member(Kill{PID: 5, Short: row.short}, row.groups); got.ID != row.want || got.Short != row.short {
			t.Errorf("%s: %+v; want %q", name, got, row.want)
		}
	}
}

func TestARecordIsTheKernelsOrNone(t *testing.T) {
	for record, want := range map[string]string{
		"3,391044,48503677178,-;Out of memory: x\n SUBSYSTEM=a\n": "Out of memory: x",
		"11,391044,48503677178,-;Out of memory: x\n":              "", // a program's own
		"x;y": "", "3,1,1,-": "",
	} {
		if got := text([]byte(record)); got != want {
			t.Errorf("%q is %q", record, got)
		}
	}
}

func TestAConsoleIsReadInPiecesAndBounded(t *testing.T) {
	line := "[   12.345678] Memory cgroup out of memory: Killed process 5 (tail)" + behind + "\r\n"
	all := "login: " + "\n" + line + strings.Repeat("x", 3*maxLine) + "\n" + line
	for _, size := range []int{1, 7, 4096, len(all)} {
		var c Console
		var found []Kill
		for rest := []byte(all); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			found = append(found, c.Write(rest[:min(size, len(rest))])...)
			if cap(c.line) > 2*maxLine {
				t.Fatalf("it keeps %d bytes", cap(c.line))
			}
		}
		want := Kill{Process: "tail", PID: 5, Held: held, Short: Limit}
		if !reflect.DeepEqual(found, []Kill{want, want}) {
			t.Errorf("in pieces of %d: %+v", size, found)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add(front+"oom_memcg=/strata/c200d65d6a4a,task_memcg=/strata/a,task=tail,pid=5,uid=0", "Memory cgroup out of memory: Killed process 5 (tail)"+behind)
	f.Fuzz(func(t *testing.T, first, second string) {
		p := Parser{Root: "strata"}
		p.Line(first)
		k, ok := p.Line(second)
		if ok && (k.PID <= 0 || k.Held < 0 || len(k.Process) > maxName || strings.ContainsAny(k.ID, "/,") || printable(k.Process) != k.Process) {
			t.Errorf("%q, %q: %+v", first, second, k)
		}
	})
}
