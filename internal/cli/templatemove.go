package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

// moveFlags are common to what brings templates in and out.
type moveFlags struct{ quiet, json bool }

func (m *moveFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&m.quiet, "quiet", "q", false, "show no progress")
	cmd.Flags().BoolVar(&m.json, "json", false, "print JSON: the template")
}

// made prints a template that is here now: the name it can be used by, of
// several the one that was asked for.
func (a *app) made(t api.Template, asked string, m moveFlags) error {
	if m.json {
		return a.printJSON(t)
	}
	name := t.ID
	for i, one := range t.Names {
		if i == 0 || one == asked || one == asked+":latest" {
			name = one
		}
	}
	_, err := fmt.Fprintln(a.out, name)
	return err
}

// pull fetches a template with the caller's credentials.
func (a *app) pull(ctx context.Context, c *client.Client, r api.PullRequest, quiet bool) (api.Template, error) {
	r.Auth = a.credentials(r.Ref)
	return watched(ctx, a, c, watching{quiet: quiet}, func(ctx context.Context) (api.Template, error) { return c.PullTemplate(ctx, r) })
}

func (a *app) templatePullCommand() *cobra.Command {
	var m moveFlags
	var r api.PullRequest
	cmd := &cobra.Command{
		Use:   "pull [flags] REF",
		Short: "Fetch a template from a registry",
		Long: `Fetch a template from an OCI registry and print its name. Credentials are those of
your docker config. What was fetched before is not fetched again, and an
interrupted download goes on where it stopped.

Examples:
  strata template pull nginx
  strata template pull ghcr.io/owner/name:tag --platform linux/arm64`,
		Args: exactly(1, "a reference"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			r.Ref = args[0]
			t, err := a.pull(ctx, c, r, m.quiet)
			if err != nil {
				return err
			}
			return a.made(t, r.Ref, m)
		}),
	}
	cmd.Flags().StringVar(&r.Platform, "platform", "", "`os/arch[/variant]` (default: the host's)")
	cmd.Flags().BoolVar(&r.Insecure, "insecure", false, "allow plain HTTP")
	m.add(cmd)
	return cmd
}

func (a *app) templateBuildCommand() *cobra.Command {
	var m moveFlags
	var r api.BuildRequest
	cmd := &cobra.Command{
		Use:   "build [flags] DISTRIBUTION:RELEASE",
		Short: "Make a template of a distribution's packages",
		Long: `Make a template of a distribution's own packages, from its mirror, and print its
name. The variant systemd has an init and makes environments of kind system.

Examples:
  strata template build debian:bookworm
  strata template build debian:bookworm --variant systemd --package nginx --name web`,
		Args: exactly(1, "a distribution"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			r.Base = args[0]
			if err := oneOf("variant", r.Variant, "minbase", "systemd"); err != nil {
				return err
			}
			t, err := watched(ctx, a, c, watching{quiet: m.quiet}, func(ctx context.Context) (api.Template, error) { return c.BuildTemplate(ctx, r) })
			if err != nil {
				return err
			}
			return a.made(t, r.Name, m)
		}),
	}
	cmd.Flags().StringVar(&r.Variant, "variant", "", "minbase or systemd (default minbase)")
	_ = cmd.RegisterFlagCompletionFunc("variant", few("minbase", "systemd"))
	cmd.Flags().StringArrayVar(&r.Packages, "package", nil, "`name` of a further package")
	cmd.Flags().StringVar(&r.Name, "name", "", "name of the template (default: the base, with the variant)")
	cmd.Flags().StringVar(&r.Mirror, "mirror", "", "`URL` of the mirror (default: what the host's apt uses)")
	m.add(cmd)
	return cmd
}

