package virtual

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// The files of a suspended system's folder.
const (
	savedFile = "record.json"
	stateFile = "state" // as QEMU writes a migration
)

// savedVersion is raised whenever a system of before cannot go on any more.
const savedVersion = 1

// Saved says what a suspended system is, and what it can go on in.
type Saved struct {
	Version int       `json:"version"`
	Notes   Notes     `json:"notes"`
	TSC     int       `json:"tsc"`  // kHz of the host's time stamp counter
	Size    int64     `json:"size"` // of the state, in bytes
	Disk    string    `json:"disk"` // the private disk's stamp, see stampOf
	At      time.Time `json:"at"`
}

// write keeps s in dir.
func (s Saved) write(dir string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fault.Internalf("describe a suspended system: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, savedFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(text)
		if err == nil {
			err = f.Sync()
		}
		f.Close()
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fault.Internalf("describe a suspended system: %w", err)
	}
	return nil
}

// giveUp is what to do with a suspended system that cannot go on.
const giveUp = "or give up what was in its memory: strata kill, then strata start"

// readSaved reads what a system in dir is. Kinds: Missing, Unable.
func readSaved(dir string) (s Saved, err error) {
	text, err := os.ReadFile(filepath.Join(dir, savedFile))
	if err != nil {
		return s, fault.Missingf("the suspended system is not there: %w", err).Help("bring %s back, %s", dir, giveUp)
	}
	if err := json.Unmarshal(text, &s); err != nil || s.Version != savedVersion {
		return s, fault.Unablef("the suspended system is of another strata").Help("resume it by the strata that suspended it, %s", giveUp)
	}
	info, err := os.Stat(filepath.Join(dir, stateFile))
	if err != nil || info.Size() != s.Size {
		return s, fault.Unablef("the file of the suspended system is not whole").Help("bring %s back, %s", dir, giveUp)
	}
	return s, nil
}

// SavedKernel implements stratum.Reviver.
func (d *Driver) SavedKernel(dir string) (string, error) { return kernelOf(dir) }

var _ stratum.Reviver = (*Driver)(nil)

// kernelOf is the kernel of the system in dir.
func kernelOf(dir string) (string, error) {
	s, err := readSaved(dir)
	return s.Notes.Boot.Kernel, err
}

// stampOf tells one content of a disk from another: a system that goes on has in its
// memory what it knows of its disk.
func stampOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fault.Internalf("look at the private disk: %w", err)
	}
	return fmt.Sprint(st.Size, " ", st.Mtim.Nano()), nil
}

// programOf tells one QEMU from another.
func programOf(p qemu.Program) string {
	var words []string
	for _, path := range []string{p.Path, p.Firmware} {
		var st unix.Stat_t
		if path != "" && unix.Stat(path, &st) == nil {
			words = append(words, fmt.Sprint(path, " ", st.Size, " ", st.Mtim.Nano()))
		}
	}
	return strings.Join(append(words, p.Version), "\n")
}

// formOf names the hardware that args are of.
func formOf(args []string) string {
	text, err := json.Marshal(args)
	if err != nil {
		panic(err) // strings can always be written
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// goOn has l, which Prepare has made, go on from the system in p.Saved. Its hardware is
// compared when it is known, by Attempt. Kinds: Missing, Unable, Conflict.
func (l *Launch) goOn(p stratum.Plan) error {
	s, err := readSaved(p.Saved)
	if err != nil {
		return err
	}
	was, is := s.Notes.Boot, l.Notes.Boot
	// What it was asked to have, as a system may have kept a processor, or been given some.
	_, processors, err := wanted(s.Notes.Limits)
	if err != nil {
		return err
	}
	switch disk, err := stampOf(p.Disk); {
	case err != nil:
		return err
	case was.Memory != is.Memory:
		return changed("resources.memory", "memory", limit(s.Notes.Limits.Memory), limit(p.Resources.Memory))
	case processors != is.CPUs:
		return changed("resources.cpus", "processors", s.Notes.Limits.CPUs, p.Resources.CPUs)
	case programOf(l.QEMU) != s.Notes.Program:
		return fault.Unablef("it was suspended by another QEMU than %s", l.QEMU.Version).Help("resume it with the QEMU that it was suspended by, %s", giveUp)
	case disk != s.Disk:
		return fault.Conflictf("its disk has changed since it was suspended").At("disk").Help("bring the disk of %s back, %s", s.At.Format(time.DateTime), giveUp)
	case was.Accelerator == qemu.KVM && (is.Accelerator != qemu.KVM || s.Notes.Processor != qemu.Processor()):
		return fault.Unablef("it was suspended on another processor").Help("resume it on the host where it was suspended, %s", giveUp)
	case s.TSC != 0 && max(s.TSC-qemu.TSC(), qemu.TSC()-s.TSC) > s.TSC/tolerance:
		return fault.Unablef("it was suspended on a processor with another clock: %d kHz, and here are %d", s.TSC, qemu.TSC()).Help("resume it on the host where it was suspended, %s", giveUp)
	}
	l.From, l.Proven = &s, true
	l.Notes.Present = max(was.CPUs, s.Notes.Present)
	l.Notes.Boot, l.Notes.Fixed, l.Notes.Processor = was, s.Notes.Fixed, s.Notes.Processor
	return nil
}

// tolerance is by how much two measurements of the time stamp counter may differ, as a
// part of it: on a busy host one can be off by more than a thousandth, and two hosts'
// differ by more than a fiftieth.
const tolerance = 50

// limit is a limit in words.
func limit(size unit.Size) string {
	if size == 0 {
		return "no limit"
	}
	return size.String()
}

// sameForm refuses hardware that is another than the suspended system's.
func (l *Launch) sameForm() error {
	if l.From == nil || l.From.Notes.Form == l.Notes.Form {
		return nil
	}
	return fault.Conflictf("it was suspended with other hardware than it has now").Help("undo what was changed of it since, %s", giveUp)
}

func changed(field, what string, was, is any) error {
	return fault.Conflictf("it was suspended with another amount of %s: %v, now %v", what, was, is).
		At(field).Help("set it back first: strata set, %s", giveUp)
}

// enter goes on with the system in dir, in the machine of id, which waits for it. From
// when that runs, dir is no more.
func (d *Driver) enter(ctx context.Context, id, dir string) error {
	f, err := os.Open(filepath.Join(dir, stateFile))
	if err != nil {
		return fault.Unablef("open a suspended system: %w", err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(ctx, savePatience)
	defer cancel()
	q, err := qemu.Dial(ctx, d.Held.Path(id, MonitorSocket))
	if err != nil {
		return err
	}
	defer q.Close()
	if err := q.LoadAll(ctx, f); err != nil {
		return fault.Wrap(err, "load a suspended system")
	}
	// What it does from here on, its file knows nothing of.
	used := dir + ".used"
	if err := os.RemoveAll(used); err != nil {
		return fault.Internalf("remove what was suspended before: %w", err)
	}
	if err := os.Rename(dir, used); err != nil {
		return fault.Internalf("take a suspended system away: %w", err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return fault.Internalf("take a suspended system away: %w", err)
	}
	if err := os.RemoveAll(used); err != nil {
		d.Log.Warn("a suspended system that goes on still takes room", "id", id, "error", err)
	}
	return q.Execute(ctx, "cont", nil, nil)
}
