package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// boards is a driver at stratum machine whose runs have places for devices.
type boards struct {
	*enginetest.Driver
	stratum.Hoster // of which only Fit is asked
	*sockets
}

// sockets are the places of all runs, which outlive the daemon.
type sockets struct {
	mu      sync.Mutex
	plugged map[string]bool
	before  func() // called when something is to be plugged in
	started []stratum.Device
}

func (b boards) Stratum() string { return stratum.Machine }

func (b boards) Fit(_ context.Context, p stratum.Plan, d stratum.Device) (stratum.Device, error) {
	if slices.ContainsFunc(p.Devices, func(other stratum.Device) bool { return other.Place == d.Place }) {
		return d, fault.Conflictf("the place is taken")
	}
	if d.Disk != nil {
		text, err := os.ReadFile(d.Disk.File)
		if err != nil {
			return d, err
		}
		d.Images = append([]string{d.Disk.File}, strings.Fields(string(text))...)
	}
	return d, nil
}

func (b boards) Start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (stratum.Live, error) {
	b.mu.Lock()
	b.started = p.Devices
	b.mu.Unlock()
	live, err := b.Driver.Start(ctx, p, o)
	return b.wrap(live), err
}

func (b boards) Adopt(ctx context.Context, id string) (stratum.Live, error) {
	live, err := b.Driver.Adopt(ctx, id)
	return b.wrap(live), err
}

func (b boards) wrap(live stratum.Live) stratum.Live {
	if live == nil {
		return nil
	}
	return boardLive{live, live.(stratum.Pauser), live.(stratum.Limiter), b.sockets}
}

type boardLive struct {
	stratum.Live
	stratum.Pauser
	stratum.Limiter
	*sockets
}

func (l boardLive) Plug(_ context.Context, _ stratum.Plan, d stratum.Device, _ *stratum.Tap) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.before != nil {
		l.before()
	}
	if strings.Contains(d.Name(), "disk") && strings.HasSuffix(d.Disk.File, "bad") {
		return fault.Unablef("it cannot be plugged in")
	}
	l.plugged[d.Name()] = true
	return nil
}

func (l boardLive) Unplug(_ context.Context, d stratum.Device) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.plugged, d.Name())
	return nil
}

func (l boardLive) Has(_ context.Context, d stratum.Device) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plugged[d.Name()], nil
}

// bench is an engine with a driver of boards.
type bench struct {
	*lab
	*sockets
}

func newBench(t *testing.T) *bench {
	b := &bench{prepared(t), &sockets{plugged: map[string]bool{}}}
	b.begin()
	return b
}

func (b *bench) begin() {
	b.t.Helper()
	o := b.options()
	o.Drivers = []stratum.Driver{boards{enginetest.NewDriver(b.host), nil, b.sockets}}
	e, err := engine.Open(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Engine = e
	b.t.Cleanup(func() { e.Close(context.Background()) })
}

// TestADaemonThatIsKilledLeavesWordOfDevices: what it was plugging in then is kept where it
// is plugged in, and forgotten where it is not.
func TestADaemonThatIsKilledLeavesWordOfDevices(t *testing.T) {
	for name, there := range map[string]bool{"before it is plugged in": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			env := b.run(api.Spec{Name: "box", Stratum: "machine"})
			path := filepath.Join(b.dir, "state", "environments", env.ID, "record.json")
			var record []byte
			b.before = func() { record, _ = os.ReadFile(path) }
			disk := filepath.Join(t.TempDir(), "disk")
			b.must(os.WriteFile(disk, nil, 0o600))
			made, err := b.AttachDisk(t.Context(), "box", api.Disk{File: disk})
			b.must(err)
			if made.Name != "disk3" || !b.plugged["disk3"] { // a template's machine has three of its own
				t.Fatalf("%+v, %v", made, b.plugged)
			}
			b.must(b.Close(t.Context()))
			b.must(os.WriteFile(path, record, 0o600)) // as it was in the middle
			b.plugged["disk3"] = there
			b.begin()
			disks := b.get("box").Disks
			if there != (len(disks) == 1) {
				t.Errorf("%+v", disks)
			}
			b.must(b.Close(t.Context()))
			b.plugged["disk3"] = false // what is settled is not asked for again
			b.begin()
			if again := b.get("box").Disks; len(again) != len(disks) {
				t.Errorf("%+v, then %+v", disks, again)
			}
		})
	}
}

