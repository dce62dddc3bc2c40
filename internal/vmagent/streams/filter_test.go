package streams_test

import (
	"errors"
	"testing"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/vmagent/streams/streamstest"
)

func TestAProgramMayHaveTheMainOnesFilter(t *testing.T) {
	b, c := rooted(t)
	says := func(filter string) (string, error) {
		r, err := c.Run(within(t), with(shell("grep ^Seccomp: /proc/self/status"), func(p *wire.Process) { p.Seccomp = []byte(filter) }), nil)
		return string(r.Stdout), err
	}
	var failed *streamstest.FailedError
	if _, err := says(wire.MainFilter); !errors.As(err, &failed) || failed.Kind != root.Invalid {
		t.Errorf("before there is one: %v", err)
	}
	own, err := says("")
	if err != nil {
		t.Fatal(err)
	}
	main := with(shell("read a"), func(p *wire.Process) {
		p.Stdin, p.Seccomp = true, []byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f} // BPF_RET: SECCOMP_RET_ALLOW
	})
	if err := b.server.Start(&main); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := says(wire.MainFilter); err != nil || got != "Seccomp:\t2\n" {
			t.Errorf("with the main program's: %q, %v", got, err)
		}
	}
	if got, err := says(""); err != nil || got != own {
		t.Errorf("without: %q, %v; before it was %q", got, err, own)
	}
	if err := c.Main().CloseStdin(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Main().Wait(within(t)); err != nil {
		t.Error(err)
	}
}
