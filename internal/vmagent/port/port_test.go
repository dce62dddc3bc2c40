package port

import (
	"bytes"
	"errors"
	"testing"
)

func TestAFrameIsReadAsItWasWritten(t *testing.T) {
	b := Append(nil, Stdout, 7, []byte("text"))
	h, err := ParseHeader(b)
	if err != nil || h != (Header{Stdout, 7, 4}) || string(b[HeaderSize:]) != "text" {
		t.Errorf("got %+v, %q, %v", h, b[HeaderSize:], err)
	}
}

func TestAHelloIsReadAsItWasWritten(t *testing.T) {
	version, number, err := ParseHello(HelloPayload(1 << 60))
	if err != nil || version != Version || number != 1<<60 {
		t.Errorf("got %d, %d, %v", version, number, err)
	}
	if _, _, err := ParseHello(bytes.Repeat([]byte{1}, HelloSize)); !errors.Is(err, ErrPayload) {
		t.Errorf("a Hello without its magic gives %v", err)
	}
}

func TestAMalformedHeaderIsRefused(t *testing.T) {
	for sentence, c := range map[string]struct {
		header []byte
		want   error
	}{
		"type 0":                        {[]byte{0, 0, 0, 0, 0, 0, 0, 0, 0}, ErrType},
		"a type that is not known":      {[]byte{byte(last), 0, 0, 0, 0, 0, 0, 0, 0}, ErrType},
		"one byte more than the most":   {[]byte{byte(Stdin), 0, 0, 0, 0, 0, 1, 0, 1}, ErrTooLong},
		"an exit of 4 bytes":            {[]byte{byte(Exit), 0, 0, 0, 0, 0, 0, 0, 4}, ErrPayload},
		"a started that has a payload":  {[]byte{byte(Started), 0, 0, 0, 0, 0, 0, 0, 1}, ErrPayload},
		"a length with its highest bit": {[]byte{byte(Stdin), 0, 0, 0, 0, 255, 255, 255, 255}, ErrTooLong},
	} {
		if _, err := ParseHeader(c.header); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", sentence, err, c.want)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add(Append(nil, Stdout, 7, []byte("text")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderSize {
			return
		}
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		var again [HeaderSize]byte
		if PutHeader(again[:], h); !bytes.Equal(again[:], b[:HeaderSize]) {
			t.Errorf("%v is written as %v", b[:HeaderSize], again)
		}
	})
}
