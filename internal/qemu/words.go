package qemu

import (
	"strings"
	"sync"
)

// Words keep the beginning of what a QEMU says, for whoever has to say why it
// failed. The zero value is empty. It is safe for concurrent use.
type Words struct {
	mu   sync.Mutex
	text []byte
}

// maxWords bounds them. Unit: bytes.
const maxWords = 1000

// Write implements io.Writer. It never fails.
func (w *Words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b[:min(len(b), maxWords-len(w.text))]...)
	return len(b), nil
}

// String is one line of valid UTF-8.
func (w *Words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.ToValidUTF8(strings.Join(strings.Fields(string(w.text)), " "), "?")
}
