package keeper

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into a struct sockaddr_un with its final zero.
const maxSocketPath = 107

// dial connects to a keeper, however long its path is.
func dial(path string) (*net.UnixConn, error) {
	if len(path) > maxSocketPath {
		dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(dir)
		path = "/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path)
	}
	return net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
}

// packetConn takes fd over.
func packetConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "keeper")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fault.Internalf("use the keeper's socket: %w", err)
	}
	return c.(*net.UnixConn), nil
}

// within runs do with the connection's deadline tied to ctx.
func within(ctx context.Context, c *net.UnixConn, do func() error) error {
	if err := ctx.Err(); err != nil {
		return fault.Busyf("ask the keeper: %w", err)
	}
	passed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.SetDeadline(time.Unix(1, 0))
		close(passed)
	})
	err := do()
	if !stop() {
		<-passed
		c.SetDeadline(time.Time{}) // the connection may still be needed, to say abort
		return fault.Busyf("ask the keeper: %w", ctx.Err())
	}
	return err
}

func readPacket(ctx context.Context, c *net.UnixConn) (b []byte, err error) {
	err = within(ctx, c, func() error {
		// Most answers are short, and there is a watcher per keeper: a long buffer is
		// made only for a packet that needs it.
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		var n int
		var rerr error
		err = raw.Read(func(fd uintptr) bool {
			n, _, rerr = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			return rerr != unix.EAGAIN && rerr != unix.EINTR
		})
		if err == nil {
			err = rerr
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.EOF
		}
		if n > wire.MaxMessage {
			return unix.EMSGSIZE
		}
		b = make([]byte, n)
		n, err = c.Read(b)
		b = b[:n]
		return err
	})
	if err != nil && fault.KindOf(err) == fault.Internal {
		err = fault.Internalf("hear from the keeper: %w", err)
	}
	return b, err
}

func writePacket(ctx context.Context, c *net.UnixConn, v any, file *os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.Internalf("write a request: %w", err)
	}
	if len(b) > wire.MaxMessage {
		return fault.Invalidf("the request is %d bytes long, and may be %d", len(b), wire.MaxMessage).
			At("command").Help("pass long arguments and environments by a file")
	}
	var oob []byte
	if file != nil {
		fd, err := duplicate(file)
		if err != nil {
			return fault.Internalf("hand over a connection: %w", err)
		}
		defer unix.Close(fd)
		oob = unix.UnixRights(fd)
	}
	err = within(ctx, c, func() error {
		_, _, err := c.WriteMsgUnix(b, oob, nil)
		return err
	})
	if err != nil && fault.KindOf(err) == fault.Internal {
		err = fault.Internalf("ask the keeper: %w", err)
	}
	return err
}
