package screen

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Connect returns a connection to QEMU's VNC server, which speaks RFB and asks for no
// password: whoever is handed it may see and press everything. QEMU is handed the
// other end, and listens nowhere. Kinds: Unable where the machine's command line has
// no such server, Busy.
func (s *Screen) Connect(ctx context.Context) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(err, "make a socket for the screen")
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "viewer"), os.NewFile(uintptr(fds[1]), "screen")
	defer ours.Close() // net has a duplicate
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fault.Wrap(err, "use a socket for the screen")
	}
	if err := s.hand(ctx, theirs); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// hand makes file a viewer's connection.
func (s *Screen) hand(ctx context.Context, file *os.File) error {
	name := fmt.Sprintf("viewer-%d", number())
	if err := s.monitor.Execute(ctx, "getfd", map[string]string{"fdname": name}, nil, file); err != nil {
		return fault.Wrap(err, "hand over a socket for the screen")
	}
	err := s.monitor.Execute(ctx, "add_client", map[string]any{"protocol": "vnc", "fdname": name, "skipauth": true}, nil)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	_ = s.monitor.Execute(ctx, "closefd", map[string]string{"fdname": name}, nil) // gone where QEMU has taken it
	return fault.Wrap(err, "join the screen")
}
