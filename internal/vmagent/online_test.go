package vmagent

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhichProcessorsAreUsed(t *testing.T) {
	for sentence, c := range map[string]struct {
		online    string // by number: 0, 1, - has no such file
		n, used   int
		afterward string
	}{
		"the first one has no file":                {"-", 1, 1, "-"},
		"one is brought into use":                  {"-0", 2, 2, "-1"},
		"no more than were asked for":              {"-00", 2, 2, "-10"},
		"what is too much is used no more":         {"-111", 2, 2, "-100"},
		"all but the first":                        {"-11", 1, 1, "-00"},
		"what is in use stays so":                  {"-110", 4, 4, "-111"},
		"fewer than asked for are there, as yet":   {"-1", 3, 2, "-1"},
		"a number that is not there is no end":     {"-1-0", 3, 3, "-1-1"},
		"the first one can be out of use, as well": {"01", 2, 2, "11"},
	} {
		t.Run(sentence, func(t *testing.T) {
			dir := t.TempDir()
			file := func(i int) string { return filepath.Join(dir, "cpu"+strconv.Itoa(i), "online") }
			for i, c := range c.online {
				if c == '-' {
					continue
				}
				if err := os.Mkdir(filepath.Dir(file(i)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file(i), []byte(string(c)+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			used, err := useProcessors(fd, c.n)
			if used != c.used || err != nil {
				t.Errorf("%d are in use, %v; want %d", used, err, c.used)
			}
			for i, want := range c.afterward {
				text, _ := os.ReadFile(file(i))
				if got := append(text, '-')[0]; rune(got) != want {
					t.Errorf("processor %d is %c; want %c", i, got, want)
				}
			}
		})
	}
}
