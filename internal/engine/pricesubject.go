package engine

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/agent/gauge"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/price"
	"github.com/strata-project/strata/internal/stratum"
)

// maxComplaint bounds what is read of what the measuring command complains of. Unit: bytes.
const maxComplaint = 4096

// bareHost is the host as a side of measuring.
type bareHost struct{ agent, folder string }

var _ price.Side = bareHost{}

// newBareHost measures disk in folder, which lies beside the environments' disks.
func newBareHost(folder string) (bareHost, error) {
	agent, err := place.Binary("strata-agent")
	return bareHost{agent, folder}, err
}

func (h bareHost) Gauge(ctx context.Context, arg string, out io.Writer) error {
	errs := limited{max: maxComplaint}
	cmd := exec.CommandContext(ctx, h.agent, gauge.Command, arg)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, &errs, "/"
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return gaugeFault("on the host", err, errs.data)
	}
	return nil
}

func (bareHost) Address() string  { return "127.0.0.1" }
func (h bareHost) Folder() string { return h.folder }

func gaugeFault(where string, err error, said []byte) error {
	if text := fromInside(string(said)); text != "" {
		return fault.Unablef("measure %s: %s", where, text)
	}
	return fault.Wrap(err, "measure %s", where)
}

// subject is an environment that does nothing, made to be measured. It is no run of the
// engine's: nothing supervises it, its operation lock is held for as long as it lives, and
// what a killed daemon leaves of it is ended and removed as what copies files is.
type subject struct {
	e      *Engine
	en     *entry
	driver stratum.Driver
	live   stratum.Live // nil: ended and cleaned
	files  []string     // of its template, as they are read at its stratum
	took   time.Duration
	locked bool
}

var _ price.Subject = (*subject)(nil)

// restFor is how long the main program of a subject lives by itself, in case nobody ends it.
const restFor = 15 * time.Minute

// gaugeProcess is the measuring command inside.
func gaugeProcess(arg string) stratum.Process {
	return stratum.Process{Args: []string{gauge.Command, arg}, WorkDir: "/", User: "0:0", Agent: true}
}

// newSubject makes and starts one. If it fails nothing of it is left.
func (e *Engine) newSubject(ctx context.Context, template, at string, cold bool) (_ *subject, err error) {
	s := &subject{e: e, driver: e.drivers[at]}
	defer func() {
		if err != nil {
			s.Discard()
		}
	}()
	spec := api.Spec{Template: template, Stratum: at, Kind: environment.App, Entrypoint: []string{""}, Command: []string{gauge.Command},
		AutoRemove: true, Cold: cold && at != stratum.Zone}
	if at != stratum.Zone { // made once for a template: no start's price
		if _, _, err := e.whole(ctx, template, template); err != nil {
			return nil, err
		}
	}
	begin := time.Now()
	err = e.o.Templates.Use(template, func(t api.Template) (err error) {
		s.en, err = e.create(ctx, spec, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.en.lock(ctx); err != nil {
		return nil, err
	}
	s.locked = true
	made := time.Since(begin)
	// A run that is not the record's: a daemon that finds it ends it.
	if err := e.phase(s.en, environment.PhaseCopying); err != nil {
		return nil, err
	}
	begin = time.Now()
	rec := s.en.snapshot()
	p, err := e.plan(ctx, rec, false)
	if err != nil {
		return nil, err
	}
	s.files = e.templateFiles(p)
	p.Main = gaugeProcess(fmt.Sprintf("rest:%d", restFor.Milliseconds()))
	if s.live, err = s.driver.Start(ctx, p, stratum.StartOptions{Link: e.link(rec)}); err != nil {
		return nil, fault.Wrap(err, "start %s", rec.Name)
	}
	live := s.live
	s.en.do(func() { // what rm --force does first
		s.en.copying = func() {
			if err := live.Kill(ctx); err != nil {
				e.log.Debug("measured environment not killed", "id", rec.ID, "error", err)
			}
		}
	})
	if err := s.Gauge(ctx, "hello:1", io.Discard); err != nil {
		return nil, err
	}
	s.took = made + time.Since(begin)
	return s, nil
}

func (s *subject) Gauge(ctx context.Context, arg string, out io.Writer) error {
	errs := limited{max: maxComplaint}
	ended, err := inside(ctx, s.live, gaugeProcess(arg), nil, out, &errs)
	if err == nil && ended.Status != 0 {
		err = fault.Internalf("the measuring command ended with status %d", ended.Status)
	}
	if err != nil {
		return gaugeFault("inside", err, errs.data)
	}
	return nil
}

func (s *subject) Address() string { return bare(s.en.snapshot().Address.IPv4) }

func (*subject) Folder() string { return "/" }

func (s *subject) Took() time.Duration { return s.took }

func (s *subject) Warm() bool {
	b, ok := s.live.(stratum.Booter)
	return ok && b.Boot().Warm
}

func (s *subject) Memory() (price.Held, error) {
	return price.Weigh("/", s.live.KeeperPID(), s.live.PID(), s.files)
}

// templateFiles are what of a template the host caches for the stratum of p: a zone reads files of
// mounted layers, what has a kernel of its own reads one image.
func (e *Engine) templateFiles(p stratum.Plan) []string {
	if p.Whole.Path != "" {
		return []string{p.Whole.Path}
	}
	var files []string
	for _, l := range p.Layers {
		files = append(files, l.Path, filepath.Join(e.o.Places.Run, "layers", l.Digest))
	}
	return files
}

// stopGrace bounds a stop that is measured. It is what stop has by itself.
const stopGrace = 10 * time.Second

func (s *subject) Stop(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	begin := time.Now()
	if err := s.live.Signal(ctx, syscall.SIGTERM); err != nil {
		return 0, err
	}
	if _, err := s.live.Wait(ctx); err != nil {
		return 0, fault.Wrap(err, "wait for the end")
	}
	if _, err := s.driver.Clean(ctx, s.en.id()); err != nil {
		return 0, err
	}
	s.live = nil
	return time.Since(begin), nil
}

func (s *subject) Discard() {
	if s.en == nil {
		return
	}
	ctx, cancel := tidy(context.Background())
	defer cancel()
	if s.live != nil {
		s.e.endUnwanted(ctx, s.driver, s.en.id(), s.live)
		s.live = nil
	}
	s.e.disconnect(ctx, s.en.snapshot())
	s.en.do(func() { s.en.copying = nil })
	if s.locked {
		defer s.en.unlock()
	}
	if err := s.e.remove(ctx, s.en); err != nil {
		s.e.log.Warn("measured environment not removed", "id", s.en.id(), "error", err)
	}
}
