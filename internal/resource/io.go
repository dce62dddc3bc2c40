package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// IO limits what a group does with disks. The zero value limits nothing.
type IO struct {
	Weight            int       // share of contended disk time, 1 to 10000; 0: 100
	Read, Write       unit.Size // bytes a second; 0: no limit
	ReadOps, WriteOps int64     // operations a second; 0: no limit
	Disks             []string  // what Read to WriteOps hold for, each as Disk names it
}

// Limited tells whether l has any rate.
func (l IO) Limited() bool { return l.Read|l.Write != 0 || l.ReadOps|l.WriteOps != 0 }

func (l IO) check() error {
	var errs []error
	if l.Weight != 0 && (l.Weight < minWeight || l.Weight > maxWeight) {
		errs = append(errs, fault.Invalidf("a weight of %d is out of range", l.Weight).At("resources.io_weight").Help("write %d to %d, the default is %d", minWeight, maxWeight, defaultWeight))
	}
	for field, n := range map[string]int64{"io_read": int64(l.Read), "io_write": int64(l.Write), "io_read_ops": l.ReadOps, "io_write_ops": l.WriteOps} {
		if n < 0 {
			errs = append(errs, fault.Invalidf("a rate of %d is not possible", n).At("resources."+field))
		}
	}
	return fault.Join(errs...)
}

// Disk returns the whole disk that the file or folder at path lies on, as control
// groups name it ("8:0"). Kinds: Unable where no single disk is below it.
func Disk(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fault.Wrap(err, "find the disk of %s", path)
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	folder, err := filepath.EvalSymlinks("/sys/dev/block/" + dev)
	if err != nil {
		return "", fault.Unablef("%s is on no disk of its own (its device is %s), so that reads and writes cannot be limited", path, dev).
			Help("keep strata's state on a file system with one disk, such as ext4 or xfs")
	}
	if exists(folder + "/partition") { // rates are the whole disk's
		text, err := os.ReadFile(filepath.Join(filepath.Dir(folder), "dev"))
		if err != nil {
			return "", fault.Wrap(err, "find the disk of %s", path)
		}
		dev = strings.TrimSpace(string(text))
	}
	return dev, nil
}

// Disks are the disks of several paths, each once. Where some have none it returns
// the others, and why.
func Disks(paths []string) ([]string, error) {
	var found []string
	var errs []error
	for _, path := range paths {
		disk, err := Disk(path)
		errs = append(errs, err)
		if err == nil && !slices.Contains(found, disk) {
			found = append(found, disk)
		}
	}
	return found, fault.Join(errs...)
}

// setIO writes what of l differs from a group without any limit, or all.
func (c *change) setIO(l IO) error {
	if c.fresh && !l.Limited() && l.Weight == 0 {
		return nil
	}
	v2 := c.dir("io") != ""
	dir := c.dir("io")
	if !v2 {
		dir = c.dir("blkio")
	}
	if dir == "" {
		if !l.Limited() && l.Weight == 0 {
			return nil
		}
		return fault.Unablef("this host has no controller for disks (io, or blkio on cgroup v1)").At(l.field())
	}
	if err := c.ioWeight(filepath.Dir(dir), v2, l.Weight); err != nil {
		return err
	}
	if l.Limited() && len(l.Disks) == 0 {
		return fault.Unablef("it is not known on which disk it reads and writes, so that neither can be limited").At(l.field())
	}
	rates := v1Rates
	if v2 {
		rates = v2Rates
	}
	for _, disk := range l.Disks {
		none := rates(disk, IO{})
		for i, s := range rates(disk, l) {
			if c.fresh && !l.Limited() {
				continue
			}
			err := c.putRate(dir, disk, s, none[i].value)
			switch {
			case err == nil, !l.Limited() && errors.Is(err, unix.ENOENT):
			case errors.Is(err, unix.ENOENT):
				return fault.Unablef("this host's kernel cannot limit reads and writes: it has no %s", s.file).At(l.field()).Help("it needs CONFIG_BLK_DEV_THROTTLING")
			case errors.Is(err, unix.ENODEV):
				return fault.Unablef("the kernel does not limit reads and writes of disk %s", disk).At(l.field())
			default:
				return refused(err, l.field(), "limit reads and writes")
			}
		}
	}
	return nil
}

