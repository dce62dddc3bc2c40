package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) topCommand() *cobra.Command {
	var once bool
	var interval time.Duration
	view := topView{}
	cmd := &cobra.Command{
		Use:   "top [flags] [NAME...]",
		Short: "Watch what environments use, live",
		Long: `Watch what the environments that are named, or all that run, use: on a terminal live,
otherwise, and with --once, printed once. The host's memory is parted into what is used,
what is shared by all and given back when it is needed (pages of files), what is
guaranteed to environments that do not hold it yet, and what is free. CPU% is of one
processor. The figures of environments are those of the host, at every stratum: the
memory of a guest or machine is that of QEMU with all in it, which is more than the
limit of its programs may be (strata stats has what they use of that).

Keys: q ends it; t shows each process, or each environment again; c, m, n, p, d and r
sort by processor, memory, name, processes, disk and network; / takes a filter until
Enter (Escape takes it away); j and k, or the arrows, move down and up.

Examples:
  strata top
  strata top --sort memory web db
  strata top --once --processes --filter nginx`,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if !slices.Contains(topSortNames(), view.sort) {
				return fault.Invalidf("%q is no order of rows", view.sort).At("sort").Help("accepted: %s", strings.Join(topSortNames(), ", "))
			}
			if err := checkInterval(interval); err != nil {
				return err
			}
			t := &top{app: a, client: c, names: args, view: view, interval: interval}
			if once || !a.outTTY || !term.IsTerminal(int(a.in.Fd())) {
				return t.once(ctx)
			}
			return t.live(ctx)
		}),
		ValidArgsFunction: a.completeRunning,
	}
	cmd.Flags().BoolVar(&once, "once", false, "print once")
	cmd.Flags().BoolVar(&view.processes, "processes", false, "begin with each process")
	cmd.Flags().StringVar(&view.sort, "sort", "cpu", "`order` of rows: "+strings.Join(topSortNames(), ", "))
	cmd.Flags().StringVar(&view.filter, "filter", "", "only rows with this `text`")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between two looks")
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(topSortNames(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// top is one top at work.
type top struct {
	app      *app
	client   *client.Client
	names    []string
	view     topView
	interval time.Duration
	before   map[taskKey]api.Task // of the last look
	beforeAt time.Time
}

// taskKey is one process.
type taskKey struct {
	environment string
	pid         int
}

func (t *top) look(ctx context.Context) error {
	var list api.TaskList
	u, err := t.client.UsageSince(ctx, t.view.usage, t.names...)
	if err == nil && t.view.processes {
		list, err = t.client.Tasks(ctx, t.names...)
	}
	if err != nil {
		return err
	}
	t.view.usage, t.view.problem = u, ""
	if t.view.processes {
		t.take(list)
	}
	return nil
}

// take turns processor time into what is used now, since the last look; of a
// process that is new, since it began.
func (t *top) take(list api.TaskList) {
	seen := make(map[taskKey]api.Task, len(list.Processes))
	t.view.tasks = t.view.tasks[:0]
	since := list.Time.Sub(t.beforeAt)
	for _, p := range list.Processes {
		key := taskKey{p.ID, p.PID}
		now := p.CPU()
		if b, ok := t.before[key]; ok && since > 0 && b.Age <= p.Age {
			now = 100 * float64(max(0, p.CPUTime-b.CPUTime)) / float64(since)
		}
		seen[key] = p
		t.view.tasks = append(t.view.tasks, topTask{p, now})
	}
	t.before, t.beforeAt = seen, list.Time
}

func (t *top) once(ctx context.Context) error {
	if err := t.look(ctx); err != nil {
		return err
	}
	_, err := fmt.Fprintln(t.app.out, strings.Join(t.view.draw(0, 0), "\n"))
	return err
}

// What a terminal is told. Source: xterm's control sequences (ctlseqs).
const (
	screenTaken = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the other screen, no cursor, no wrapping
	screenGiven = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	restOfLine  = "\x1b[K"
	restBelow   = "\x1b[J"
)

// live draws until it is ended, and gives the terminal back as it was.
func (t *top) live(ctx context.Context) error {
	if err := t.look(ctx); err != nil { // before the terminal is taken
		return err
	}
	in := int(t.app.in.Fd())
	old, err := term.MakeRaw(in)
	if err != nil {
		return fault.Unablef("take the terminal: %w", err)
	}
	defer func() {
		fmt.Fprint(t.app.out, screenGiven)
		_ = term.Restore(in, old)
	}()
	fmt.Fprint(t.app.out, screenTaken)
	return t.loop(ctx)
}

func (t *top) loop(ctx context.Context) error {
	keys := make(chan []byte)
	go t.read(ctx, keys)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for {
		if err := t.show(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case b, ok := <-keys:
			processes := t.view.processes
			if !ok || !t.press(b) {
				return nil
			}
			if t.view.processes && !processes {
				t.again(ctx)
			}
		case <-tick.C:
			t.again(ctx)
		}
	}
}

// again looks once more; where it cannot, what was seen last stays.
func (t *top) again(ctx context.Context) {
	if err := t.look(ctx); err != nil && ctx.Err() == nil {
		t.view.problem = err.Error()
	}
}

// read hands on what is typed, until the terminal is gone.
func (t *top) read(ctx context.Context, keys chan<- []byte) {
	defer close(keys)
	for {
		b := make([]byte, 64)
		n, err := t.app.in.Read(b)
		if err != nil {
			return
		}
		select {
		case keys <- b[:n]:
		case <-ctx.Done():
			return
		}
	}
}

// press takes what was typed at once; of keys that are several bytes, the arrows
// mean something. Source: ECMA-48 5.4, control sequences.
func (t *top) press(b []byte) bool {
	for len(b) > 0 {
		key, n := b[0], 1
		if len(b) > 2 && key == 27 && (b[1] == '[' || b[1] == 'O') {
			for n = 3; n < len(b) && b[n-1] < '@'; n++ {
			}
			switch key = 0; b[n-1] {
			case 'A':
				key = 'k'
			case 'B':
				key = 'j'
			}
			if t.view.typing {
				key = 0
			}
		}
		if b = b[n:]; !t.view.key(key) {
			return false
		}
	}
	return true
}

func (t *top) show() error {
	width, height := 80, 24
	if f, ok := t.app.out.(described); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			width, height = w, h
		}
	}
	lines := t.view.draw(width, height)
	_, err := fmt.Fprint(t.app.out, screenHome+strings.Join(lines, restOfLine+"\r\n")+restOfLine+restBelow)
	return err
}
