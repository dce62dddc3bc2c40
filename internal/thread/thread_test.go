package thread

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSpareIsNeverTheFirstThread(t *testing.T) {
	want := errors.New("what it returns")
	for range 200 {
		// Goroutines that come and go make the first thread run some of them.
		for range runtime.NumCPU() * 2 {
			go runtime.Gosched()
		}
		first := false
		if err := Spare(func() error { first = unix.Gettid() == os.Getpid(); return want }); err != want {
			t.Fatalf("Spare returned %v", err)
		}
		if first {
			t.Fatal("it ran on the first thread")
		}
	}
}

func TestASpareThreadTakesItsChangesAlong(t *testing.T) {
	const odd = 0o31
	err := Spare(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // its umask is its own from here on
			return err
		}
		unix.Umask(odd)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := Spare(func() error {
			now := unix.Umask(0o22)
			unix.Umask(now)
			if now == odd {
				return errors.New("the thread is used again")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}
