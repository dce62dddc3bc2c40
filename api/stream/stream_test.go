package stream

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestFramesComeBackAsSent(t *testing.T) {
	var wire bytes.Buffer
	long := bytes.Repeat([]byte{0, 255, '\n'}, MaxPayload)
	for _, err := range []error{
		Write(&wire, Stdout, long), Write(&wire, CloseStdin, nil), Write(&wire, Resize, ResizePayload(24, 80)),
		Write(&wire, Exit, ExitPayload(Ended{Status: 137, Signal: 9, OOM: true})),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(&wire)
	var got []byte
	for len(got) < len(long) {
		typ, p, err := r.Next()
		if err != nil || typ != Stdout {
			t.Fatalf("Next = %v, %v", typ, err)
		}
		got = append(got, p...)
	}
	if !bytes.Equal(got, long) {
		t.Error("bytes changed on the way")
	}
	if typ, p, err := r.Next(); typ != CloseStdin || len(p) != 0 || err != nil {
		t.Errorf("Next = %v, %v, %v", typ, p, err)
	}
	_, p, _ := r.Next()
	if rows, cols, err := ParseResize(p); rows != 24 || cols != 80 || err != nil {
		t.Errorf("resize = %d, %d, %v", rows, cols, err)
	}
	_, p, _ = r.Next()
	if e, err := ParseExit(p); err != nil || e != (Ended{137, 9, true}) {
		t.Errorf("exit = %+v, %v", e, err)
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v; want EOF", err)
	}
}

func TestLongControlFrameIsRefused(t *testing.T) {
	if err := Write(io.Discard, Failure, make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("err = %v", err)
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0, 1, 'x'})
	f.Add([]byte{5, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := NewReader(bytes.NewReader(wire))
		var back bytes.Buffer
		for {
			typ, p, err := r.Next()
			if err != nil {
				break
			}
			if len(p) > MaxPayload {
				t.Fatal("payload out of bounds")
			}
			if err := Write(&back, typ, p); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(wire, back.Bytes()) {
			t.Error("accepted frames do not print back as they came")
		}
	})
}