// putRate writes one disk's rate, besides those of others in the same file. none is
// what stands for no rate.
func (c *change) putRate(dir, disk string, s setting, none string) error {
	all, err := get(dir, s.file)
	if err != nil {
		return err
	}
	before := none
	for line := range strings.Lines(all) {
		if strings.HasPrefix(line, disk+" ") {
			before = strings.TrimSpace(line)
		}
	}
	return c.putOver(dir, s.file, s.value, before)
}

// field is the first setting that l has, for faults.
func (l IO) field() string {
	switch {
	case l.Read != 0:
		return "resources.io_read"
	case l.Write != 0:
		return "resources.io_write"
	case l.ReadOps != 0:
		return "resources.io_read_ops"
	case l.WriteOps != 0:
		return "resources.io_write_ops"
	}
	return "resources.io_weight"
}

// weightFiles are where the weight goes: the first that is there, for the kernel
// shows only those of a disk scheduler that it has loaded. All have 100 as their
// default. Source: Documentation/admin-guide/cgroup-v2.rst, io.weight;
// Documentation/block/bfq-iosched.rst, section 4.
var (
	weightFilesV2 = []string{"io.weight", "io.bfq.weight"}
	weightFilesV1 = []string{"blkio.weight", "blkio.bfq.weight"}
)

// maxBFQ is the largest weight of the schedulers that are not io.weight's.
// Source: Documentation/block/bfq-iosched.rst, "weight".
const maxBFQ = 1000

func (c *change) ioWeight(dir string, v2 bool, weight int) error {
	files, value := weightFilesV1, weight
	if v2 {
		files = weightFilesV2
	}
	if value == 0 {
		value = defaultWeight
	}
	for _, file := range files {
		if !exists(dir + "/" + file) {
			continue
		}
		if file != "io.weight" {
			value = min(value, maxBFQ)
		}
		text, err := get(dir, file)
		if err == nil {
			first, _, _ := strings.Cut(text, "\n") // "100" or "default 100", then disks' own
			err = c.putOver(dir, file, strconv.Itoa(value), strings.TrimPrefix(first, "default "))
		}
		return refused(err, "resources.io_weight", "set %s to %d", file, value)
	}
	if weight == 0 {
		return nil
	}
	return fault.Unablef("this host's disks have no scheduler that knows weights: neither %s is there", strings.Join(files, " nor ")).
		At("resources.io_weight").Help("choose bfq: echo bfq >/sys/block/DISK/queue/scheduler; or limit bytes with --io-read and --io-write")
}

// v2Rates and v1Rates are the writes for one disk; none is "max", or 0 on v1.
// Source: Documentation/admin-guide/cgroup-v2.rst, io.max;
// Documentation/admin-guide/cgroup-v1/blkio-controller.rst, "Throttling/Upper limit policy files".
func v2Rates(disk string, l IO) []setting {
	rate := func(n int64) string { return count(n, "max") }
	return []setting{{"io", "io.max", fmt.Sprintf("%s rbps=%s wbps=%s riops=%s wiops=%s", disk, rate(int64(l.Read)), rate(int64(l.Write)), rate(l.ReadOps), rate(l.WriteOps))}}
}

func v1Rates(disk string, l IO) []setting {
	line := func(file string, n int64) setting {
		return setting{"blkio", "blkio.throttle." + file, disk + " " + strconv.FormatInt(n, 10)}
	}
	return []setting{
		line("read_bps_device", int64(l.Read)), line("write_bps_device", int64(l.Write)),
		line("read_iops_device", l.ReadOps), line("write_iops_device", l.WriteOps),
	}
}
