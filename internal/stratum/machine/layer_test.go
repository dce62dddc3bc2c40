package machine

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
)

// TestQEMUTakesAnEmptyLayer has QEMU open one over a disk, as a machine's is.
func TestQEMUTakesAnEmptyLayer(t *testing.T) {
	program := require.Tool(t, "qemu-system-x86_64")
	dir := t.TempDir()
	for _, size := range []int64{512, 1 << 20, mapped, mapped + 512, 3 << 30} {
		f, err := layer(size)
		if err != nil {
			t.Fatal(err)
		}
		name, under := filepath.Join(dir, fmt.Sprint("layer", size)), filepath.Join(dir, fmt.Sprint("disk", size))
		text, err := io.ReadAll(io.NewSectionReader(f, 0, layerClusters*cluster))
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(under, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(under, size); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), require.Patience(30*time.Second))
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "-M", "none", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio",
			"-blockdev", "driver=raw,node-name=under,read-only=on,file.driver=file,file.read-only=on,file.filename="+under,
			"-blockdev", "driver="+layerFormat+",node-name=over,file.driver=file,file.filename="+name+",backing=under")
		cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"query-named-block-nodes"}{"execute":"quit"}`)
		said, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(said), fmt.Sprintf(`"virtual-size": %d, "filename": "json:`, size)) || !strings.Contains(string(said), `"corrupt": false`) {
			t.Errorf("%d bytes: %v: %s", size, err, said)
		}
	}
}

func TestALayerOfMoreThanOneTableIsRefused(t *testing.T) {
	if _, err := layer(maxLayer + 1); err == nil {
		t.Error("it was made")
	}
}
