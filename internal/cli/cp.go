package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) cpCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "cp [flags] SOURCE TARGET",
		Short: "Copy files between the host and an environment",
		Long: `Copy a file or folder into an environment or out of it. One side is NAME:PATH, the
other a path of the host, or - for a tar on standard input or output. The
environment need not run. Owners, modes and times are kept.

As with docker: a target that is a folder gets the source inside it; one that does
not exist gets the source's content under the new name, for which its parent must
exist; a source that ends in /. means the folder's content alone. A link in the
source's place is copied as a link; with / or /. at its end, or -L, what it points at.

A path of the host that contains a colon is written with ./ or / in front.

Examples:
  strata cp site/. web:/var/www/html
  strata cp web:/etc/nginx/nginx.conf .
  strata cp web:/var/log - | tar tv`,
		Args: exactly(2, "a source and a target"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			from, err := parseSide(args[0])
			if err != nil {
				return at("SOURCE", err)
			}
			to, err := parseSide(args[1])
			if err != nil {
				return at("TARGET", err)
			}
			switch {
			case from.name != "" && to.name != "":
				return fault.Invalidf("both sides are in environments").Help("copy to the host first, or pipe: strata cp A:PATH - | strata cp - B:PATH")
			case from.name != "":
				return a.copyOut(ctx, c, from, to.path, follow)
			case to.name != "":
				return a.copyIn(ctx, c, from.path, to, follow)
			}
			return fault.Invalidf("neither side is in an environment").Help("write one of them as NAME:PATH")
		}),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			names, _ := a.completeNames(cmd, nil, part)
			for i := range names {
				names[i] += ":/"
			}
			return names, cobra.ShellCompDirectiveNoSpace
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow-link", "L", false, "copy what a link in the source's place points at")
	return cmd
}

// asksContent tells whether a source means what is in the folder, not the folder.
func asksContent(p string) bool { return strings.HasSuffix(p, "/.") || p == "." }

// followsLink tells whether a source means what a link in its place points at: it
// asks for the content, or says by a slash that it is a folder.
func followsLink(p string) bool { return strings.HasSuffix(p, "/") || asksContent(p) }

func (a *app) copyIn(ctx context.Context, c *client.Client, from string, to side, follow bool) error {
	if from == "-" {
		return fault.Wrap(c.CopyIn(ctx, to.name, to.path, a.in), "unpack standard input in %s:%s", to.name, to.path)
	}
	follow = follow || followsLink(from)
	info, err := os.Lstat(from)
	if err == nil && follow {
		info, err = os.Stat(from)
	}
	if err != nil {
		return hostFault(err, "SOURCE")
	}
	folder, name, err := a.target(ctx, c, to, from, info.IsDir())
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() {
		p := newPacker(w)
		err := p.pack(filepath.Clean(from), name, follow)
		if err == nil {
			err = p.close()
		}
		endUpload(w, err, "SOURCE")
	}()
	err = c.CopyIn(ctx, to.name, folder, r)
	_ = r.CloseWithError(io.ErrClosedPipe)
	return err
}

// target finds the folder inside that the tar is unpacked in, and the name that
// the source has in the tar.
func (a *app) target(ctx context.Context, c *client.Client, to side, from string, sourceIsFolder bool) (folder, name string, err error) {
	clean, there, err := resolve(ctx, c, to)
	if fault.Is(err, fault.Missing) && !missesPath(err) || err != nil && !fault.Is(err, fault.Missing) {
		return "", "", err // it is not the path that is missing
	}
	base := path.Base(filepath.ToSlash(filepath.Clean(from)))
	if asksContent(from) || base == "/" || base == ".." {
		base = "."
	}
	switch {
	case err == nil && there.Type == "folder":
		return clean, base, nil
	case err == nil && sourceIsFolder:
		return "", "", fault.Conflictf("%s:%s is a file, and the source is a folder", to.name, clean).At("TARGET")
	case err != nil && strings.HasSuffix(to.path, "/") && !sourceIsFolder:
		return "", "", fault.Missingf("there is no folder %s:%s", to.name, clean).At("TARGET").Help("make it first, or leave out the last slash")
	}
	if _, perr := c.StatPath(ctx, to.name, path.Dir(clean)); perr != nil {
		return "", "", fault.Wrap(perr, "look at the target's folder")
	}
	return path.Dir(clean), path.Base(clean), nil
}

// maxLinks bounds a chain of links. Source: linux/namei.h, MAXSYMLINKS.
const maxLinks = 40

