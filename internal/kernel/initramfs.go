package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/cpio"
	"github.com/strata-project/strata/internal/unit"
)

// initramfsRecipe changes with what Initramfs puts into the archive.
const initramfsRecipe = "4"

// maxAgent bounds what is taken as an agent. Unit: bytes.
const maxAgent = 256 * unit.MiB

// initramfsTail is the end of an archive's file name: <kernel>-<digest>.cpio, both
// as 64 digits.
const initramfsTail = ".cpio"

// Image is an initramfs.
type Image struct {
	Path   string
	Digest string // "sha256:…" of its inputs, which make its content
	Size   int64  // bytes; the guest's kernel holds it twice for a moment
}

// Initramfs returns the archive that k boots a guest from: the program at agent
// as /init, the modules of set, their order and parameters in /modules/order and, of those
// that are loaded later, in /modules/later, /dev/console, and
// the folders that the agent mounts on. It is made where it is missing; of several
// callers at once, one makes it. Kinds: Missing where there is no such agent,
// Unable where a module's file is gone or changed, Busy where the disk is full.
func (s *Store) Initramfs(ctx context.Context, k Kernel, agent string, set Set) (Image, error) {
	program, err := s.agents.digest(ctx, agent)
	if err != nil {
		return Image{}, fault.Wrap(err, "read the agent %s", agent)
	}
	key, err := initramfsKey(k, program, set)
	if err != nil {
		return Image{}, err
	}
	return s.once(ctx, k, product{"initramfs", initramfsTail, key}, func(f *os.File) (int64, error) {
		w := cpio.NewWriter(f)
		if err := fill(ctx, w, agent, program, set); err != nil {
			return 0, err
		}
		err := w.Close() // it writes the end
		return w.Size(), err
	})
}

func initramfsKey(k Kernel, agent string, set Set) (string, error) {
	input := struct {
		Recipe, Kernel, Agent string
		Modules               []string // name, digest, parameters, and whether it is loaded later
	}{Recipe: initramfsRecipe, Kernel: k.ID, Agent: agent}
	for _, m := range set.Modules {
		input.Modules = append(input.Modules, fmt.Sprintln(m.Name, m.Digest, m.Parameters, m.Later))
	}
	data, err := json.Marshal(input)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// The console's device number. Source: Linux, Documentation/admin-guide/devices.txt.
const (
	consoleMajor = 5
	consoleMinor = 1
	nullMajor    = 1
	nullMinor    = 3
)

func fill(ctx context.Context, w *cpio.Writer, agent, program string, set Set) error {
	for _, dir := range []string{"dev", "proc", "sys", "newroot", modulesDir} {
		if err := w.Folder(dir, 0o755); err != nil {
			return err
		}
	}
	// Without a console the agent starts with no standard streams, and Go's runtime
	// puts /dev/null in their place, or panics.
	err := errors.Join(w.Character("dev/console", 0o600, consoleMajor, consoleMinor), w.Character("dev/null", 0o666, nullMajor, nullMinor))
	if err != nil {
		return err
	}
	if err := pour(ctx, w, "init", 0o755, agent, program); err != nil {
		return fault.Wrap(err, "the agent %s", agent)
	}
	var order, later bytes.Buffer
	for i, m := range set.Modules {
		name := fmt.Sprintf("%s/%03d-%s%s", modulesDir, i, m.Name, moduleTail)
		list := &order
		if m.Later {
			list = &later
		}
		fmt.Fprintln(list, strings.TrimSpace("/"+name+" "+m.Parameters))
		if err := pour(ctx, w, name, 0o644, m.Path, m.Digest); err != nil {
			return fault.Unablef("module %s: %w", m.Name, err).Help("remove the kernel and add it again")
		}
	}
	return errors.Join(w.File(modulesDir+"/order", 0o644, int64(order.Len()), &order), w.File(modulesDir+"/later", 0o644, int64(later.Len()), &later))
}

// pour adds a file, whose content must be what digest says.
func pour(ctx context.Context, w *cpio.Writer, name string, perm uint32, path, digest string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := sha256.New()
	if err := w.File(name, perm, info.Size(), stoppable{ctx, io.TeeReader(f, h)}); err != nil {
		return err
	}
	if got := idPrefix + hex.EncodeToString(h.Sum(nil)); got != digest {
		return fault.Busyf("%s changed while it was read", path)
	}
	return nil
}

// keepUnused is how long an initramfs stays that nobody asks for.
const keepUnused = 7 * 24 * time.Hour

// tidy is Prune, where nobody waits for it.
func (s *Store) tidy() {
	if _, err := s.Prune(time.Now().Add(-keepUnused)); err != nil {
		s.log.Debug("unused initramfs not removed", "error", err)
	}
}

// Prune removes what Initramfs and BootDisk made and nobody asked for since before: it is made
// again when it is needed. It returns how many bytes that gave back. Guests that
// run have read theirs.
func (s *Store) Prune(before time.Time) (int64, error) {
	return s.removeWhere(func(path string, info os.FileInfo) bool {
		return info.ModTime().Before(before) || !s.hasOwner(path)
	})
}

// removeImages removes what was made of a kernel.
func (s *Store) removeImages(id string) int64 {
	prefix := strings.TrimPrefix(id, idPrefix) + "-"
	freed, err := s.removeWhere(func(path string, _ os.FileInfo) bool { return strings.HasPrefix(filepath.Base(path), prefix) })
	if err != nil {
		s.log.Warn("an initramfs of a removed kernel stays until it is pruned", "error", err)
	}
	return freed
}

func (s *Store) hasOwner(path string) bool {
	digits, _, _ := strings.Cut(filepath.Base(path), "-")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kernels[idPrefix+digits] != nil
}

func (s *Store) removeWhere(gone func(path string, info os.FileInfo) bool) (int64, error) {
	all, err := filepath.Glob(filepath.Join(s.dir, initramfsDir, "*"+initramfsTail))
	if err != nil {
		return 0, err
	}
	disks, err := filepath.Glob(filepath.Join(s.dir, initramfsDir, "*"+bootDiskTail))
	if err != nil {
		return 0, err
	}
	all = append(all, disks...)
	var freed int64
	var errs []error
	for _, path := range all {
		info, err := os.Stat(path)
		if err != nil || !gone(path, info) {
			continue
		}
		if err := os.Remove(path); err != nil {
			errs = append(errs, err)
			continue
		}
		freed += info.Size()
	}
	return freed, errors.Join(errs...)
}

// agents remembers the digests of programs, so that a start does not read one of
// several megabytes each time.
type agents struct {
	mu   sync.Mutex
	seen map[string]seenAgent // by path
}

type seenAgent struct {
	device, inode  uint64
	size           int64
	changed, mtime int64
	digest         string
}

func (a *agents) digest(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fault.Missingf("there is no program %s", path).Help("run `make build`, or `make install`")
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > int64(maxAgent) {
		return "", fault.Invalidf("it is no program of at most %s", unit.Size(maxAgent))
	}
	now := seenAgent{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		now.device, now.inode, now.changed = uint64(st.Dev), st.Ino, st.Ctim.Nano()
	}
	a.mu.Lock()
	before := a.seen[path]
	a.mu.Unlock()
	if now.digest = before.digest; before.digest != "" && now == before {
		return before.digest, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, stoppable{ctx, f}); err != nil {
		return "", err
	}
	now.digest = idPrefix + hex.EncodeToString(h.Sum(nil))
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil {
		a.seen = map[string]seenAgent{}
	}
	a.seen[path] = now
	return now.digest, nil
}
