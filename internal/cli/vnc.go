package cli

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) vncCommand() *cobra.Command {
	var listen string
	var web bool
	cmd := &cobra.Command{
		Use:   "vnc [flags] NAME",
		Short: "Use a machine's screen, keyboard and mouse",
		Long: `Let viewers use a machine's screen, keyboard and mouse, as long as this command
runs. It prints where they find it.

With --web that is a page for a browser on this host, whose address carries a key
that is good until this command ends. Otherwise it is for VNC viewers: a unix socket
that only you may open, or, with --listen 127.0.0.1:PORT, a port of the loopback,
where a viewer must give the password that is printed.

Examples:
  strata vnc --web win
  strata vnc --listen ./win.sock win
  strata vnc --listen 127.0.0.1:5901 win`,
		Args: exactly(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if _, err := c.Screen(ctx, args[0]); err != nil {
				return err // now, and not to the first viewer
			}
			l, err := listenAt(listen, web, args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			defer context.AfterFunc(ctx, func() { _ = l.Close() })()
			if web {
				return a.serveWeb(ctx, c, l, args[0])
			}
			return a.serveVNC(ctx, c, l, args[0])
		}),
		ValidArgsFunction: a.completeOneName,
	}
	cmd.Flags().StringVar(&listen, "listen", "", "a `socket`'s path, or 127.0.0.1:PORT (default: NAME.vnc here; with --web any free port)")
	cmd.Flags().BoolVar(&web, "web", false, "serve a page for a browser")
	return cmd
}

// listenAt listens on the loopback or at a unix socket.
func listenAt(at string, web bool, name string) (net.Listener, error) {
	switch {
	case at == "" && web:
		at = "127.0.0.1:0"
	case at == "":
		at = name + ".vnc"
	}
	if address, err := netip.ParseAddrPort(at); err == nil {
		if !address.Addr().IsLoopback() {
			return nil, fault.Invalidf("%s is not on the loopback", at).At("listen").
				Help("listen at 127.0.0.1:PORT, and reach it from elsewhere through ssh -L")
		}
		l, err := net.Listen("tcp", at)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fault.Conflictf("port %d is taken", address.Port()).At("listen").Help("choose another one; 127.0.0.1:0 is any that is free")
		}
		return l, fault.Wrap(err, "listen for viewers")
	}
	if web || strings.ContainsRune(at, ':') && !strings.ContainsRune(at, '/') {
		return nil, fault.Invalidf("%q is no address of the loopback", at).At("listen").Help("write 127.0.0.1:PORT or [::1]:PORT")
	}
	old := syscall.Umask(0o177) // for its owner alone
	l, err := net.Listen("unix", at)
	syscall.Umask(old)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fault.Conflictf("%s is there already", at).At("listen").Help("remove it, or choose another path with --listen")
	}
	return l, fault.Wrap(err, "listen for viewers")
}

// serveVNC joins each viewer to the screen, until ctx ends.
func (a *app) serveVNC(ctx context.Context, c *client.Client, l net.Listener, name string) error {
	password := ""
	if l.Addr().Network() == "tcp" {
		password = rand.Text()[:maxPassword]
		a.say("password: %s", password)
		fmt.Fprintf(a.out, "vnc://%s\n", l.Addr())
	} else {
		path, err := filepath.Abs(l.Addr().String())
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, path)
	}
	for {
		viewer, err := l.Accept()
		if ctx.Err() != nil {
			return nil // its user has ended it
		}
		if err != nil {
			return fault.Wrap(err, "wait for viewers")
		}
		go func() {
			if err := show(ctx, c, viewer, name, password); err != nil && ctx.Err() == nil {
				a.say("a viewer left: %v", err)
			}
		}()
	}
}

// show joins one viewer to the screen until it leaves.
func show(ctx context.Context, c *client.Client, viewer net.Conn, name, password string) error {
	defer viewer.Close()
	defer context.AfterFunc(ctx, func() { _ = viewer.Close() })()
	if password != "" {
		if err := challenge(viewer, password); err != nil {
			return err
		}
	}
	screen, err := c.VNC(ctx, name)
	if err != nil {
		return err
	}
	defer screen.Close()
	if password != "" {
		if err := enter(screen); err != nil {
			return err
		}
	}
	defer context.AfterFunc(ctx, func() { _ = screen.Close() })()
	go func() {
		_, _ = io.Copy(screen, viewer)
		_ = screen.Close()
	}()
	_, _ = io.Copy(viewer, screen)
	return nil
}

// serveWeb puts the daemon's page for one machine on the loopback, for whoever has
// the key.
func (a *app) serveWeb(ctx context.Context, c *client.Client, l net.Listener, name string) error {
	host := strings.TrimSuffix(l.Addr().String(), ":80") // as browsers send it
	door := &door{key: rand.Text(), host: host, name: name, next: &httputil.ReverseProxy{
		Transport: c.Transport(),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "strata"})
			r.Out.Host = r.In.Host     // by which the daemon knows its own page
			r.Out.Header.Del("Cookie") // of others on this host: a browser's cookies know no ports
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "strata: the daemon does not answer", http.StatusBadGateway)
		},
	}}
	fmt.Fprintf(a.out, "http://%s/%s/console/%s\n", door.host, door.key, url.PathEscape(name))
	err := (&http.Server{Handler: door, ReadHeaderTimeout: 10 * time.Second}).Serve(l)
	if ctx.Err() != nil {
		return nil // its user has ended it
	}
	return fault.Wrap(err, "serve the page")
}

// door lets through what the page of one machine needs, for who has the key: every
// program of this host, and every page in its browsers, could knock. The key is the first
// part of every path, and not in a cookie, which a browser would give to whatever else
// listens on the loopback.
type door struct {
	key, host, name string
	next            http.Handler
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, why string) { http.Error(w, "strata: "+why, status) }
	if r.Host != d.host { // a name that somebody has pointed here
		refuse(http.StatusForbidden, "this is "+d.host)
		return
	}
	key, at, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if !same(key, d.key) {
		refuse(http.StatusForbidden, "open the address that strata vnc --web printed")
		return
	}
	api := "v1/environments/" + d.name + "/"
	switch {
	case r.Method != http.MethodGet, strings.Contains(at, ".."):
	case at == "console/"+d.name, strings.HasPrefix(at, "console/-/"), at == api+"vnc", at == api+"screen.png":
		http.StripPrefix("/"+d.key, d.next).ServeHTTP(w, r)
		return
	}
	refuse(http.StatusNotFound, "there is nothing here")
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
