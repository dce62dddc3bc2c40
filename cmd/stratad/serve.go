package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/host"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/network"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/server"
	"github.com/strata-project/strata/internal/store"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/guest"
	"github.com/strata-project/strata/internal/stratum/machine"
	"github.com/strata-project/strata/internal/stratum/virtual"
	"github.com/strata-project/strata/internal/stratum/zone"
	"github.com/strata-project/strata/internal/template"
	"github.com/strata-project/strata/internal/undo"
	"github.com/strata-project/strata/internal/version"
)

const (
	// readyDisks is how many private disks are kept ready: more than that start
	// at once only by somebody's script, which waits some milliseconds then.
	readyDisks = 8
	// farewell bounds how long requests under way may still take at the end.
	farewell = 5 * time.Second
	// gcPercent makes the collector run earlier than by default: the daemon is
	// idle most of the time, and its memory is a price that every host pays.
	gcPercent = 50
)

// serve is the daemon, until ctx ends.
func serve(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return fault.Deniedf("stratad runs as root only").Help("use sudo, or the systemd unit")
	}
	debug.SetGCPercent(gcPercent)
	unix.Umask(0o022)
	var back undo.Stack
	defer func() { err = errors.Join(err, back.Roll(ctx)) }()
	lock, err := sole(o.places)
	if err != nil {
		return err
	}
	back.Push("release the lock", closing(lock.Close))
	// Whoever connects from here on waits until the engine is in order.
	listener, err := server.Listen(o.places.Socket)
	if err != nil {
		return err
	}
	back.Push("close the socket", func(context.Context) error {
		if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	e, err := assemble(ctx, o, &back)
	if fault.Is(err, fault.Unable) {
		// Nobody can ask this daemon for `strata host check`: it says by itself what is missing.
		return fault.Join(err, host.Ready(host.Check(ctx, virtual.VerdictFile(o.places))))
	}
	if err != nil {
		return err
	}
	return answer(ctx, o, e, listener)
}

func closing(closes func() error) func(context.Context) error {
	return func(context.Context) error { return closes() }
}

// sole makes sure that this is the only daemon of its root, before anything else
// is touched. The lock ends with the process.
func sole(p place.Places) (*os.File, error) {
	for _, dir := range []string{p.State, p.Run} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fault.Wrap(err, "make the folder %s", dir)
		}
		if err := private(dir); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(p.Run, "daemon.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.Wrap(err, "open the daemon's lock")
	}
	if err := store.Exclusive(f); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.Wrap(err, "take the daemon's lock")
		}
		pid := make([]byte, 20)
		n, _ := f.ReadAt(pid, 0) // who it is helps, but is not needed
		return nil, fault.Conflictf("another daemon (pid %s) has the state folder %s", pid[:n], p.State).
			Help("use that one, or give this one a root of its own with --root")
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := fmt.Fprint(f, os.Getpid()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// private refuses a folder that others than root may write to: what the daemon finds there
// it believes, and its sockets could be somebody else's.
func private(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fault.Wrap(err, "look at the folder %s", dir)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fault.Deniedf("the folder %s belongs to user %d, who could change what the daemon relies on", dir, st.Uid).Help("chown root %s", dir)
	}
	if st.Mode&0o002 != 0 || st.Mode&0o020 != 0 && st.Gid != 0 {
		return fault.Deniedf("the folder %s can be written to by others (mode %04o, group %d)", dir, st.Mode&0o7777, st.Gid).Help("chmod go-w %s", dir)
	}
	return nil
}

