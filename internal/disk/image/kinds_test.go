package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

func TestKindsOfImagesThatOtherToolsMake(t *testing.T) {
	convert := require.Tool(t, "qemu-img")
	tool := tool(t)
	want := noise(6 << 20)
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for sentence, c := range map[string]struct {
		args string
		says string // "": it is read
	}{
		"a vmdk as it is downloaded":         {"-O vmdk -o subformat=streamOptimized", ""},
		"a vmdk in one file":                 {"-O vmdk -o subformat=monolithicSparse", ""},
		"a vmdk with its data beside":        {"-O vmdk -o subformat=monolithicFlat", ""},
		"a vmdk in sparse pieces":            {"-O vmdk -o subformat=twoGbMaxExtentSparse", ""},
		"a vmdk in pieces":                   {"-O vmdk -o subformat=twoGbMaxExtentFlat", ""},
		"a vmdk of version 6":                {"-O vmdk -o compat6=on", ""},
		"a vdi with all its blocks":          {"-O vdi -o static=on", ""},
		"a vhdx with all its blocks":         {"-O vhdx -o subformat=fixed", ""},
		"a vhdx of large blocks":             {"-O vhdx -o block_size=32M", ""},
		"a qcow2 of 2008":                    {"-O qcow2 -o compat=0.10", ""},
		"a qcow2 that is compressed":         {"-c -O qcow2", ""},
		"a qcow2 that is compressed by zstd": {"-c -O qcow2 -o compression_type=zstd", ""},
		"a qcow2 with parts of clusters":     {"-O qcow2 -o extended_l2=on", ""},
		"a qcow2 with small clusters":        {"-O qcow2 -o cluster_size=512", ""},
		"a qcow2 with its data beside":       {"-O qcow2 -o data_file=DIR/data", "keeps its data in another file"},
		"a qcow2 that is encrypted":          {"--object secret,id=s,data=secret -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "is encrypted"},
		"a LUKS disk":                        {"--object secret,id=s,data=secret -O luks -o key-secret=s,iter-time=10", "encrypted (LUKS)"},
		"a VHD":                              {"-O vpc", "a VHD image"},
		"a QED":                              {"-O qed", "a QED image"},
	} {
		t.Run(sentence, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			args := append(append([]string{"convert", "-f", "raw"}, strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))...), raw, path)
			if out, err := exec.CommandContext(bounded(t), convert, args...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			chain, err := Open(path, Rules{Within: dir})
			if c.says != "" {
				if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %+v, %v", chain, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer chain.Close()
			same(t, tool, chain, want)
		})
	}
}
