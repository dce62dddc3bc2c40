package guestagent

import (
	"context"
	"errors"
	"io"
)

// chunk is how much of a file is sent at a time. Unit: bytes.
const chunk = 64 << 10

// WriteFile makes a file inside, or replaces what is in it. What was written before it
// failed stays.
func (a *Agent) WriteFile(ctx context.Context, path string, from io.Reader) (err error) {
	var handle int64
	if err := a.ask(ctx, request{command: "guest-file-open", args: map[string]string{"path": path, "mode": "wb"}}, &handle); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, a.ask(ctx, request{command: "guest-file-close", args: map[string]int64{"handle": handle}}, nil))
	}()
	for b := make([]byte, chunk); ; {
		n, err := io.ReadFull(from, b)
		if n == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if err := a.write(ctx, handle, b[:n]); err != nil {
			return err
		}
	}
}

// write writes all of b, which may take several requests.
func (a *Agent) write(ctx context.Context, handle int64, b []byte) error {
	for len(b) > 0 {
		var written struct {
			Count int64 `json:"count"`
		}
		err := a.ask(ctx, request{command: "guest-file-write", args: struct {
			Handle int64  `json:"handle"`
			Data   []byte `json:"buf-b64"`
		}{handle, b}}, &written)
		if err != nil {
			return err
		}
		if written.Count <= 0 || written.Count > int64(len(b)) {
			return &Refused{Command: "guest-file-write", Words: "it says to have written what cannot be"}
		}
		b = b[written.Count:]
	}
	return nil
}
