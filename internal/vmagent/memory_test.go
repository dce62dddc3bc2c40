package vmagent

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAllMemoryIsUsed(t *testing.T) {
	for sentence, c := range map[string]struct {
		blocks    string // o: used, -: not used, g: goes
		used      int64
		afterward string
	}{
		"all is used":                     {"oo", 2, "oo"},
		"what was plugged in is used":     {"oo--", 4, "oooo"},
		"what goes is left to go":         {"og", 1, "og"},
		"a system that shows no memory":   {"", 0, ""},
		"only what was plugged in is not": {"-", 1, "o"},
	} {
		t.Run(sentence, func(t *testing.T) {
			sys := t.TempDir()
			dir := filepath.Join(sys, memoryPlace)
			words := map[rune]string{'o': "online", '-': "offline", 'g': "going-offline"}
			file := func(i int) string { return filepath.Join(dir, "memory"+strconv.Itoa(32+i), "state") }
			write := func(path, text string) {
				t.Helper()
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write(filepath.Join(dir, "block_size_bytes"), "8000000")
			write(filepath.Join(dir, "probe"), "")
			for i, b := range c.blocks {
				write(file(i), words[b])
			}
			fd, err := unix.Open(sys, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			used, block, err := useMemory(fd)
			if used != c.used<<27 || block != 1<<27 || err != nil {
				t.Errorf("%d bytes in blocks of %d, %v", used, block, err)
			}
			for i, b := range c.afterward {
				if got, _ := os.ReadFile(file(i)); !strings.HasPrefix(string(got), words[b]) {
					t.Errorf("block %d is %q; want %q", i, got, words[b])
				}
			}
		})
	}
}
