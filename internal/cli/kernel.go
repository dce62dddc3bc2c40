package cli

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) kernelCommand() *cobra.Command {
	return group("kernel", "Kernels that guests boot", `Get, list and remove kernels. A guest boots the one that --kernel names, else the
default one. Nothing is installed on the host. The first guest fetches debian's, where
there is no kernel yet.

Examples:
  strata kernel add debian
  strata kernel ls
  strata run --rm --stratum guest busybox uname -r`,
		a.kernelLsCommand(), a.kernelShowCommand(), a.kernelAddCommand(), a.kernelDefaultCommand(), a.kernelRmCommand())
}

func (a *app) kernelLsCommand() *cobra.Command {
	var quiet, asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List kernels",
		Long: `List kernels. Guests that name none boot the default one.

Examples:
  strata kernel ls`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			found, err := c.Kernels(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(found)
			}
			if quiet {
				for _, k := range found {
					fmt.Fprintln(a.out, k.Name)
				}
				return nil
			}
			now := time.Now()
			rows := newTable(a.out, "NAME", "ID", "RELEASE", "SIZE", "AGE", "SOURCE", "DEFAULT", "USED BY")
			for _, k := range found {
				is := ""
				if k.Default {
					is = "yes"
				}
				rows.row(k.Name, shortID(k.ID), k.Release, bytesText(k.Size), ago(k.Added, now), k.Source, is, fmt.Sprint(len(k.UsedBy)))
			}
			return rows.flush()
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) kernelShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show [flags] KERNEL...",
		Aliases: []string{"inspect"},
		Short:   "Show kernels",
		Long: `Show what is known of kernels. With --json a list is printed.

Examples:
  strata kernel show 6.1.0-40-cloud-amd64`,
		Args: atLeast(1, "a kernel"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			found, err := gather(ctx, a, args, c.Kernel)
			if asJSON {
				if perr := a.printJSON(found); perr != nil {
					return perr
				}
				return err
			}
			for i, k := range found {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				a.printKernel(k)
			}
			return err
		}),
		ValidArgsFunction: a.completeKernels,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printKernel(k api.Kernel) {
	f := a.facts()
	f.add("name", k.Name)
	f.add("id", k.ID)
	f.add("release", k.Release)
	f.add("arch", k.Arch)
	f.add("size", bytesText(k.Size))
	f.add("modules", fmt.Sprint(k.Modules))
	f.add("source", k.Source)
	f.add("origin", k.Origin)
	f.add("added", k.Added.Local().Format(time.RFC3339))
	if k.Default {
		f.add("default", "yes")
	}
	f.add("used by", strings.Join(k.UsedBy, ", "))
	_ = f.w.Flush()
}

func (a *app) kernelAddCommand() *cobra.Command {
	var m moveFlags
	var name, modules string
	cmd := &cobra.Command{
		Use:   "add [flags] SOURCE|FILE|-",
		Short: "Get a kernel",
		Long: `Get a kernel and print its name. The first one becomes the default.

Sources:
  debian            the distribution's newest kernel for clouds, by the host's apt
  debian:PACKAGE    the kernel of that package
  host              the newest kernel in the host's /boot
  host:RELEASE      that one
  template:REF      the newest kernel that a template carries
  FILE              a Debian package; a bzImage or vmlinux; or a tar, compressed or
                    not, with boot/vmlinuz-RELEASE and lib/modules/RELEASE

A kernel needs virtio, erofs, overlay and ext4, built in or as modules; a bzImage
or vmlinux with modules needs those too, by --modules.

Examples:
  strata kernel add debian
  strata kernel add --name mine ./bzImage --modules ./lib/modules/6.12.0
  strata kernel add template:debian:bookworm`,
		Args: exactly(1, "a source or a file"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			k, err := a.addKernel(ctx, c, args[0], name, modules, m.quiet)
			if err != nil {
				return err
			}
			if m.json {
				return a.printJSON(k)
			}
			_, err = fmt.Fprintln(a.out, k.Name)
			return err
		}),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"debian", "host"}, cobra.ShellCompDirectiveDefault
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the kernel (default: its release)")
	cmd.Flags().StringVar(&modules, "modules", "", "`FOLDER` with the modules of a kernel that is a file, such as /lib/modules/6.12.0")
	cmd.Flags().BoolVarP(&m.quiet, "quiet", "q", false, "show no progress")
	cmd.Flags().BoolVar(&m.json, "json", false, "print JSON: the kernel")
	_ = cmd.MarkFlagDirname("modules")
	return cmd
}

// fromElsewhere tells a source that the daemon knows from a file's path.
func fromElsewhere(source string) bool {
	kind, _, _ := strings.Cut(source, ":")
	return kind == "debian" || kind == "host" || kind == "template"
}