// resolve says what is at a path inside, behind links that stand at its end;
// the environment's kernel resolves those before it.
func resolve(ctx context.Context, c *client.Client, s side) (string, api.PathStat, error) {
	at := path.Clean(s.path)
	for range maxLinks {
		st, err := c.StatPath(ctx, s.name, at)
		if err != nil || st.Type != "link" {
			return at, st, err
		}
		if !path.IsAbs(st.Link) {
			st.Link = path.Join(path.Dir(at), st.Link)
		}
		at = path.Clean(st.Link)
	}
	return at, api.PathStat{}, fault.Invalidf("%s:%s leads through too many links", s.name, s.path).At("path")
}

// missesPath tells a path that is missing inside from an environment that is.
func missesPath(err error) bool {
	for _, f := range fault.All(err) {
		if f.Field == "path" {
			return true
		}
	}
	return false
}

func (a *app) copyOut(ctx context.Context, c *client.Client, from side, to string, follow bool) error {
	ask := path.Clean(from.path)
	if follow || followsLink(from.path) {
		resolved, _, err := resolve(ctx, c, from)
		if err != nil {
			return err
		}
		ask = resolved
	}
	if to == "-" {
		return a.copyTo(ctx, c, side{from.name, ask})
	}
	st, err := c.StatPath(ctx, from.name, ask)
	if err != nil {
		return err
	}
	dir, name, err := hostTarget(to, from.path, st)
	if err != nil {
		return err
	}
	tar, err := c.CopyOut(ctx, from.name, ask)
	if err != nil {
		return err
	}
	defer tar.Close()
	return unpack(tar, dir, renamed(path.Base(ask), name))
}

// renamed gives the entries of a tar, all of which stand below top, the first
// name they get; "." takes top away. The root folder's entries have no top.
func renamed(top, name string) func(string) string {
	return func(entry string) string {
		if top != "/" {
			_, entry, _ = strings.Cut(entry, "/")
		}
		if name == "." {
			return entry
		}
		return filepath.Join(name, entry)
	}
}

func (a *app) copyTo(ctx context.Context, c *client.Client, from side) error {
	if a.outTTY {
		return fault.Invalidf("a tar is not written to a terminal").At("TARGET").Help("redirect it into a file")
	}
	tar, err := c.CopyOut(ctx, from.name, path.Clean(from.path))
	if err != nil {
		return err
	}
	defer tar.Close()
	_, err = io.Copy(a.out, tar)
	return err
}

// hostTarget finds the host's folder to unpack in, and the name that the source gets.
func hostTarget(to, from string, st api.PathStat) (dir, name string, err error) {
	base := path.Base(path.Clean(from))
	if asksContent(from) || base == "/" {
		base = "."
	}
	info, err := os.Stat(to)
	switch {
	case err == nil && info.IsDir():
		return to, base, nil
	case err == nil && st.Type == "folder":
		return "", "", fault.Conflictf("%s is a file, and the source is a folder", to).At("TARGET")
	case err == nil:
		if to, err = replaceable(to, info, "TARGET"); err != nil {
			return "", "", err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", "", hostFault(err, "TARGET")
	case strings.HasSuffix(to, "/") && st.Type != "folder":
		return "", "", fault.Missingf("there is no folder %s", to).At("TARGET").Help("make it first, or leave out the last slash")
	}
	clean := filepath.Clean(to)
	if base == "." && st.Type == "folder" {
		return clean, ".", nil
	}
	if _, err := os.Stat(filepath.Dir(clean)); err != nil {
		return "", "", hostFault(err, "TARGET")
	}
	return filepath.Dir(clean), filepath.Base(clean), nil
}

// replaceable returns the file that a path of the host leads to, where a new one may take its
// place: no folder, and no device, pipe or socket, which would be gone. Kinds: Conflict, Missing, Denied.
func replaceable(path string, info fs.FileInfo, field string) (string, error) {
	switch {
	case info.IsDir():
		return "", fault.Conflictf("%s is a folder", path).At(field).Help("name a file in it")
	case !info.Mode().IsRegular():
		return "", fault.Conflictf("%s is a device, a pipe or a socket, and no file is put in its place", path).At(field).
			Help("write - for standard output")
	}
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", hostFault(err, field)
	}
	return file, nil
}

// endUpload ends what is sent. An error of the host's file system stays one of the
// host's: a connection that only breaks off would be taken for a daemon that ended.
func endUpload(w *io.PipeWriter, err error, field string) {
	if err != nil {
		err = hostFault(err, field)
	}
	_ = w.CloseWithError(err)
}

// hostFault puts an error of the host's file system into strata's words.
func hostFault(err error, field string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Missingf("%w", err).At(field)
	case errors.Is(err, fs.ErrPermission):
		return fault.Deniedf("%w", err).At(field)
	case errors.Is(err, syscall.ENOTDIR):
		return fault.Conflictf("%w", err).At(field)
	}
	return fault.Internalf("%w", err).At(field)
}
