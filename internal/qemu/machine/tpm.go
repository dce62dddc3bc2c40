package machine

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// TPM is the host's swtpm, which is a TPM 2.0 for one machine.
type TPM struct {
	Path string
}

// askPatience bounds the wait for a program to say what it can.
const askPatience = 10 * time.Second

// FindTPM returns the host's swtpm. Kinds: Unable where there is none that will do.
func FindTPM(ctx context.Context) (TPM, error) {
	path, err := exec.LookPath("swtpm")
	if err != nil {
		return TPM{}, fault.Unablef("a TPM needs swtpm, which is not installed").At("tpm").Help("apt install swtpm, or use no TPM")
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	said, err := exec.CommandContext(ctx, path, "socket", "--tpm2", "--print-capabilities").Output()
	if err != nil || !strings.Contains(string(said), `"nvram-backend-dir"`) { // 0.7 or newer
		return TPM{}, fault.Unablef("%s makes no TPM 2.0: it says %.200q", path, said).At("tpm").Help("install a newer swtpm, 0.7 or later, or use no TPM")
	}
	return TPM{path}, nil
}

// Args are swtpm's arguments: its end of the pair of sockets whose other one is
// Files.TPM, and the folder, as swtpm sees it, that keeps what the TPM knows. It ends
// when QEMU does.
func (TPM) Args(control int, state string) []string {
	return []string{
		"socket", "--tpm2", "--ctrl", fmt.Sprintf("type=unixio,clientfd=%d", control),
		"--tpmstate", "dir=" + state + ",mode=0600", "--terminate",
	}
}
