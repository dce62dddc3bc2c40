package program

import "golang.org/x/sys/unix"

// ReadAll reads fd to its end, at most limit bytes, and closes it.
func ReadAll(fd, limit int) ([]byte, error) {
	defer unix.Close(fd)
	size := 16 << 10
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Size > 0 && st.Size < int64(limit) {
		size = int(st.Size) + 1 // one more shows the end without growing
	}
	buf := make([]byte, 0, size)
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= limit {
				return nil, unix.EFBIG
			}
			grown := make([]byte, len(buf), min(cap(buf)*4, limit))
			copy(grown, buf)
			buf = grown
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return buf, nil
		}
		buf = buf[:len(buf)+n]
	}
}
