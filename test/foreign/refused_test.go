package foreign

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
)

// Exit statuses of the CLI, as internal/fault's table has them.
const (
	invalid  = 2
	missing  = 3
	conflict = 4
	unable   = 5
)

// TestWhatIsNoMediumIsRefused looks at exit status and message of each, and that nothing
// was made.
func TestWhatIsNoMediumIsRefused(t *testing.T) {
	b := start(t)
	img, dir, elsewhere := tool(t, "qemu-img", "qemu-utils"), t.TempDir(), t.TempDir()
	put := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	raw := put("echo.raw", echoDisk())
	qcow2 := filepath.Join(dir, "echo.qcow2")
	convert(t, raw, qcow2, "-O", "qcow2")
	base := filepath.Join(elsewhere, "base.raw")
	if err := os.WriteFile(base, echoDisk(), 0o600); err != nil {
		t.Fatal(err)
	}
	over, secret := filepath.Join(dir, "over.qcow2"), filepath.Join(dir, "secret.qcow2")
	command(t, img, "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", over)
	command(t, img, "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", secret, "1M")
	link := filepath.Join(dir, "link.qcow2")
	command(t, img, "create", "-q", "-f", "qcow2", "-u", "-b", "link.raw", "-F", "raw", link, "4M")
	if err := os.Symlink(base, filepath.Join(dir, "link.raw")); err != nil {
		t.Fatal(err)
	}
	flat := put("outside.vmdk", []byte("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8192 FLAT \""+base+"\" 0\n"))
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(echoDisk())
	z.Close()
	short, err := os.ReadFile(qcow2)
	if err != nil {
		t.Fatal(err)
	}
	cd := put("echo.iso", echoCD())
	own := filepath.Join(b.Places.State, "own.raw")
	if err := os.WriteFile(own, echoDisk(), 0o600); err != nil {
		t.Fatal(err)
	}
	for sentence, c := range map[string]struct {
		args   []string
		status int
		says   []string
	}{
		"an image over one in another folder":       {[]string{"--disk-image", over}, invalid, []string{"leads to", base, "outside " + dir}},
		"an image over a file of the host":          {[]string{"--disk-image", secret}, invalid, []string{"leads to", "/etc/shadow", "outside"}},
		"an image over a link out of its folder":    {[]string{"--disk-image", link}, invalid, []string{"link out of its folder"}},
		"a vmdk whose content is in another folder": {[]string{"--disk-image", flat}, invalid, []string{"leads to", base, "outside"}},
		"an import of an image over one elsewhere":  {[]string{"--import", "--disk-image", over}, invalid, []string{"leads to", base}},
		"a text":                                 {[]string{"--disk-image", put("text", bytes.Repeat([]byte("no disk\n"), 512))}, invalid, []string{"no disk image that is known", "say format raw"}},
		"an empty file":                          {[]string{"--disk-image", put("nothing", nil)}, invalid, []string{"no disk image"}},
		"a packed image":                         {[]string{"--disk-image", put("echo.raw.gz", packed.Bytes())}, invalid, []string{"compressed by gzip", "gunzip"}},
		"a format that there is not":             {[]string{"--disk-image", raw, "--image-format", "zip"}, invalid, []string{"qcow2"}},
		"a format that it is not":                {[]string{"--disk-image", qcow2, "--image-format", "vmdk"}, invalid, []string{"said to be", "is qcow2"}},
		"half a header":                          {[]string{"--disk-image", put("short.qcow2", short[:60])}, invalid, []string{"ends in its header"}},
		"half a raw disk":                        {[]string{"--disk-image", put("half.raw", echoDisk()[:echoSize-100])}, invalid, []string{"whole number of sectors"}},
		"a disk that is not there":               {[]string{"--disk-image", dir + "/none.qcow2"}, missing, []string{"there is no image " + dir + "/none.qcow2"}},
		"a folder":                               {[]string{"--disk-image", dir}, invalid, []string{"neither a file nor a block device"}},
		"a disk that is smaller than its image":  {[]string{"--disk-image", raw, "--disk", "1M"}, invalid, []string{"disk"}},
		"an ISO that is a disk":                  {[]string{"--iso", raw}, invalid, []string{"no ISO", "--disk-image"}},
		"an ISO that is zeros":                   {[]string{"--iso", put("zeros.iso", make([]byte, 1<<20))}, invalid, []string{"foreign.iso", "ISO 9660"}},
		"an ISO that is not there":               {[]string{"--iso", dir + "/none.iso"}, missing, []string{"none.iso"}},
		"a first start from a CD that is no ISO": {[]string{"--disk-image", raw, "--iso", qcow2, "--boot-once", "cd"}, invalid, []string{"no ISO"}},
		"a start from a disk that there is not":  {[]string{"--iso", cd, "--boot", "disk"}, invalid, []string{"no disk to boot from"}},
		"a start from what no computer has":      {[]string{"--iso", cd, "--boot", "tape"}, invalid, []string{"tape"}},
		"too little memory for UEFI":             {[]string{"--iso", cd, "--firmware", "uefi", "--memory", "8M"}, invalid, []string{"memory"}},
		"more memory than a board takes":         {[]string{"--iso", cd, "--memory", "100T"}, invalid, []string{"memory"}},
		"more processors than a board takes":     {[]string{"--iso", cd, "--cpus", "5000"}, invalid, []string{"cpus"}},
		"a firmware that there is not":           {[]string{"--iso", cd, "--firmware", "coreboot"}, invalid, []string{"uefi"}},
		"a system that there is not":             {[]string{"--iso", cd, "--os", "beos"}, invalid, []string{"windows"}},
		"a disk of strata's own, by path":        {[]string{"--disk-image", own}, invalid, []string{"strata's own"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			out := b.Try(append([]string{"create", "--name", "none"}, c.args...)...)
			if out.Status != c.status {
				t.Errorf("exit status %d, not %d: %s", out.Status, c.status, out.Stderr)
			}
			for _, words := range c.says {
				if !strings.Contains(out.Stderr, words) {
					t.Errorf("it does not say %q: %s", words, out.Stderr)
				}
			}
			if run := b.Try(append([]string{"run", "--name", "none"}, c.args...)...); run.Status != 125 || run.Stderr != out.Stderr {
				t.Errorf("run ends with %d, and says otherwise than create: %s", run.Status, run.Stderr)
			}
			if left := b.Run("ls", "-a", "-q"); left != "" {
				t.Errorf("there is %q", left)
				b.Run("rm", "-f", "none")
			}
		})
	}
}

