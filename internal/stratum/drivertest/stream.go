package drivertest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

type failingLink struct{}

func (failingLink) IntoNamespace(context.Context, int) error { return errors.New("no network today") }

func (failingLink) Tap(context.Context, *os.File) (*stratum.Tap, error) {
	return nil, errors.New("no network today")
}

var streamCases = []one{
	{"standard output and standard error are kept apart", 0, outputsApart},
	{"standard input arrives, and its end", 0, stdin},
	{"without standard input it is empty", 0, noStdin},
	{"much output arrives whole", 0, muchOutput},
	{"standard error can be opened again by name", 0, reopenStderr},
	{"a terminal is one, of the client's size", 0, terminal},
	{"a signal of the client reaches the program", 0, clientSignal},
	{"an exec is inside, with its own status", 0, execInside},
	{"an exec has the terminal it asks for", 0, execTerminal},
	{"an exec has its own input", 0, execStdin},
	{"an exec of a missing program is fault 127's", 0, execMissing},
	{"a second client sees what comes after", 0, attachLater},
	{"files are copied by the agent", 0, execFiles},
}

func outputsApart(s *suite) {
	got := s.start(s.sh("echo out; echo err >&2; echo out2")).wait()
	s.equal("standard output", got.stdout, "out\nout2\n")
	s.equal("standard error", got.stderr, "err\n")
}

func withStdin(p *stratum.Plan) { p.Main.Stdin = true }

func stdin(s *suite) {
	r := s.start(s.app("cat"), withStdin)
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	go func() {
		stream.Write(r.client, stream.Stdin, big)
		stream.Write(r.client, stream.CloseStdin, nil)
	}()
	got := r.wait()
	if got.stdout != string(big) {
		s.Errorf("%d bytes came back of %d", len(got.stdout), len(big))
	}
}

func noStdin(s *suite) {
	s.equal("what is read", s.output(s.sh("cat | wc -c")), "0")
}

func muchOutput(s *suite) {
	got := s.start(s.sh("dd if=/dev/zero bs=1M count=8 2>/dev/null; echo end >&2")).wait()
	s.equal("the length", len(got.stdout), 8<<20)
	s.equal("standard error", got.stderr, "end\n")
}

func reopenStderr(s *suite) {
	for _, user := range []string{"root", "alice"} {
		p := s.sh("echo again >/dev/stderr; echo out >/dev/stdout")
		p.Main.User = user
		got := s.start(p).wait()
		s.equal("standard error of "+user, got.stderr, "again\n")
		s.equal("standard output of "+user, got.stdout, "out\n")
	}
}

func terminal(s *suite) {
	p := s.sh("tty; stty size; ls -l /dev/console >/dev/null && echo console; echo $TERM; trap 'stty size; exit 0' WINCH; while :; do sleep 0.01; done")
	p.Main.TTY, p.Main.Stdin, p.Main.Rows, p.Main.Cols = true, true, 33, 77
	r := s.start(p)
	s.awaitOutput(r)
	r.say(stream.Resize, stream.ResizePayload(44, 88))
	got := r.wait()
	s.equal("the output", strings.ReplaceAll(got.stdout, "\r", ""), "/dev/pts/0\n33 77\nconsole\nxterm\n44 88\n")
	s.equal("standard error", got.stderr, "")
}

func clientSignal(s *suite) {
	r := s.start(s.sh("trap 'exit 6' USR1; while :; do sleep 0.01; done"))
	s.awaitOutput(r)
	r.say(stream.Signal, []byte{byte(syscall.SIGUSR1)})
	s.equal("the status", int(r.wait().ended.Status), 6)
}

func execInside(s *suite) {
	p := s.app("sleep", "97")
	r := s.start(p)
	s.equal("the hostname", r.exec("hostname").stdout, p.Hostname+"\n")
	s.contains("its processes", r.exec("ps").stdout, "sleep 97")
	s.equal("the status", int(r.exec("sh", "-c", "exit 77").ended.Status), 77)
	got := r.exec("sh", "-c", "echo o; echo e >&2; kill -9 $$")
	s.equal("standard output", got.stdout, "o\n")
	s.equal("standard error", got.stderr, "e\n")
	s.equal("the signal", int(got.ended.Signal), 9)
	got = r.execAs(stratum.Process{Args: []string{"sh", "-c", "id -un; pwd; echo $A $HOME"}, User: "alice", WorkDir: "/tmp", Env: []string{"PATH=/bin", "A=b"}})
	s.equal("what it is", got.stdout, "alice\n/tmp\nb /home/alice\n")
}

