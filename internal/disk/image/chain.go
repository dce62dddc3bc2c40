package image

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/unit"
)

// maxDepth is how many images may lie over one another.
const maxDepth = 16

// Rules say what an image may be.
type Rules struct {
	Format  Format // "": what it is by its content; Raw: no header is looked for
	Within  string // absolute path of the folder that files which the image names must lie in, not below it; "": it may name none
	Without string // absolute path of a folder that no file may be in, by whatever name; "": there is none
	CD      bool   // it is to be an ISO, else a disk
	// Images are what Chain.Members has told of the chain, which must be the same; nil: it
	// is as its headers say. The QEMU that writes to an image could write that image's header.
	Images []string
}

// Chain is an image that is open, for reading. Close it.
type Chain struct {
	Path   string
	Format Format
	Size   unit.Size // of the disk
	Layers []Layer   // the first is the image itself
	made   []*os.File
}

// Layer is an image, with the files that its disk is in.
type Layer struct {
	Path   string
	Format Format
	Parts  []Part // one after the other they are the disk
}

// Part is a stretch of a disk.
type Part struct {
	File   *os.File
	Format Format    // to QEMU
	Size   unit.Size // of the stretch
	Offset int64     // in the file, of a raw one
	whole  bool      // the stretch is all of the file
}

// Open opens the image at path, which is absolute, and all that it leads to. Kinds: Missing, Invalid where
// it is none or rules forbid it, Denied, Internal.
func Open(path string, rules Rules) (_ *Chain, err error) {
	f, err := open(path, func(path string) (*os.File, error) {
		return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe is no reason to wait
	})
	if err != nil {
		return nil, err
	}
	c := &Chain{Path: path}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	c.Layers = []Layer{{Path: path, Parts: []Part{{File: f}}}}
	if err := apart(f, path, rules); err != nil {
		return nil, err
	}
	want := rules.Format
	for depth := 0; ; depth++ {
		l := &c.Layers[depth]
		info, err := l.detect(want)
		if err == nil {
			err = l.spread(info, rules)
		}
		if err != nil {
			return nil, fault.Wrap(err, "%s", l.Path)
		}
		if depth == 0 {
			c.Format, c.Size = info.Format, info.Size
			if err := fits(info, rules); err != nil {
				return nil, fault.Wrap(err, "%s", path)
			}
		}
		l.Format = info.Format
		if err := rules.same(depth, l, info.Backing.Name); err != nil {
			return nil, fault.Wrap(err, "%s", l.Path)
		}
		if info.Backing.Name == "" {
			return c, nil
		}
		if depth+1 == maxDepth {
			return nil, refused("bring them into one image first: qemu-img convert", "%s: more than %d images lie over one another", path, maxDepth)
		}
		f, at, err := beneath(rules, l.Path, info.Backing.Name)
		if err != nil {
			return nil, fault.Wrap(err, "%s", l.Path)
		}
		c.Layers = append(c.Layers, Layer{Path: at, Parts: []Part{{File: f}}})
		want = info.Backing.Format
	}
}

// Members are the chain's images with their formats, top first, for Rules.Images.
func (c *Chain) Members() (all []string) {
	for _, l := range c.Layers {
		all = append(all, l.member())
	}
	return all
}

func (l *Layer) member() string { return string(l.Format) + " " + l.Path }

// same refuses a chain whose image at a depth is another one than it was, or leads to a
// file that it did not lead to; name is that file's, "" where there is none.
func (r Rules) same(depth int, l *Layer, name string) error {
	if r.Images == nil {
		return nil
	}
	was := append(slices.Clone(r.Images), "") // which is no image
	same := depth < len(r.Images) && was[depth] == l.member()
	if same {
		_, next, _ := strings.Cut(was[depth+1], " ")
		same = next == beside(l.Path, name)
	}
	if !same {
		return refused("detach it, and attach it again if it is to be so", "the image does not lie over what it lay over, which a QEMU that was taken over may have written")
	}
	return nil
}

// beside is where the file is that the image at path names, "" where that names none.
func beside(path, name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(path), name)
}

// Close closes the files.
func (c *Chain) Close() {
	for _, l := range c.Layers {
		for _, p := range l.Parts {
			p.File.Close()
		}
	}
	for _, f := range c.made {
		f.Close()
	}
}

// fits compares what an image is with what it is to be.
func fits(i Info, rules Rules) error {
	if rules.CD && i.Format != ISO {
		return fault.Invalidf("the file is no ISO of a CD or DVD, but a disk image (%s)", i.Format).At("iso").Help("use it as a disk: --disk-image")
	}
	return nil
}

// detect tells what the layer's file is.
func (l *Layer) detect(want Format) (Info, error) {
	f := l.Parts[0].File
	size, err := sizeOf(f)
	if err != nil {
		return Info{}, err
	}
	if want == Raw {
		return readRaw(size)
	}
	i, err := Detect(f, size)
	if err == nil && want != "" && i.Format != want {
		return i, fault.Invalidf("the image is said to be %.16q, and is %s", want, i.Format).At("format").Help("one of %s", words(Formats()))
	}
	return i, err
}

