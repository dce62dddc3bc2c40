package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
)

// This very program is the load on both sides: `bench inside …` runs in the zone
// (as a volume) and on the host.

const (
	diskBytes = 256 << 20
	netBytes  = 1 << 30
	fsyncs    = 200
)

// disk compares a zone's private disk with the file system that holds it.
func (e *env) disk() error {
	self, err := e.self()
	if err != nil {
		return err
	}
	host := filepath.Join(e.work, "disk")
	if err := os.MkdirAll(host, 0o755); err != nil {
		return err
	}
	if out, err := e.strata("run", "-d", "--name", "disk", "-v", self+":/bench:ro", "busybox", "sleep", "100000").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	defer e.strata("rm", "-f", "disk").Run()
	for _, what := range []struct{ name, unit string }{{"write", "MB/s"}, {"read", "MB/s"}, {"fsync", "1/s"}} {
		err := compare(7, what.unit,
			side{what.name + " in a zone", func() (float64, error) {
				return figure(e.strata("exec", "disk", "/bench", "inside", what.name, "/root"))
			}},
			side{what.name + " on the host", func() (float64, error) { return figure(exec.Command(self, "inside", what.name, host)) }})
		if err != nil {
			return err
		}
	}
	return nil
}

// network compares a zone with a plain namespace behind a plain veth.
func (e *env) network() error {
	self, err := e.self()
	if err != nil {
		return err
	}
	if out, err := e.strata("run", "-d", "--name", "net", "-v", self+":/bench:ro", "busybox", "/bench", "inside", "serve").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	defer e.strata("rm", "-f", "net").Run()
	out, err := e.strata("show", "net", "--json").Output()
	if err != nil {
		return err
	}
	var zone []api.Environment
	if err := json.Unmarshal(out, &zone); err != nil || len(zone) != 1 {
		var one api.Environment
		if err := json.Unmarshal(out, &one); err != nil {
			return err
		}
		zone = []api.Environment{one}
	}
	plain, stop, err := e.plain(self)
	if err != nil {
		return err
	}
	defer stop()
	for _, what := range []struct{ name, verb string }{{"host to", "send"}, {"host from", "receive"}} {
		err := compare(7, "MB/s",
			side{what.name + " a zone", func() (float64, error) { return transfer(what.verb, zone[0].Network.IPv4) }},
			side{what.name + " a plain namespace", func() (float64, error) { return transfer(what.verb, plain) }})
		if err != nil {
			return err
		}
	}
	return nil
}

// plain serves in a network namespace behind a bridge and a veth, as strata's zones are.
func (e *env) plain(self string) (address string, stop func(), err error) {
	const bridge, outer = "stbench0", "stbench1"
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	if err := netlink.LinkAdd(br); err != nil {
		return "", nil, err
	}
	remove := func() { netlink.LinkDel(br) }
	addr, _ := netlink.ParseAddr("198.18.77.1/24")
	if err := netlink.AddrAdd(br, addr); err != nil {
		remove()
		return "", nil, err
	}
	netlink.LinkSetUp(br)
	started := make(chan error)
	var cmd *exec.Cmd
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			started <- err
			return
		}
		cmd = exec.Command(self, "inside", "serve")
		started <- cmd.Start()
	}()
	if err := <-started; err != nil {
		remove()
		return "", nil, err
	}
	stop = func() { cmd.Process.Kill(); cmd.Wait(); remove() }
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: outer, MasterIndex: br.Index}, PeerName: "eth0", PeerNamespace: netlink.NsPid(cmd.Process.Pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		stop()
		return "", nil, err
	}
	netlink.LinkSetUp(veth)
	if out, err := exec.Command("nsenter", "-t", strconv.Itoa(cmd.Process.Pid), "-n", "sh", "-c", "ip addr add 198.18.77.2/24 dev eth0 && ip link set eth0 up").CombinedOutput(); err != nil {
		stop()
		return "", nil, fmt.Errorf("%w: %s", err, out)
	}
	return "198.18.77.2", stop, nil
}

// self returns a static build of this program that a zone can run.
func (e *env) self() (string, error) {
	path := filepath.Join(e.work, "bench")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.Command("go", "build", "-o", path, "github.com/strata-project/strata/bench")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return path, nil
}

