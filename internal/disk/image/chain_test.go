package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// lay writes files into a folder of its own.
func lay(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAChainIsFollowedWithinItsFolder(t *testing.T) {
	dir := lay(t, map[string][]byte{
		"top.qcow2":      qcow2(3, over("./middle.qcow2", "qcow2")),
		"middle.qcow2":   qcow2(3, over("base.vmdk", "")),
		"base.vmdk":      extents(`RW 4 FLAT "base-flat.vmdk" 2`),
		"base-flat.vmdk": make([]byte, 3<<10),
	})
	c, err := Open(filepath.Join(dir, "top.qcow2"), Rules{Within: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var files []*os.File
	images, err := c.Images(func(f *os.File) int { files = append(files, f); return len(files) })
	if err != nil || c.Format != QCOW2 || c.Size != unit.GiB || len(images) != 3 {
		t.Fatalf("got %+v, %+v, %v", c, images, err)
	}
	if b := images[2]; b.Format != "raw" || b.Offset != 1024 || b.Size != 2048 || files[2].Name() != filepath.Join(dir, "base-flat.vmdk") {
		t.Errorf("the last layer is %+v in %s", b, files[2].Name())
	}
}

func TestADiskInSeveralFilesIsToBeImported(t *testing.T) {
	dir := lay(t, map[string][]byte{
		"d.vmdk": extents(`RW 4 FLAT "a" 0`, `RW 2048 SPARSE "b"`), "a": make([]byte, 2048), "b": vmdk(2048, ""),
	})
	c, err := Open(filepath.Join(dir, "d.vmdk"), Rules{Within: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Images(nil); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "in 2 files") || c.Size != 1026*unit.KiB {
		t.Errorf("got %s, %v", c.Size, err)
	}
}

func TestWhatAnImageMayNotLeadTo(t *testing.T) {
	outside := lay(t, map[string][]byte{"secret": disk(512, "secret")})
	at := func(name string) string { return filepath.Join(outside, name) }
	for sentence, c := range map[string]struct {
		name string
		file []byte
		more func(dir string)
		none bool // no folder is given
		says string
		kind fault.Kind
	}{
		"another file, where it is to be all there is": {"i", qcow2(3, over("base", "raw")), nil, true, "is to be all there is", fault.Invalid},
		"an extent, where it is to be all there is":    {"i", extents(`RW 1 FLAT "base" 0`), nil, true, "is to be all there is", fault.Invalid},
		"a file outside by its whole name":             {"i", qcow2(3, over(at("secret"), "raw")), nil, false, "which is outside", fault.Invalid},
		"a file outside by a way up":                   {"i", qcow2(3, over("../secret", "raw")), nil, false, "which is outside", fault.Invalid},
		"an extent outside":                            {"i", extents(`RW 1 FLAT "` + at("secret") + `" 0`), nil, false, "which is outside", fault.Invalid},
		"an extent outside by a way up":                {"i", extents(`RW 1 FLAT "../secret" 0`), nil, false, "which is outside", fault.Invalid},
		"a file outside by a link":                     {"i", qcow2(3, over("link", "raw")), func(dir string) { os.Symlink(at("secret"), filepath.Join(dir, "link")) }, false, "is a link out of its folder", fault.Invalid},
		"a file outside by a linked folder":            {"i", qcow2(3, over("link/secret", "raw")), func(dir string) { os.Symlink(outside, filepath.Join(dir, "link")) }, false, "in a folder below", fault.Invalid},
		"a file in a folder below":                     {"i", qcow2(3, over("sub/base", "raw")), nil, false, "in a folder below", fault.Invalid},
		"an extent in a folder below":                  {"i", extents(`RW 1 FLAT "sub/base" 0`), nil, false, "in a folder below", fault.Invalid},
		"a file of strata's own by a link":             {"i", qcow2(3, over("link", "raw")), func(dir string) { os.Symlink("state/disk", filepath.Join(dir, "link")) }, false, "is strata's own", fault.Invalid},
		"an extent of strata's own by a link":          {"i", extents(`RW 1 FLAT "link" 0`), func(dir string) { os.Symlink("state/disk", filepath.Join(dir, "link")) }, false, "is strata's own", fault.Invalid},
		"a server":                                     {"i", qcow2(3, over("nbd://10.0.0.1/x", "raw")), nil, false, "which is no file", fault.Invalid},
		"options of QEMU's":                            {"i", qcow2(3, over(`json:{"driver":"host_device"}`, "raw")), nil, false, "which is no file", fault.Invalid},
		"a name with a zero in it":                     {"i", qcow2(3, over("ba\x00se", "raw")), nil, false, "no name of a file", fault.Invalid},
		"a file that is not there":                     {"i", qcow2(3, over("nonesuch", "raw")), nil, false, "there is no image", fault.Missing},
		"itself":                                       {"i", qcow2(3, over("i", "qcow2")), nil, false, "more than 16 images", fault.Invalid},
		"a pipe":                                       {"i", qcow2(3, over("pipe", "raw")), func(dir string) { unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600) }, false, "neither a file nor a block device", fault.Invalid},
		"a folder":                                     {"i", qcow2(3, over(".", "raw")), nil, false, "neither a file nor a block device", fault.Invalid},
		"an image of another format than it says":      {"i", qcow2(3, over("base", "vmdk")), nil, false, `said to be "vmdk", and is raw`, fault.Invalid},
		"an extent that is too short":                  {"i", extents(`RW 4096 FLAT "base" 0`), nil, false, "is shorter than the descriptor says", fault.Invalid},
		"an extent that begins after its end":          {"i", extents(`RW 1 FLAT "base" 99999`), nil, false, "is shorter than the descriptor says", fault.Invalid},
		"an extent that is another image":              {"i", extents(`RW 2048 SPARSE "base"`), nil, false, "is not the extent that the descriptor says", fault.Invalid},
		"a descriptor in place of an extent":           {"i", extents(`RW 2048 SPARSE "i"`), nil, false, "is not the extent that the descriptor says", fault.Invalid},
	} {
		t.Run(sentence, func(t *testing.T) {
			dir := lay(t, map[string][]byte{c.name: c.file, "base": disk(1024, ""), "sub/base": disk(1024, ""), "state/disk": disk(1024, "")})
			if c.more != nil {
				c.more(dir)
			}
			rules := Rules{Within: dir, Without: filepath.Join(dir, "state")}
			if c.none {
				rules.Within = ""
			}
			chain, err := Open(filepath.Join(dir, c.name), rules)
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %+v, %v", chain, err)
			}
		})
	}
}

// TestAChainStaysAsItWas where that is asked for: the file that a forged header names is not
// even opened.
func TestAChainStaysAsItWas(t *testing.T) {
	base, other := qcow2(3, over("raw", "raw")), disk(1024, "other")
	for sentence, c := range map[string]struct {
		name    string
		content []byte
		same    bool
	}{
		"nothing is changed":                {"top", qcow2(3, over("base", "qcow2")), true},
		"the format is not said any more":   {"top", qcow2(3, over("base", "")), true},
		"another file":                      {"top", qcow2(3, over("other", "raw")), false},
		"a pipe":                            {"top", qcow2(3, over("pipe", "raw")), false},
		"a file outside":                    {"top", qcow2(3, over("/etc/shadow", "raw")), false},
		"another format":                    {"top", qcow2(3, over("base", "raw")), false},
		"nothing below":                     {"top", qcow2(3, nil), false},
		"the lowest first":                  {"top", qcow2(3, over("raw", "raw")), false},
		"itself":                            {"top", qcow2(3, over("top", "qcow2")), false},
		"one more, below the lowest":        {"raw", qcow2(3, over("other", "raw")), true}, // which is raw, whatever is in it
		"one that it lies over is another":  {"base", qcow2(3, over("other", "raw")), false},
		"one that it lies over is the last": {"base", qcow2(3, nil), false},
	} {
		t.Run(sentence, func(t *testing.T) {
			dir := lay(t, map[string][]byte{"top": qcow2(3, over("base", "qcow2")), "base": base, "raw": disk(1024, ""), "other": other})
			rules := Rules{Within: dir}
			was, err := Open(filepath.Join(dir, "top"), rules)
			if err != nil {
				t.Fatal(err)
			}
			was.Close()
			rules.Images = was.Members()
			if err := errors.Join(unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600), os.WriteFile(filepath.Join(dir, c.name), c.content, 0o600)); err != nil {
				t.Fatal(err)
			}
			chain, err := Open(filepath.Join(dir, "top"), rules)
			if err == nil {
				chain.Close()
			}
			if c.same != (err == nil) || !c.same && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "what it lay over")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestNoImageIsStratasOwn(t *testing.T) {
	dir := lay(t, map[string][]byte{"root/state/disk": disk(1024, ""), "root/disk": disk(1024, "")})
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, to := range map[string]string{"link": "root/state/disk", "rootlink": "root", "root/folder": "state"} {
		if err := os.Symlink(to, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, own := range map[string]bool{
		"root/state/disk": true, "link": true, "rootlink/state/disk": true, "root/folder/disk": true,
		"root/disk": false, "rootlink/disk": false,
	} {
		for _, state := range []string{"root/state", "rootlink/state"} {
			c, err := Open(at(name), Rules{Format: Raw, Without: at(state)})
			if own && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is strata's own")) || !own && err != nil {
				t.Errorf("%s, where %s is strata's: %v", name, state, err)
			}
			if err == nil {
				c.Close()
			}
		}
	}
	if c, err := Open(at("root/disk"), Rules{Format: Raw, Without: at("nonesuch")}); err != nil {
		t.Errorf("where strata has nothing: %v", err)
	} else {
		c.Close()
	}
}

func TestAnImageIsWhatItIsAskedToBe(t *testing.T) {
	dir := lay(t, map[string][]byte{"disk": disk(1024, ""), "iso": iso(), "empty": make([]byte, 1024), "forged": qcow2(3, over("/etc/passwd", "raw"))})
	for sentence, c := range map[string]struct {
		name  string
		rules Rules
		want  Format
		says  string
	}{
		"a disk": {"disk", Rules{}, Raw, ""},
		"an ISO": {"iso", Rules{CD: true}, ISO, ""},
		"an ISO as a disk, as from a memory stick":       {"iso", Rules{}, ISO, ""},
		"a disk as an ISO":                               {"disk", Rules{CD: true}, "", "the file is no ISO"},
		"a disk without partitions":                      {"empty", Rules{Format: Raw}, Raw, ""},
		"a raw disk with a header that its system wrote": {"forged", Rules{Format: Raw}, Raw, ""},
		"a disk that is said to be another":              {"disk", Rules{Format: QCOW2}, "", `is said to be "qcow2", and is raw`},
		"nothing":                                        {"nonesuch", Rules{}, "", "there is no image"},
		"a folder":                                       {".", Rules{}, "", "neither a file nor"},
	} {
		t.Run(sentence, func(t *testing.T) {
			chain, err := Open(filepath.Join(dir, c.name), c.rules)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %+v, %v", chain, err)
				}
				return
			}
			if err != nil || chain.Format != c.want || chain.Layers[0].Parts[0].Format != Raw {
				t.Fatalf("got %+v, %v", chain, err)
			}
			chain.Close()
		})
	}
}
