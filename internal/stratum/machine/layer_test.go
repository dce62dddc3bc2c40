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

// TestQEMUTakesAnEmptyLayer has QEMU's own checker read one.
func TestQEMUTakesAnEmptyLayer(t *testing.T) {
	tool := require.Tool(t, "qemu-img")
	for _, size := range []int64{512, 1 << 20, mapped, mapped + 512, 3 << 30} {
		f, err := layer(size)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "layer")
		out, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, io.NewSectionReader(f, 0, layerClusters*cluster)); err != nil {
			t.Fatal(err)
		}
		out.Close()
		f.Close()
		ctx, cancel := context.WithTimeout(t.Context(), require.Patience(30*time.Second))
		defer cancel()
		text, err := exec.CommandContext(ctx, tool, "check", "-f", layerFormat, name).CombinedOutput()
		if err != nil || !strings.Contains(string(text), "No errors") {
			t.Errorf("%d bytes: %v: %s", size, err, text)
		}
		text, err = exec.CommandContext(ctx, tool, "info", "-f", layerFormat, name).CombinedOutput()
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("(%d bytes)", size)) {
			t.Errorf("%d bytes: %v: %s", size, err, text)
		}
	}
}

func TestALayerOfMoreThanOneTableIsRefused(t *testing.T) {
	if _, err := layer(maxLayer + 1); err == nil {
		t.Error("it was made")
	}
}