// figure reads the number that a command prints.
func figure(cmd *exec.Cmd) (float64, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return number(string(out))
}

func number(said string) (float64, error) { return strconv.ParseFloat(strings.TrimSpace(said), 64) }

// inside is the load.
func inside(args []string) {
	var v float64
	var err error
	switch args[0] {
	case "write":
		v, err = writeFile(args[1])
	case "read":
		v, err = readFile(args[1])
	case "fsync":
		v, err = syncFile(args[1])
	case "read-random":
		v, err = random(args[1], (*os.File).ReadAt)
	case "write-random":
		v, err = random(args[1], (*os.File).WriteAt)
	case "fill":
		fill(args[1])
	case "serve":
		err = serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(v)
}

func rate(bytes int, begun time.Time) float64 {
	return float64(bytes) / 1e6 / time.Since(begun).Seconds()
}

func writeFile(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "bench-file"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * 7)
	}
	begun := time.Now()
	for range diskBytes / len(block) {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return rate(diskBytes, begun), nil
}

// readFile reads what it has just written, not from the page cache. Each side writes anew:
// who has begun a moment ago and has written is faster than who has stood still.
func readFile(dir string) (float64, error) {
	path := filepath.Join(dir, "bench-file")
	if _, err := writeFile(dir); err != nil {
		return 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return 0, err
	}
	begun := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return rate(int(n), begun), err
}

func syncFile(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "bench-sync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 4096)
	begun := time.Now()
	for range fsyncs {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return fsyncs / time.Since(begun).Seconds(), nil
}

// random accesses pieces of what writeFile wrote, here and there, one at a time and past
// the page cache, and returns how many a second.
func random(dir string, access func(*os.File, []byte, int64) (int, error)) (float64, error) {
	path := filepath.Join(dir, "bench-file")
	if _, err := os.Stat(path); err != nil {
		if _, err := writeFile(dir); err != nil {
			return 0, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	const piece, pieces = 4096, 2000
	block, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON) // aligned
	if err != nil {
		return 0, err
	}
	at := uint64(1)
	begun := time.Now()
	for range pieces {
		at = at*6364136223846793005 + 1442695040888963407 // Knuth's MMIX: the same places each time
		if _, err := access(f, block, int64(at>>33%(diskBytes/piece)*piece)); err != nil {
			return 0, err
		}
	}
	return pieces / time.Since(begun).Seconds(), nil
}

// fill takes so many MiB of memory with bytes of which no two pages are the same, says so, and keeps them.
func fill(size string) {
	n, err := strconv.Atoi(size)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	block := make([]uint64, n<<20/8)
	at := uint64(1)
	for i := range block {
		at = at*6364136223846793005 + 1442695040888963407
		block[i] = at
	}
	fmt.Println(n)
	time.Sleep(24 * time.Hour)
	runtime.KeepAlive(block)
}

// serve answers "send" by swallowing and "receive" by sending netBytes.
func serve() error {
	l, err := net.Listen("tcp", ":7000")
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			r := bufio.NewReaderSize(conn, 1<<18)
			if verb, _ := r.ReadString('\n'); verb == "receive\n" {
				block := make([]byte, 1<<18)
				for range netBytes / len(block) {
					if _, err := conn.Write(block); err != nil {
						return
					}
				}
				return
			}
			io.CopyN(io.Discard, r, netBytes)
			conn.Write([]byte{1})
		}()
	}
}

func transfer(verb, address string) (float64, error) {
	var conn net.Conn
	var err error
	for range 100 { // the server may still be starting
		if conn, err = net.DialTimeout("tcp", address+":7000", 2*time.Second); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	begun := time.Now()
	if _, err := fmt.Fprintln(conn, verb); err != nil {
		return 0, err
	}
	if verb == "receive" {
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 1<<18))
		return rate(int(n), begun), err
	}
	block := make([]byte, 1<<18)
	for range netBytes / len(block) {
		if _, err := conn.Write(block); err != nil {
			return 0, err
		}
	}
	if _, err := io.ReadFull(conn, block[:1]); err != nil {
		return 0, err
	}
	return rate(netBytes, begun), nil
}