func execTerminal(s *suite) {
	r := s.start(s.app("sleep", "99"))
	got := r.execAs(stratum.Process{Args: []string{"sh", "-c", "tty; stty size; [ -t 0 ] && [ -t 2 ] && echo yes"}, TTY: true, Rows: 11, Cols: 22})
	s.equal("the output", strings.ReplaceAll(got.stdout, "\r", ""), "/dev/pts/0\n11 22\nyes\n")
}

func execStdin(s *suite) {
	r := s.start(s.app("sleep", "99"))
	x, err := r.tryExec(stratum.Process{Args: []string{"cat"}, Stdin: true})
	if err != nil {
		s.Fatal(err)
	}
	x.say(stream.Stdin, []byte("through\n"))
	x.say(stream.CloseStdin, nil)
	s.equal("what came back", x.wait().stdout, "through\n")
}

func execMissing(s *suite) {
	r := s.start(s.app("sleep", "99"))
	_, err := r.tryExec(stratum.Process{Args: []string{"nonesuch"}})
	s.fault(err, fault.Missing, "command", "executable file not found in $PATH")
	_, err = r.tryExec(stratum.Process{Args: []string{"/etc/passwd"}})
	s.fault(err, fault.Unable, "command", "permission denied")
	_, err = r.tryExec(stratum.Process{Args: []string{"true"}, User: "nobody-there"})
	s.fault(err, fault.Missing, "user", "unable to find user")
	_, err = r.tryExec(stratum.Process{Args: []string{"true"}, WorkDir: "/not/there"})
	s.fault(err, fault.Missing, "workdir", "/not/there")
}

func attachLater(s *suite) {
	r := s.start(s.sh("read a; echo got $a; read b; echo got $b"), withStdin)
	r.say(stream.Stdin, []byte("one\n"))
	ours, theirs := pair(s.T)
	defer ours.Close()
	if err := r.live.Attach(s.ctx, theirs); err != nil {
		s.Fatal(err)
	}
	theirs.Close()
	second := &run{s: s, client: ours, out: listen(ours)}
	second.say(stream.Stdin, []byte("two\n"))
	s.equal("what the first saw", r.wait().stdout, "got one\ngot two\n")
	s.contains("what the second saw", second.wait().stdout, "got two\n")
}

func execFiles(s *suite) {
	r := s.start(s.sh("mkdir /root/d; echo text >/root/d/f; chown 1000 /root/d/f; ln -s /etc/passwd /root/l; sleep 99"))
	s.eventually("the files", func() bool { return r.exec("readlink", "/root/l").ended.Status == 0 })
	agent := func(args ...string) stratum.Process {
		return stratum.Process{Args: args, Agent: true, User: "0:0", WorkDir: "/"}
	}
	got := r.execAs(agent("stat", "/root/l"))
	s.contains("the link", got.stdout, `"type":"link"`)
	s.contains("the link", got.stdout, `"link":"/etc/passwd"`)
	packed := r.execAs(agent("tar-create", "/root/d"))
	s.contains("the stream", packed.stdout, "d/f")
	in := agent("tar-extract", "/tmp")
	in.Stdin = true
	x, err := r.tryExec(in)
	if err != nil {
		s.Fatal(err)
	}
	x.say(stream.Stdin, []byte(packed.stdout))
	x.say(stream.CloseStdin, nil)
	if ended := x.wait(); ended.ended.Status != 0 {
		s.Errorf("tar-extract: %+v", ended)
	}
	s.equal("what was copied", r.exec("sh", "-c", "cat /tmp/d/f; stat -c %u /tmp/d/f").stdout, "text\n1000\n")
	got = r.execAs(agent("tar-create", "/no/such"))
	s.contains("what is missing", got.stderr, `{"kind":"missing"`)
	s.equal("the status", int(got.ended.Status), 1)
}