// spread opens the files that the layer's disk is in.
func (l *Layer) spread(i Info, rules Rules) error {
	p := &l.Parts[0]
	p.Format, p.Size, p.whole = i.Format, i.Size, true
	if i.Format == ISO {
		p.Format = Raw
	}
	if len(i.extents) == 0 {
		return nil
	}
	descriptor := p.File
	l.Parts = l.Parts[:0]
	defer descriptor.Close()
	for _, e := range i.extents {
		f, at, err := beneath(rules, l.Path, e.name)
		if err != nil {
			return err
		}
		part := Part{File: f, Format: Raw, Size: unit.Size(e.sectors * sector), Offset: e.offset * sector}
		l.Parts = append(l.Parts, part) // closed with the chain
		size, err := sizeOf(f)
		if err != nil {
			return err
		}
		if e.kind == "FLAT" {
			if part.Offset > size || int64(part.Size) > size-part.Offset {
				return damaged(VMDK, "%s is shorter than the descriptor says", at)
			}
			continue
		}
		l.Parts[len(l.Parts)-1].Format = VMDK
		if own, err := Detect(f, size); err != nil || own.Format != VMDK || len(own.extents) > 0 || own.Size != part.Size {
			return damaged(VMDK, "%s is not the extent that the descriptor says", at)
		}
	}
	return nil
}

// beneath opens a file that the image at path names, which must lie in the folder that the
// rules give. Links that lead out of it are not followed.
func beneath(rules Rules, path, name string) (*os.File, string, error) {
	if err := checkName(name); err != nil {
		return nil, "", err
	}
	within, help := rules.Within, "bring all of it into one image first: qemu-img convert"
	if within == "" {
		return nil, "", refused(help, "the image leads to another file, %q, and is to be all there is", name)
	}
	at := beside(path, name)
	inside, err := filepath.Rel(within, at)
	if err != nil || !filepath.IsLocal(inside) {
		return nil, "", refused(help, "the image leads to %q, which is outside %s", name, within)
	}
	if filepath.Dir(inside) != "." {
		return nil, "", refused(help, "the image leads to %q, which is in a folder below %s", name, within)
	}
	root, err := os.OpenRoot(within)
	if err != nil {
		return nil, "", fault.Internalf("open the folder of images: %w", err)
	}
	defer root.Close()
	f, err := open(at, func(string) (*os.File, error) {
		return root.OpenFile(inside, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	})
	if err == nil {
		if err = apart(f, at, rules); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, "", fault.Wrap(err, "the image leads to %q", name)
	}
	return f, at, nil
}

// apart refuses the file f of an image, opened at path, where it is in the folder that none
// may be in. Links count for nothing: what was opened is what is asked.
func apart(f *os.File, path string, rules Rules) error {
	if rules.Without == "" {
		return nil
	}
	folder, err := filepath.EvalSymlinks(rules.Without)
	if os.IsNotExist(err) {
		return nil
	}
	var real string
	if err == nil {
		real, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	}
	if err != nil {
		return fault.Internalf("find out where the image is: %w", err)
	}
	if inside, err := filepath.Rel(folder, real); err == nil && filepath.IsLocal(inside) {
		return refused("use a copy of it elsewhere", "%s is strata's own", path)
	}
	return nil
}

// open opens an image, of which there is a file or a block device.
func open(path string, by func(string) (*os.File, error)) (*os.File, error) {
	f, err := by(path)
	switch {
	case os.IsNotExist(err):
		return nil, fault.Missingf("there is no image %s", path).At("image")
	case os.IsPermission(err):
		return nil, fault.Deniedf("the image cannot be opened: %w", err).At("image")
	case err != nil && strings.Contains(err.Error(), "escapes"): // os.Root has no value for it
		return nil, refused("use the file that the link leads to", "%s is a link out of its folder", path)
	case err != nil:
		return nil, fault.Invalidf("the image cannot be opened: %w", err).At("image")
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
		err = fault.Invalidf("%s is neither a file nor a block device", path).At("image").Help("give a disk image")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sizeOf is the size of a file or a block device.
func sizeOf(f *os.File) (int64, error) {
	size, err := f.Seek(0, 2)
	if err != nil {
		return 0, fault.Internalf("measure the image: %w", err)
	}
	return size, nil
}

// Images is how QEMU is told of the chain, top first; hand gives it a file, and
// returns the number of QEMU's descriptor. Kinds: Unable where a disk is in several
// files, which QEMU does not put together by descriptor: import it.
func (c *Chain) Images(hand func(*os.File) int) ([]argv.Image, error) {
	var all []argv.Image
	for _, l := range c.Layers {
		if len(l.Parts) != 1 {
			return nil, fault.Unablef("the disk of %s is in %d files, and cannot be used as it is", l.Path, len(l.Parts)).At("image").Help("import it")
		}
		i, err := c.image(l.Parts[0], hand)
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

// image is how QEMU is told of a part.
func (c *Chain) image(p Part, hand func(*os.File) int) (argv.Image, error) {
	size, err := sizeOf(p.File)
	if err != nil {
		return argv.Image{}, err
	}
	i := argv.Image{Format: string(p.Format), FD: hand(p.File), Uneven: size%sector != 0}
	switch {
	case p.whole:
	case p.Format == Raw:
		i.Offset, i.Size = p.Offset, int64(p.Size)
	default:
		// A stretch of a vmdk is no image by itself: it gets a descriptor of its own.
		d, err := describe(int64(p.Size/sector), argv.Set(i.FD))
		if err != nil {
			return i, err
		}
		c.made = append(c.made, d)
		i.Named, i.FD = []int{i.FD}, hand(d)
	}
	return i, nil
}
