package accel

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/qemu"
)

// Verdict is what runs guests here.
type Verdict struct {
	Accelerator string `json:"accelerator"` // qemu.KVM or qemu.TCG
	Reason      string `json:"reason"`      // why not KVM; with KVM, what it is known by
	Booted      bool   `json:"booted"`      // a guest has run by it: that it once does not is no fault of it
}

// String is the verdict in a line.
func (v Verdict) String() string { return v.Accelerator + ": " + v.Reason }

// Judge knows the verdict. It is safe for concurrent use.
type Judge struct {
	agent, file string
	mode        func() uint32 // of /dev/kvm

	mu    sync.Mutex
	known kept // Key "": nothing yet
}

// kept is the file.
type kept struct {
	Key     string    `json:"key"`
	Verdict Verdict   `json:"verdict"`
	At      time.Time `json:"at"`
}

// maxFile bounds the file. Unit: bytes.
const maxFile = 64 << 10

// New returns a Judge that keeps its verdict in file ("": nowhere) and tries KVM by
// the program agent, which is strata-agent.
func New(agent, file string) *Judge { return &Judge{agent: agent, file: file, mode: modeOfDevice} }

// Choose returns the verdict for guests under the given QEMU. It takes some ten
// milliseconds the first time; ctx bounds it, and so does a limit of its own.
func (j *Judge) Choose(ctx context.Context, p qemu.Program) Verdict {
	// First what may change at any time.
	if v, ok := absent(); ok {
		return v
	}
	key := keyOf(p)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.known.Key == "" {
		j.known = j.load()
	}
	if j.known.Key == key {
		return j.open(j.known.Verdict)
	}
	v, sure := Try(ctx, j.agent)
	if sure {
		j.keep(key, v)
	}
	return j.open(v)
}

// Confirm takes note of how a boot under KVM went: err is nil where the guest came
// up. It returns the verdict from here on: TCG where the first boot failed, and with
// that a reason to try it once more. A failure after a boot that went well changes nothing.
func (j *Judge) Confirm(p qemu.Program, err error) Verdict {
	key := keyOf(p)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.known.Key != key {
		j.known = kept{Key: key, Verdict: Verdict{Accelerator: qemu.KVM}}
	}
	if j.known.Verdict.Booted || j.known.Verdict.Accelerator != qemu.KVM {
		return j.known.Verdict
	}
	v := Verdict{Accelerator: qemu.KVM, Reason: "a guest has booted by it", Booted: true}
	if err != nil {
		v = Verdict{Accelerator: qemu.TCG, Reason: Unbooted(err)}
	}
	j.keep(key, v)
	return v
}

// Unbooted is the reason not to use a KVM by which a guest did not boot.
func Unbooted(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n") // the console's words may follow
	return "/dev/kvm runs a loop, but a guest did not boot by it: " + first
}

// Recall returns the verdict that a Judge of the same host and QEMU has left in file.
func Recall(file string, p qemu.Program) (Verdict, bool) {
	k := (&Judge{file: file}).load()
	return k.Verdict, k.Key != "" && k.Key == keyOf(p)
}

// keep is called with mu held. A file that cannot be written is tolerated: it is
// judged anew after the next start then.
func (j *Judge) keep(key string, v Verdict) {
	j.known = kept{Key: key, Verdict: v, At: time.Now().UTC().Truncate(time.Second)}
	if j.file == "" {
		return
	}
	text, err := json.MarshalIndent(j.known, "", "  ")
	if err != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(j.file), filepath.Base(j.file)+".*")
	if err != nil {
		return
	}
	_, err = f.Write(append(text, '\n'))
	if errors.Join(err, f.Sync(), f.Close()) != nil || os.Rename(f.Name(), j.file) != nil {
		os.Remove(f.Name())
	}
}

// load reads the file; one that is not as keep wrote it is none.
func (j *Judge) load() kept {
	var k kept
	info, err := os.Stat(j.file)
	if err != nil || info.Size() > maxFile {
		return kept{}
	}
	text, err := os.ReadFile(j.file)
	if err != nil || json.Unmarshal(text, &k) != nil || k.Verdict.Accelerator != qemu.KVM && k.Verdict.Accelerator != qemu.TCG {
		return kept{}
	}
	return k
}

// keyOf is what a verdict holds for.
func keyOf(p qemu.Program) string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	text := unix.ByteSliceToString
	return strings.Join([]string{text(name.Release[:]), text(name.Version[:]), processor(), p.Path, p.Version}, " | ")
}

// processor names the processor and whether it has one of the extensions, which a
// kernel that is itself in a machine sees or does not see. Source: proc_cpuinfo(5).
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(text), "\n\n")
	var out []string
	for line := range strings.Lines(first) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "vendor_id", "cpu family", "model", "model name", "stepping", "microcode":
			out = append(out, strings.TrimSpace(value))
		case "flags":
			for _, flag := range strings.Fields(value) {
				if flag == "vmx" || flag == "svm" {
					out = append(out, flag)
				}
			}
		}
	}
	return strings.Join(out, " ")
}

// open is v where QEMU can open a KVM that runs: it has no rights of root's, only the
// device's group. This may change at any time, so it is not kept.
func (j *Judge) open(v Verdict) Verdict {
	if v.Accelerator != qemu.KVM || opens(j.mode()) {
		return v
	}
	return Verdict{Accelerator: qemu.TCG, Reason: "only root may open /dev/kvm, and QEMU is not run by root: chgrp kvm /dev/kvm && chmod 660 /dev/kvm"}
}

// modeOfDevice is 0 where there is none.
func modeOfDevice() uint32 {
	var st unix.Stat_t
	_ = unix.Stat("/dev/kvm", &st)
	return st.Mode
}

// opens tells whether a member of a device's group, or anybody, may read and write it.
func opens(mode uint32) bool { return mode&0o060 == 0o060 || mode&0o006 == 0o006 }

// absent tells why KVM cannot even be opened.
func absent() (Verdict, bool) {
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
		return Verdict{}, false
	}
	reason := "/dev/kvm does not open: " + err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = "there is no /dev/kvm"
	case errors.Is(err, fs.ErrPermission):
		reason = "/dev/kvm may not be opened"
	}
	return Verdict{Accelerator: qemu.TCG, Reason: reason}, true
}
