package bomb

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// acting, set to the name of a role, makes this test's program the one inside.
const acting = "STRATA_TEST_BOMB"

// roles are what runs inside, as the main program of an environment. Each goes on until
// it is killed, whatever it is refused.
var roles = map[string]func(){
	"echo":        echo,
	"ask":         question,
	"processes":   processes,
	"memory":      memory,
	"eat":         eat,
	"disk":        fill,
	"descriptors": descriptors,
	"output":      output,
	"packets":     packets,
}

func TestMain(m *testing.M) {
	if role := roles[os.Getenv(acting)]; role != nil {
		role()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// refused waits a moment, so that a bomb that is held by its limit tries again and again
// and is not only a busy loop.
func refused() { time.Sleep(time.Millisecond) }

func echo() {
	l, err := net.Listen("tcp", ":7")
	if err != nil {
		return
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, c)
			c.Close()
		}()
	}
}

// Of a turn of questions: how long it is, and how long it is quiet between two.
const (
	turn  = 500 * time.Millisecond
	every = 500 * time.Microsecond
	warm  = 50 // answers that are not counted
)

// question asks for a turn, and says how long each answer took.
func question() {
	c, err := net.Dial("tcp", os.Getenv("TARGET"))
	for begin := time.Now(); err != nil && time.Since(begin) < time.Minute; c, err = net.Dial("tcp", os.Getenv("TARGET")) {
		time.Sleep(100 * time.Millisecond) // it has been started a moment ago
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	b := make([]byte, 64)
	var took []time.Duration
	for end := time.Now().Add(turn); time.Now().Before(end) || len(took) < 300; time.Sleep(every) {
		begin := time.Now()
		if _, err = c.Write(b); err == nil {
			_, err = io.ReadFull(c, b)
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		took = append(took, time.Since(begin))
	}
	for _, d := range took[warm:] {
		fmt.Println(d)
	}
}

// processes starts programs without end, each of which stays for a while.
func processes() {
	threads(12)
	for {
		_, err := syscall.ForkExec("/bin/sleep", []string{"sleep", os.Getenv("STAY")}, &syscall.ProcAttr{Env: os.Environ()})
		for reaped := 1; reaped > 0; {
			reaped, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		}
		if err != nil {
			refused()
		}
	}
}

// threads makes the runtime have some to spare: it ends a program for which it can make none.
func threads(n int) {
	var all sync.WaitGroup
	ready := make(chan struct{})
	for range n {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-ready
		})
	}
	time.Sleep(100 * time.Millisecond)
	close(ready)
	all.Wait()
}

// memory has children that grow until they are killed, one after the other.
func memory() {
	threads(12)
	for {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), acting+"=eat")
		if cmd.Run() != nil {
			refused()
		}
	}
}

func eat() {
	for held := [][]byte{}; ; {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
	}
}

func fill() {
	b := make([]byte, 1<<20)
	for {
		f, err := os.Create("/fill")
		if err != nil {
			refused()
			continue
		}
		for err == nil {
			_, err = f.Write(b)
		}
		_ = f.Sync()
		f.Close()
		_ = os.Remove("/fill")
	}
}

// held keeps descriptors open, which the collector of memory would close.
var held []*os.File

func descriptors() {
	for {
		r, w, err := os.Pipe()
		if err != nil {
			refused()
			continue
		}
		held = append(held, r, w)
	}
}

func output() {
	line := make([]byte, 64<<10)
	for i := range line {
		line[i] = 'x'
		if i%100 == 99 {
			line[i] = '\n'
		}
	}
	for {
		if _, err := os.Stdout.Write(line); err != nil {
			refused()
		}
	}
}

// packets sends to whoever is its neighbour.
func packets() {
	c, err := net.Dial("udp", os.Getenv("TARGET"))
	if err != nil {
		return
	}
	b := make([]byte, 1400)
	for {
		if _, err := c.Write(b); err != nil {
			refused()
		}
	}
}
