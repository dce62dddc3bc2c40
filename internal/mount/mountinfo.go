package mount

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// attached is one line of /proc/self/mountinfo, as far as it matters here.
type attached struct {
	point  string // where it is attached
	fstype string
	source string
}

// readMounts returns the mounts of this process's namespace.
func readMounts() ([]attached, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts reads the format of proc_pid_mountinfo(5).
func parseMounts(r io.Reader) ([]attached, error) {
	var all []attached
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // an overlay's options alone can take a page and more
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 1 {
			return nil, fmt.Errorf("mountinfo has a line of another form: %q", lines.Text())
		}
		m := attached{point: unescape(left[4]), fstype: right[0]}
		if len(right) > 1 {
			m.source = unescape(right[1])
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// unescape takes the octal escapes out of a mountinfo field.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
