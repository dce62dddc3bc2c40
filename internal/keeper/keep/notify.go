package keep

import "golang.org/x/sys/unix"

// notifySocket hears the init say that it is up.
type notifySocket struct{ k *keeper }

func (s notifySocket) ready(events uint32) {
	k := s.k
	b := k.buffer()
	for range 8 {
		n, err := receive(k.notify, b[:4096])
		if err == unix.EAGAIN || err == unix.EINTR {
			if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
				k.close(&k.notify)
			}
			return
		}
		if err != nil {
			k.close(&k.notify)
			return
		}
		if saysReady(b[:n]) {
			k.ready = true
			k.close(&k.notify)
			if k.phase == running {
				k.tell()
			}
			return
		}
	}
}

// saysReady looks for the line READY=1. Source: sd_notify(3).
func saysReady(b []byte) bool {
	const word = "READY=1"
	for len(b) > 0 {
		line := b
		if i := indexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if string(line) == word {
			return true
		}
	}
	return false
}

func indexByte(b []byte, c byte) int {
	for i := range b {
		if b[i] == c {
			return i
		}
	}
	return -1
}
