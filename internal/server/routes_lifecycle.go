package server

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// stopQuery says how to stop.
type stopQuery struct {
	EnvironmentRef
	Signal string `query:"signal" maxLength:"16" doc:"Signal that asks it to end. Default: its own."`
	Grace  string `query:"grace" maxLength:"32" doc:"How long to wait before it is killed, such as 10s. Default: its own."`
}

func (q *stopQuery) options() (engine.StopOptions, error) {
	o := engine.StopOptions{Signal: q.Signal}
	if q.Grace == "" {
		return o, nil
	}
	d, err := unit.ParseDuration(q.Grace)
	if err == nil && d < 0 {
		err = fault.Invalidf("a grace of %s lies in the past", d)
	}
	if err != nil {
		return o, fault.All(err)[0].At("grace")
	}
	grace := time.Duration(d)
	o.Grace = &grace
	return o, nil
}

func (s *Server) lifecycleRoutes() {
	act := func(id, summary string, do func(ctx context.Context, ref string) error) {
		huma.Register(s.api, route(id, http.MethodPost, "/v1/environments/{ref}/"+id, summary),
			func(ctx context.Context, in *EnvironmentRef) (*none, error) { return nil, do(ctx, in.Ref) })
	}
	act("start", "Start an environment", func(ctx context.Context, ref string) error {
		return s.metrics.start(func() error { return s.engine.Start(ctx, ref, nil) })
	})
	huma.Register(s.api, route("queue", http.MethodPost, "/v1/environments/{ref}/queue", "Wait until there is room for its guarantees, and hold it for the start, change or move that follows"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Patience string    `query:"patience" maxLength:"32" doc:"How long at most, such as 10m. Default: 1h."`
			Body     *api.Next `doc:"What is to follow; nothing: a start."`
		}) (*none, error) {
			patience, err := unit.ParseDuration(cmp.Or(in.Patience, "0"))
			if err != nil || patience < 0 {
				return nil, fault.Invalidf("%q is not a time to wait", in.Patience).At("patience").Help("write a duration such as 10m")
			}
			var next api.Next
			if in.Body != nil {
				next = *in.Body
			}
			return nil, s.engine.Queue(ctx, in.Ref, next, time.Duration(patience))
		})
	act("pause", "Hold every process still", s.engine.Pause)
	act("resume", "Let a paused or suspended environment go on", s.engine.Resume)
	act("suspend", "Write an environment down with its memory, and end its run", s.engine.Suspend)
	act("reset", "Press the reset button of a machine", s.engine.Reset)
	act("nmi", "Send a machine an interrupt that it cannot mask", s.engine.Interrupt)

	huma.Register(s.api, route("reclaim", http.MethodPost, "/v1/environments/{ref}/reclaim", "Give memory back to the host that an environment does not use"),
		func(ctx context.Context, in *EnvironmentRef) (*body[api.Reclaimed], error) {
			got, err := s.engine.Reclaim(ctx, in.Ref)
			return &body[api.Reclaimed]{got}, err
		})

	act("eject", "Empty the CD drive of a foreign system", s.engine.Eject)
	huma.Register(s.api, route("insert", http.MethodPost, "/v1/environments/{ref}/insert", "Put the image of a CD into the drive of a foreign system"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			ISO string `query:"iso" required:"true" minLength:"1" maxLength:"4096" doc:"Absolute path of the image, on the daemon's host."`
		}) (*none, error) {
			return nil, s.engine.Insert(ctx, in.Ref, in.ISO)
		})

	huma.Register(s.api, route("install-agent", http.MethodPost, "/v1/environments/{ref}/agent", "Install strata's agent in a foreign Linux system"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			CD bool `query:"cd" doc:"By a CD that somebody inside has to use, also where a guest agent answers."`
		}) (*body[api.AgentInstalled], error) {
			done, err := s.engine.InstallAgent(ctx, in.Ref, in.CD)
			return &body[api.AgentInstalled]{done}, err
		})

	stop := func(id, summary string, do func(context.Context, string, engine.StopOptions) error) {
		huma.Register(s.api, route(id, http.MethodPost, "/v1/environments/{ref}/"+id, summary),
			func(ctx context.Context, in *stopQuery) (*none, error) {
				o, err := in.options()
				if err != nil {
					return nil, err
				}
				return nil, do(ctx, in.Ref, o)
			})
	}
	stop("stop", "Stop an environment: ask, wait, kill", s.engine.Stop)
	stop("restart", "Stop an environment and start it again", s.engine.Restart)

	huma.Register(s.api, route("kill", http.MethodPost, "/v1/environments/{ref}/kill", "Send a signal to the main program"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Signal string `query:"signal" maxLength:"16" doc:"Name or number. Default: KILL, which ends every process."`
		}) (*none, error) {
			return nil, s.engine.Kill(ctx, in.Ref, in.Signal)
		})
	huma.Register(s.api, route("wait", http.MethodPost, "/v1/environments/{ref}/wait", "Wait until an environment ends"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Condition string `query:"condition" enum:"stopped,next-exit,removed" default:"stopped" doc:"What to wait for."`
		}) (*body[api.WaitResult], error) {
			follow, stop := s.follow(ctx)
			defer stop()
			exit, err := s.engine.Wait(follow, in.Ref, in.Condition)
			if err != nil && follow.Err() != nil && ctx.Err() == nil {
				err = fault.Busyf("the daemon is ending").Help("wait again once it is back")
			}
			return &body[api.WaitResult]{api.WaitResult{Exit: exit}}, err
		})
	huma.Register(s.api, route("stats", http.MethodGet, "/v1/environments/{ref}/stats", "Say what an environment uses now"),
		func(ctx context.Context, in *EnvironmentRef) (*body[api.Stats], error) {
			st, err := s.engine.Stats(ctx, in.Ref)
			return &body[api.Stats]{st}, err
		})
}
