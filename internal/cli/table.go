package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// table writes aligned columns; the last one is not padded.
type table struct {
	w *tabwriter.Writer
}

func newTable(out io.Writer, columns ...string) *table {
	t := &table{w: tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)}
	t.row(columns...)
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
		cells[i] = fault.Printable(cells[i])
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

// printJSON writes a value, indented.
func (a *app) printJSON(v any) error { return a.encode(v, "  ") }

// printMade tells what was made, by its name or whole.
func (a *app) printMade(made any, name string, asJSON bool) error {
	if asJSON {
		return a.printJSON(made)
	}
	fmt.Fprintln(a.out, name)
	return nil
}

// printLine writes a value as one line of JSON.
func (a *app) printLine(v any) error { return a.encode(v, "") }

// encode writes a value by --format, or else as JSON with what a terminal would act on as \u escapes: others may have
// chosen the words in it, and strings are all that it can stand in.
func (a *app) encode(v any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	if a.format != nil {
		return a.fillIn(text.Bytes())
	}
	out := make([]byte, 0, text.Len())
	for _, r := range text.String() {
		if r == '\n' || strconv.IsPrint(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, half := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, half)
		}
	}
	_, err := a.out.Write(out)
	return err
}

// ago writes how long ago t was, in one unit.
func ago(t time.Time, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return ""
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// bytes writes a count of bytes, "" for none.
func bytesText(n int64) string {
	if n <= 0 {
		return ""
	}
	return unit.Size(n).String()
}

// shortID cuts a digest to what tells templates apart.
func shortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	return id[:min(12, len(id))]
}