func (a *app) templateImportCommand() *cobra.Command {
	var m moveFlags
	var name string
	cmd := &cobra.Command{
		Use:   "import [flags] FILE|FOLDER|-",
		Short: "Make a template of an archive or a folder",
		Long: `Make a template and print its name. What is given may be an OCI layout or a docker
archive (docker save), or a root file system, each as a tar, compressed or not, or
as a folder. A folder's owners, modes, extended attributes, links and devices are
kept; for what belongs to others run this as root.

Examples:
  strata template import nginx.tar
  strata template import --name mine ./rootfs
  zcat rootfs.tar.gz | strata template import --name mine -`,
		Args: exactly(1, "a file or folder"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			content, size, err := a.archive(args[0])
			if err != nil {
				return err
			}
			defer content.Close()
			w := watching{quiet: m.quiet, adorn: func(p *api.Progress) {
				if p.Step == "import" {
					p.Total = size
					if args[0] != "-" {
						p.Item = base(args[0])
					}
				}
			}}
			t, err := watched(ctx, a, c, w, func(ctx context.Context) (api.Template, error) {
				return c.ImportTemplate(ctx, name, content)
			})
			if err == nil && len(t.Names) == 0 && args[0] != "-" {
				t, err = nameAfter(ctx, c, t, args[0])
			}
			if err != nil {
				return err
			}
			return a.made(t, name, m)
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the template (default: the one in the archive, or the file's)")
	m.add(cmd)
	return cmd
}

// archive opens what is to be imported as one stream; a folder becomes a tar.
func (a *app) archive(path string) (content io.ReadCloser, size int64, err error) {
	if path == "-" {
		return io.NopCloser(a.in), 0, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, hostFault(err, "FILE")
	}
	if !info.IsDir() {
		f, err := os.Open(path)
		if err != nil {
			return nil, 0, hostFault(err, "FILE")
		}
		return sentFile{f}, info.Size(), nil
	}
	r, w := io.Pipe()
	go func() {
		buffered := bufio.NewWriterSize(w, 256<<10)
		p := newPacker(buffered)
		err := p.pack(path, ".", true)
		if err == nil {
			err = p.close()
		}
		if err == nil {
			err = buffered.Flush()
		}
		endUpload(w, err, "FILE")
	}()
	return r, 0, nil
}

// sentFile is a file that is sent: what keeps it from being read stays an error of the
// host's, as endUpload has it.
type sentFile struct{ f *os.File }

func (s sentFile) Read(p []byte) (int, error) {
	n, err := s.f.Read(p)
	if err != nil && err != io.EOF {
		err = hostFault(err, "FILE")
	}
	return n, err
}

func (s sentFile) Close() error { return s.f.Close() }

// nameAfter names a template that came without a name after the file or folder
// that it was made of; where that is no name it stays without one.
func nameAfter(ctx context.Context, c *client.Client, t api.Template, path string) (api.Template, error) {
	name := strings.ToLower(base(path))
	for _, end := range []string{".tgz", ".gz", ".xz", ".zst", ".bz2", ".tar"} {
		name = strings.TrimSuffix(name, end)
	}
	err := c.TagTemplate(ctx, t.ID, name)
	if fault.Is(err, fault.Invalid) {
		return t, nil
	}
	if err != nil {
		return t, fault.Wrap(err, "name the template")
	}
	return c.Template(ctx, t.ID)
}

// base returns the last part of a path, also of "." and "..".
func base(path string) string {
	if whole, err := filepath.Abs(path); err == nil && path != "-" {
		path = whole
	}
	return filepath.Base(path)
}

func (a *app) templateExportCommand() *cobra.Command {
	var m moveFlags
	var output string
	cmd := &cobra.Command{
		Use:   "export [flags] TEMPLATE",
		Short: "Write a template as an OCI layout in a tar",
		Long: `Write a template as an OCI layout in a tar, to a file or to standard output. A file
appears only when it is whole.

Examples:
  strata template export -o nginx.tar nginx
  strata template export nginx | ssh other strata template import -`,
		Args: exactly(1, "a template"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if output == "" && a.outTTY {
				return fault.Invalidf("a tar is not written to a terminal").At("output").Help("name a file with -o, or redirect")
			}
			_, err := watched(ctx, a, c, watching{quiet: m.quiet}, func(ctx context.Context) (struct{}, error) {
				return struct{}{}, a.export(ctx, c, args[0], output)
			})
			return err
		}),
		ValidArgsFunction: a.completeTemplates,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` to write (default: standard output)")
	cmd.Flags().BoolVarP(&m.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (a *app) export(ctx context.Context, c *client.Client, ref, output string) (err error) {
	tar, err := c.ExportTemplate(ctx, ref)
	if err != nil {
		return err
	}
	defer tar.Close()
	if output == "" || output == "-" {
		_, err = io.Copy(a.out, tar)
		return err
	}
	if info, there := os.Stat(output); there == nil {
		if output, err = replaceable(output, info, "output"); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(output), "."+filepath.Base(output)+"-*")
	if err != nil {
		return hostFault(err, "output")
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, tar)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fault.Wrap(err, "write %s", output)
	}
	return os.Rename(f.Name(), output)
}

func (a *app) templatePushCommand() *cobra.Command {
	var m moveFlags
	var r api.PushRequest
	cmd := &cobra.Command{
		Use:   "push [flags] TEMPLATE [TARGET]",
		Short: "Send a template to a registry",
		Long: `Send a template to an OCI registry, under its own name or another. Credentials are
those of your docker config.

Examples:
  strata template push ghcr.io/owner/name:tag
  strata template push mine registry.example.org/team/mine:1`,
		Args: between(1, 2, "a template"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			target := args[0]
			if len(args) == 2 {
				r.Target, target = args[1], args[1]
			}
			r.Auth = a.credentials(target)
			_, err := watched(ctx, a, c, watching{quiet: m.quiet}, func(ctx context.Context) (struct{}, error) {
				return struct{}{}, c.PushTemplate(ctx, args[0], r)
			})
			if err == nil {
				fmt.Fprintln(a.out, target)
			}
			return err
		}),
		ValidArgsFunction: a.completeTemplates,
	}
	cmd.Flags().BoolVar(&r.Insecure, "insecure", false, "allow plain HTTP")
	cmd.Flags().BoolVarP(&m.quiet, "quiet", "q", false, "show no progress")
	return cmd
}
