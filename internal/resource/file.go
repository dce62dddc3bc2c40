package resource

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read from one control file. Unit: bytes. A list of
// process ids is the longest: 4 million of 8 bytes each.
const maxFile = 32 << 20

// put writes a value to a control file that is there already, in one write as
// the kernel wants it.
func put(dir, name, value string) error {
	path := dir + "/" + name
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := retry(func() (int, error) { return unix.Write(fd, []byte(value)) }); err != nil {
		return &os.PathError{Op: "write " + strconv.Quote(value) + " to", Path: path, Err: err}
	}
	return nil
}

// get reads a control file without its last line break.
func get(dir, name string) (string, error) {
	path := dir + "/" + name
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var all []byte
	chunk := make([]byte, 4096)
	for len(all) < maxFile {
		n, err := retry(func() (int, error) { return unix.Read(fd, chunk) })
		if err != nil {
			return "", &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			break
		}
		all = append(all, chunk[:n]...)
	}
	return string(bytes.TrimRight(all, "\n")), nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// number reads a file that holds one count. "max", and what v1 has for it, is Unlimited.
func number(dir, name string) (int64, error) {
	text, err := get(dir, name)
	if err != nil {
		return 0, err
	}
	return parseCount(text)
}

// v1Unlimited is where v1's memory files end: the largest count of whole pages.
// Anything near it is no limit. Source: linux/page_counter.h, PAGE_COUNTER_MAX.
const v1Unlimited = int64(1) << 62

func parseCount(text string) (int64, error) {
	text = strings.TrimSpace(text)
	if text == "max" {
		return Unlimited, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, err
	}
	if n >= uint64(v1Unlimited) {
		return Unlimited, nil
	}
	return int64(n), nil
}

// keys reads a file of "key value" lines; lines that are none are passed over.
func keys(dir, name string) (map[string]int64, error) {
	text, err := get(dir, name)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		if n, err := parseCount(value); err == nil {
			out[key] = n
		}
	}
	return out, nil
}

// exists tells whether there is such a control file or folder.
func exists(path string) bool {
	return unix.Access(path, unix.F_OK) == nil
}
