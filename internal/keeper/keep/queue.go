package keep

import "golang.org/x/sys/unix"

// queue holds bytes that could not be written yet. Its memory is a mapping of
// its own that is given back as soon as it is empty. The zero value is empty.
type queue struct {
	buf  []byte
	r, w int
}

const queueStart = 128 << 10

func (q *queue) len() int { return q.w - q.r }

func (q *queue) bytes() []byte { return q.buf[q.r:q.w] }

// push adds b; false means that there is no memory for it.
func (q *queue) push(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if q.w+len(b) > len(q.buf) && q.r > 0 {
		copy(q.buf, q.bytes())
		q.r, q.w = 0, q.len()
	}
	if need := q.w + len(b); need > len(q.buf) {
		size := max(len(q.buf), queueStart)
		for size < need {
			size *= 2
		}
		grown := mapBuffer(size)
		if grown == nil {
			return false
		}
		copy(grown, q.bytes())
		n := q.len()
		q.free()
		q.buf, q.w = grown, n
	}
	q.w += copy(q.buf[q.w:], b)
	return true
}

// drop removes n bytes from the front.
func (q *queue) drop(n int) {
	if q.r += n; q.r >= q.w {
		q.free()
	}
}

func (q *queue) free() {
	unmapBuffer(q.buf)
	*q = queue{}
}

// mapBuffer returns zeroed memory of its own, nil where there is none.
func mapBuffer(size int) []byte {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil
	}
	return b
}

func unmapBuffer(b []byte) {
	if b != nil {
		unix.Munmap(b)
	}
}
