package kernel

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// Kernel is one kernel that is kept. It is a value: it stays as it was when the
// store gave it.
type Kernel struct {
	ID      string    // "sha256:…" of vmlinux, modules and what is built in
	Name    string    // unique in its store
	Release string    // as uname -r says it inside
	Arch    string    // Go's word
	Source  string    // as Add was asked: debian, debian:PACKAGE, host, template:REF, or a file's name
	Origin  string    // where it was found, for people: a package, a path
	Size    int64     // bytes of its folder's files
	Added   time.Time // when it came here
	Modules int       // how many are kept of it; 0: all it has is built in
	Default bool      // it is the one that is taken where none is named

	dir   string
	index map[string]module
	built builtin
}

// Dir returns the kernel's folder, which is readable by everybody.
func (k Kernel) Dir() string { return k.dir }

// Vmlinux returns the path of the uncompressed kernel, an ELF file that is
// entered by PVH.
func (k Kernel) Vmlinux() string { return filepath.Join(k.dir, vmlinuxFile) }

// Progress is how far one step is.
type Progress struct {
	Step  string // "find", "download", "read", "import", "unpack"
	Item  string // such as the package
	Done  int64
	Total int64 // 0: not known
}

// Report receives progress. It must not block. nil: nobody listens.
type Report func(Progress)

func (r Report) tell(step, item string, done, total int64) {
	if r != nil {
		r(Progress{Step: step, Item: item, Done: done, Total: total})
	}
}

// module is one module of a kernel, as its record has it.
type module struct {
	Name    string   `json:"name"`
	Size    int64    `json:"size"`
	Digest  string   `json:"digest"`
	Depends []string `json:"depends,omitempty"`
	Before  []string `json:"before,omitempty"`
	Aliases []string `json:"aliases,omitempty"`

	release string // of the kernel that it says it is for; only while it is taken in
}

// builtin says what needs no module.
type builtin struct {
	Names []string `json:"names,omitempty"` // sorted
	// Guessed is set where the kernel came without a list, so that the names are
	// those of drivers that its image mentions.
	Guessed bool `json:"guessed,omitempty"`
}

func (b builtin) has(name string) bool {
	_, ok := slices.BinarySearch(b.Names, name)
	return ok
}

// namePattern is what a kernel may be called.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return fault.Invalidf("%q is no name for a kernel", printable(name)).At("name").Help("use letters, digits and . _ + ~ -, at most 128, a letter or digit first")
	}
	return nil
}

const idPrefix = "sha256:"

// leastPrefix is how many digits of an id name it at least.
const leastPrefix = 4

func isHex(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdef") == "" }

func isID(id string) bool {
	digits, ok := strings.CutPrefix(id, idPrefix)
	return ok && len(digits) == 64 && isHex(digits)
}

func short(id string) string {
	id = strings.TrimPrefix(id, idPrefix)
	return id[:min(12, len(id))]
}

// printable cuts what is quoted of something hostile.
func printable(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