// assemble opens everything that the engine stands on, and the engine; what it
// opened is pushed on back.
func assemble(ctx context.Context, o options, back *undo.Stack) (*engine.Engine, error) {
	p := o.places
	c, err := readConfig(o.config, p)
	if err != nil {
		return nil, err
	}
	agent, err := place.Binary("strata-agent")
	if err != nil {
		return nil, err
	}
	templates, err := template.Open(filepath.Join(p.State, "templates"), agent, o.log)
	if err != nil {
		return nil, err
	}
	kernels, err := kernel.Open(filepath.Join(p.State, "kernels"), o.log)
	if err != nil {
		return nil, err
	}
	pool, err := disk.OpenPool(ctx, filepath.Join(p.State, "disks"), disk.Options{Log: o.log, Agent: agent, Ready: readyDisks})
	if err != nil {
		return nil, fault.Wrap(err, "open the pool of disks")
	}
	back.Push("close the pool of disks", closing(pool.Close))
	layers, err := mount.OpenLayers(filepath.Join(p.Run, "layers"))
	if err != nil {
		return nil, fault.Wrap(err, "take over the layers")
	}
	groups, err := resource.Open(p.Name("strata"))
	if err != nil {
		return nil, fault.Wrap(err, "open the control groups")
	}
	names, err := namesCommand(p)
	if err != nil {
		return nil, err
	}
	net, err := network.Open(ctx, network.Options{
		Tag: p.Tag, Dir: filepath.Join(p.State, "networks"), RunDir: filepath.Join(p.Run, "dns"), Log: o.log, DNSCommand: names,
	})
	if err != nil {
		return nil, fault.Wrap(err, "open the networks")
	}
	back.Push("close the networks", func(context.Context) error { net.Close(); return nil })
	zones, err := zone.New(zone.Options{Places: p, Pool: pool, Layers: layers, Resources: groups, Log: o.log})
	if err != nil {
		return nil, err
	}
	back.Push("close the zones", closing(zones.Close))
	guests, err := guest.New(guest.Options{Places: p, Kernels: kernels, Pool: pool, Resources: groups.Marked("vm"), Log: o.log, Standby: c.Standby})
	if err != nil {
		return nil, err
	}
	back.Push("close the guests", closing(guests.Close))
	stock, err := machine.New(machine.Options{Places: p, Kernels: kernels, Pool: pool, Resources: groups.Marked("hw"), Log: o.log})
	if err != nil {
		return nil, err
	}
	back.Push("close the machines", closing(stock.Close))
	room, from, err := capacity(o.host, groups)
	if err != nil {
		return nil, err
	}
	e, err := engine.Open(ctx, engine.Options{
		Places: p, Drivers: []stratum.Driver{zones, guests, stock}, Templates: engine.FromStore(templates), Kernels: engine.FromKernels(kernels, p.Run), Pool: pool,
		Network: engine.FromHost(net), Layers: layers, Host: room, Reserve: from, Log: o.log, Version: version.Version,
		Kills: engine.WatchKills(p.Name("strata")),
		Check: func(ctx context.Context) []api.Finding { return check(ctx, p) },
	})
	if err != nil {
		return nil, err
	}
	back.Push("close the engine", e.Close)
	return e, nil
}

// namesCommand is how the process that answers names is started.
func namesCommand(p place.Places) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fault.Wrap(err, "find the running program")
	}
	return []string{self, "dns", "--dir", filepath.Join(p.Run, "dns")}, nil
}

// answer serves requests until ctx ends, and then lets those under way finish.
func answer(ctx context.Context, o options, e server.Engine, listener net.Listener) error {
	s := server.New(e, o.log)
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	h := s.HTTP()
	h.RegisterOnShutdown(s.End)
	h.BaseContext = func(net.Listener) context.Context { return requests }
	go s.Watch(requests)
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(listener) }()
	if err := server.Ready(); err != nil {
		o.log.Warn("systemd was not told", "error", err)
	}
	o.log.Info("ready", "socket", o.places.Socket, "version", version.Version, "pid", os.Getpid())
	select {
	case err := <-ended:
		return fault.Wrap(err, "serve")
	case <-ctx.Done():
	}
	o.log.Info("ending; environments go on")
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if err := h.Shutdown(bounded); err != nil {
		_ = h.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