// TestAMachineThatQEMURefusesSaysWhy, every time: QEMU has ended before its keeper knows.
func TestAMachineThatQEMURefusesSaysWhy(t *testing.T) {
	b := start(t)
	b.Run("create", "--name", "unknown", "--disk-image", file(t, "echo.raw", echoDisk()), "--cpu-model", "i8088")
	for range 5 {
		if out := b.Try("start", "unknown"); out.Status != unable || !strings.Contains(out.Stderr, "unable to find CPU model 'i8088'") {
			t.Errorf("exit status %d: %s", out.Status, out.Stderr)
		}
	}
	b.Run("rm", "unknown")
}

// TestAnImageThatIsWrittenToIsRefused has QEMU's own tool write to it meanwhile.
func TestAnImageThatIsWrittenToIsRefused(t *testing.T) {
	b := start(t)
	raw := file(t, "echo.raw", echoDisk())
	image := filepath.Join(t.TempDir(), "echo.qcow2")
	convert(t, raw, image, "-O", "qcow2")
	writer := exec.Command(tool(t, "qemu-io", "qemu-utils"), "-f", "qcow2", "-c", "write 0 512", "-c", "sleep 600000", image)
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { _ = writer.Process.Kill(); _ = writer.Wait() }
	defer end()
	refused := func(args ...string) {
		t.Helper()
		for bound := time.Now().Add(require.Patience(20 * time.Second)); ; time.Sleep(200 * time.Millisecond) {
			out := b.Try(append([]string{"create", "--name", "shared"}, args...)...)
			if out.Status == conflict && strings.Contains(out.Stderr, image+" is in use") {
				return
			}
			if out.Status == 0 {
				b.Run("rm", "shared") // the tool was not so far
			}
			if time.Now().After(bound) {
				t.Fatalf("%v: %+v", args, out)
			}
		}
	}
	refused("--disk-image", image)
	refused("--disk-image", image, "--import")
	end()
	b.Run("create", "--name", "shared", "--disk-image", image)

	// It is refused at a start as well.
	again := exec.Command(tool(t, "qemu-io", "qemu-utils"), "-f", "qcow2", "-c", "sleep 600000", image)
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Process.Kill(); _ = again.Wait() }()
	for bound := time.Now().Add(require.Patience(20 * time.Second)); ; time.Sleep(200 * time.Millisecond) {
		out := b.Try("start", "shared")
		if out.Status == conflict && strings.Contains(out.Stderr, "is in use") {
			break
		}
		if out.Status == 0 {
			b.Run("kill", "shared")
		}
		if time.Now().After(bound) {
			t.Fatalf("a start: %+v", out)
		}
	}
	b.Run("rm", "shared")
}
