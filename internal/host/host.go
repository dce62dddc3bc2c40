package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"golang.org/x/sys/unix"
)

// Finding is what one probe found.
type Finding struct {
	Group   string `json:"group"` // what it is about, see Groups
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Unknown bool   `json:"unknown,omitempty"` // neither: it was not judged
	Detail  string `json:"detail,omitempty"`  // what was seen, or why it does not work
	How     string `json:"how"`               // how it was found out
	Lost    string `json:"lost,omitempty"`    // what does not work without it
	Needed  bool   `json:"needed"`            // zones do not work without it
	Fix     string `json:"fix,omitempty"`     // what to do, where it does not work
}

// probe is one row of the check. try returns what it saw.
type probe struct {
	Finding
	try func(context.Context) (string, error)
}

// errUnknown is returned by a probe that cannot judge.
var errUnknown = errors.New("not judged here")

// patience bounds one probe.
const patience = 20 * time.Second

// atOnce is how many probes run side by side. Several wait for the kernel, none
// for long.
const atOnce = 4

// Check runs every probe and returns the findings by group, in each those that
// zones need first. verdict is the file in which a daemon keeps what its guests have
// shown of KVM; one that is not there says nothing.
func Check(ctx context.Context, verdict string) []Finding { return run(ctx, probes(verdict)) }

// Ready returns nil where everything is there that zones need, and otherwise a
// fault for each thing missing. Kinds: Unable.
func Ready(all []Finding) error {
	var errs []error
	for _, f := range all {
		if f.Needed && !f.OK && !f.Unknown {
			errs = append(errs, fault.Unablef("%s: %s", f.Name, f.Detail).Help("%s", f.Fix))
		}
	}
	return fault.Join(errs...)
}

func run(ctx context.Context, all []probe) []Finding {
	out := make([]Finding, len(all))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, p := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out[i] = p.run(ctx)
		})
	}
	wg.Wait()
	slices.SortStableFunc(out, func(a, b Finding) int {
		if a.Group != b.Group {
			return slices.Index(groupOrder, a.Group) - slices.Index(groupOrder, b.Group)
		}
		return rank(a) - rank(b)
	})
	return out
}

// Groups of findings.
const (
	GroupProcess  = "process"
	GroupKernel   = "kernel"
	GroupPrograms = "programs"
	GroupNetwork  = "network"
)

var groupOrder = []string{GroupProcess, GroupKernel, GroupPrograms, GroupNetwork}

func rank(f Finding) int {
	if f.Needed {
		return 0
	}
	return 1
}

// run tries the probe for as long as patience lasts. One that hangs in the kernel
// is left behind: there is no other way.
func (p probe) run(ctx context.Context) Finding {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type answer struct {
		detail string
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- answer{err: fmt.Errorf("the probe failed: %v", v)}
			}
		}()
		detail, err := p.try(ctx)
		done <- answer{detail, err}
	}()
	f := p.Finding
	var a answer
	select {
	case a = <-done:
	case <-ctx.Done():
		a.err = fmt.Errorf("no answer within %v", patience)
	}
	f.OK, f.Unknown, f.Detail = a.err == nil, errors.Is(a.err, errUnknown), a.detail
	switch {
	case f.OK:
		f.Fix = ""
	case f.Unknown:
	default:
		f.Detail = strings.TrimPrefix(a.detail+": "+words(a.err), ": ")
		if os.Geteuid() != 0 && (f.Group == GroupProcess || errors.Is(a.err, unix.EPERM) || errors.Is(a.err, unix.EACCES)) {
			f.Fix = "run it as root"
		}
	}
	return f
}

// words writes an error for people: what the kernel's answer means, where it is
// a common one.
func words(err error) string {
	for errno, text := range map[unix.Errno]string{
		unix.ENOSYS: "this kernel does not have it",
		unix.ENODEV: "this kernel has no such file system or device",
		unix.EPERM:  "not permitted", unix.EACCES: "not permitted",
	} {
		if errors.Is(err, errno) {
			return fmt.Sprintf("%s (%v)", text, err)
		}
	}
	return err.Error()
}
