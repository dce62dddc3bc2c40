package zone

import (
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// agentMode: everybody may execute the agent, and nobody of a zone may read it.
// The kernel lets no process look into one that executes what it may not read
// itself, from the very first moment and whatever capabilities it has in the
// zone (fs/exec.c, would_dump). What the agent does about it by itself comes too
// late: an init with CAP_SYS_PTRACE would seize an exec's agent before, with all
// of its capabilities and no filter.
const agentMode = 0o711

// unreadable makes a copy of the program that zones execute and cannot read, in
// a folder from which programs may be executed, and returns its path. A copy that
// is up to date is kept; keepers hold on to theirs.
func unreadable(program, dir string) (_ string, err error) {
	from, err := os.Open(program)
	if err != nil {
		return "", fault.Internalf("open the agent: %w", err)
	}
	defer from.Close()
	var st, old unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return "", fault.Internalf("look at the agent: %w", err)
	}
	to := filepath.Join(dir, "strata-agent")
	if unix.Lstat(to, &old) == nil && old.Mode == unix.S_IFREG|agentMode && old.Uid == 0 && old.Size == st.Size && old.Mtim == st.Mtim {
		return to, nil
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fault.Internalf("make the agent's folder: %w", err)
	}
	fresh, err := os.CreateTemp(dir, ".strata-agent-")
	if err != nil {
		return "", fault.Internalf("copy the agent: %w", err)
	}
	defer func() {
		fresh.Close()
		if err != nil {
			os.Remove(fresh.Name())
			err = fault.Internalf("copy the agent: %w", err)
		}
	}()
	if _, err := io.Copy(fresh, from); err != nil {
		return "", err
	}
	if err := fresh.Chmod(agentMode); err != nil {
		return "", err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fresh.Name(), []unix.Timespec{st.Mtim, st.Mtim}, 0); err != nil {
		return "", err
	}
	if err := fresh.Sync(); err != nil {
		return "", err
	}
	return to, os.Rename(fresh.Name(), to)
}