func (a *app) addKernel(ctx context.Context, c *client.Client, source, name, modules string, quiet bool) (api.Kernel, error) {
	if fromElsewhere(source) {
		if modules != "" {
			return api.Kernel{}, fault.Invalidf("the modules of %s come with it", source).At("modules").Help("leave the option out")
		}
		return watched(ctx, a, c, watching{quiet: quiet}, func(ctx context.Context) (api.Kernel, error) {
			return c.AddKernel(ctx, api.KernelRequest{Source: source, Name: name})
		})
	}
	content, size, err := a.kernelFile(source, modules)
	if err != nil {
		return api.Kernel{}, err
	}
	defer content.Close()
	called := ""
	if source != "-" {
		called = base(source)
	}
	w := watching{quiet: quiet, adorn: func(p *api.Progress) {
		if p.Step == "import" {
			p.Item, p.Total = called, size
		}
	}}
	return watched(ctx, a, c, w, func(ctx context.Context) (api.Kernel, error) {
		return c.ImportKernel(ctx, name, called, content)
	})
}

// kernelFile opens a kernel's file as one stream: as it is, or with modules as a tar.
func (a *app) kernelFile(file, modules string) (content io.ReadCloser, size int64, err error) {
	if file != "-" {
		info, err := os.Stat(file)
		if err != nil {
			e := hostFault(err, "FILE")
			if fault.Is(e, fault.Missing) && !strings.Contains(file, "/") {
				return nil, 0, fault.Missingf("there is no file %s, and no such source of kernels", file).At("FILE").Help("the sources are debian, host and template: strata kernel add --help")
			}
			return nil, 0, e
		}
		if info.IsDir() {
			return nil, 0, fault.Invalidf("%s is a folder", file).At("FILE").Help("give the kernel's file, and its modules by --modules")
		}
	}
	if modules == "" {
		return a.archive(file)
	}
	if file == "-" {
		return nil, 0, fault.Invalidf("a kernel from standard input cannot be joined with modules").At("modules").Help("name its file")
	}
	folder, err := filepath.EvalSymlinks(modules)
	if err != nil {
		return nil, 0, hostFault(err, "modules")
	}
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return nil, 0, fault.Invalidf("%s is no folder", modules).At("modules")
	}
	r, w := io.Pipe()
	go func() { endUpload(w, packKernel(w, file, folder), "FILE") }()
	return r, 0, nil
}

// packKernel writes a kernel and its modules as a tar, at the paths of a root file system.
func packKernel(w io.Writer, file, folder string) error {
	release := base(folder)
	buffered := bufio.NewWriterSize(w, 256<<10)
	p := newPacker(buffered)
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// Not by the packer: the file may be a link, and has another name here.
	head := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join("boot", "vmlinuz-"+release), Size: info.Size(), Mode: 0o644}
	if err := p.tar.WriteHeader(head); err != nil {
		return err
	}
	if _, err := io.Copy(p.tar, f); err != nil {
		return err
	}
	if err := p.pack(folder, path.Join("lib/modules", release), true); err != nil {
		return err
	}
	if err := p.close(); err != nil {
		return err
	}
	return buffered.Flush()
}

func (a *app) kernelDefaultCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "default [KERNEL]",
		Short: "Print the default kernel, or choose it",
		Long: `Print the name of the kernel that guests boot that name none, or make it another
one. What runs goes on with the one it has; it boots the other from its next start on.

Examples:
  strata kernel default
  strata kernel default 6.1.0-40-cloud-amd64`,
		Args: between(0, 1, "a kernel"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) > 0 {
				k, err := c.SetDefaultKernel(ctx, args[0])
				if err == nil {
					_, err = fmt.Fprintln(a.out, k.Name)
				}
				return err
			}
			found, err := c.Kernels(ctx)
			if err != nil {
				return err
			}
			for _, k := range found {
				if k.Default {
					_, err := fmt.Fprintln(a.out, k.Name)
					return err
				}
			}
			return fault.Missingf("there is no kernel for guests yet").Help("get one: strata kernel add debian")
		}),
		ValidArgsFunction: a.completeKernels,
	}
}

func (a *app) kernelRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm KERNEL...",
		Aliases: []string{"remove"},
		Short:   "Remove kernels",
		Long: `Remove kernels. One that an environment boots, by its name or as the default, is
refused.

Examples:
  strata kernel rm 6.1.0-38-cloud-amd64`,
		Args: atLeast(1, "a kernel"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(ctx, args, false, func(ctx context.Context, ref string) error {
				_, err := c.RemoveKernel(ctx, ref)
				return err
			})
		}),
		ValidArgsFunction: a.completeKernels,
	}
}

func (a *app) completeKernels(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.offer(args, func(ctx context.Context, c *client.Client) ([]string, error) {
		found, err := c.Kernels(ctx)
		var names []string
		for _, k := range found {
			names = append(names, k.Name)
		}
		return names, err
	})
}