// TestAnAttachedDiskLiesOverWhatItLayOver when it was attached, whatever is written to its
// image since; one that an earlier strata has attached, over what it lay over at its first start.
func TestAnAttachedDiskLiesOverWhatItLayOver(t *testing.T) {
	for name, earlier := range map[string]bool{"attached by this strata": false, "attached by an earlier one": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			env := b.run(api.Spec{Name: "box", Stratum: "machine"})
			b.must(b.Stop(t.Context(), "box", engine.StopOptions{}))
			disk := filepath.Join(t.TempDir(), "disk")
			b.must(os.WriteFile(disk, []byte("base"), 0o600))
			for range 2 {
				_, err := b.AttachCard(t.Context(), "box", api.Card{})
				b.must(err)
			}
			_, err := b.AttachDisk(t.Context(), "box", api.Disk{File: disk})
			b.must(err)
			if earlier {
				b.must(b.Close(t.Context()))
				path := filepath.Join(b.dir, "state", "environments", env.ID, "record.json")
				record, err := os.ReadFile(path)
				b.must(err)
				without := regexp.MustCompile(`,?\s*"images":\s*\[[^]]*\]`).ReplaceAll(record, nil)
				if len(without) == len(record) {
					t.Fatalf("no images are noted: %s", record)
				}
				b.must(os.WriteFile(path, without, 0o600))
				b.begin()
			}
			for _, content := range []string{"base", "forged"} {
				b.must(os.WriteFile(disk, []byte(content), 0o600))
				b.must(b.Start(t.Context(), "box", nil))
				if len(b.started) != 3 || !slices.Equal(b.started[2].Images, []string{disk, "base"}) {
					t.Errorf("%s: it is started with %+v", content, b.started)
				}
				b.must(errors.Join(b.Stop(t.Context(), "box", engine.StopOptions{}), b.Close(t.Context())))
				b.begin()
			}
		})
	}
}

// TestWhatCannotBePluggedInIsNotKept: neither by the record nor by the network.
func TestWhatCannotBePluggedInIsNotKept(t *testing.T) {
	b := newBench(t)
	b.run(api.Spec{Name: "box", Stratum: "machine"})
	bad := filepath.Join(t.TempDir(), "bad")
	b.must(os.WriteFile(bad, nil, 0o600))
	_, err := b.AttachDisk(t.Context(), "box", api.Disk{File: bad})
	kindIs(t, err, fault.Unable, "disk3", "cannot be plugged in")
	if got := b.get("box").Disks; len(got) != 0 {
		t.Errorf("%+v", got)
	}
	_, err = b.Move(t.Context(), "box", api.MoveRequest{Stratum: "machine"})
	kindIs(t, err, fault.Conflict, "already")
}

// TestRatesHoldForAttachedCards from the moment on that they are set.
func TestRatesHoldForAttachedCards(t *testing.T) {
	b := newBench(t)
	env := b.run(api.Spec{Name: "box", Stratum: "machine"})
	c, err := b.AttachCard(t.Context(), "box", api.Card{})
	b.must(err)
	if c.Name != "card1" || c.Address.MAC == "" && c.Address.IPv4 == "" {
		t.Errorf("%+v", c)
	}
	in := unit.Size(1 << 20)
	_, err = b.Update(t.Context(), "box", api.Update{NetIn: &in})
	b.must(err)
	links := b.network.Rates()
	if len(links) != 2 {
		t.Errorf("links with rates: %v", links)
	}
	for id, r := range links {
		if r != (engine.Rate{In: 1 << 20}) {
			t.Errorf("%s (the environment is %s): %+v", id, env.ID, r)
		}
	}
}
