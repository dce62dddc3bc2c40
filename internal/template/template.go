package template

import (
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Template is an immutable recipe: what is the same for every environment made of it.
type Template struct {
	ID      string    `json:"id"`      // "sha256:…" of the OCI config, which itself names every layer's DiffID
	Names   []string  `json:"names"`   // sorted, "name:tag" or "name@sha256:…"; none where it was untagged
	Created time.Time `json:"created"` // as the image says, else when it came here
	Size    int64     `json:"size"`    // bytes of its layers' EROFS files
	OS      string    `json:"os"`
	Arch    string    `json:"arch"` // Go's word: amd64, arm64
	Variant string    `json:"variant,omitempty"`
	Config  Config    `json:"config"`
	Layers  []Layer   `json:"layers"` // lowest first, at least one
	Source  string    `json:"source"` // where it came from, for people
}

// Config is what an environment takes from its template by default. Everything
// may be empty.
type Config struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"` // NAME=value
	WorkingDir   string            `json:"working_dir,omitempty"`
	User         string            `json:"user,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"` // "80/tcp", sorted
	Volumes      []string          `json:"volumes,omitempty"`       // paths, sorted
	Labels       map[string]string `json:"labels,omitempty"`
	Health       *Health           `json:"health,omitempty"` // nil: none
	// System is set where the template's own init is the main program: its label
	// strata.kind says system, or, without that label, its program is an init.
	System bool `json:"system,omitempty"`
}

// Health is how the image wants to be probed, with docker's meaning: Test starts
// with NONE, CMD or CMD-SHELL, and zero values mean docker's defaults.
type Health struct {
	Test        []string      `json:"test,omitempty"`
	Interval    time.Duration `json:"interval,omitempty"`
	Timeout     time.Duration `json:"timeout,omitempty"`
	StartPeriod time.Duration `json:"start_period,omitempty"`
	Retries     int           `json:"retries,omitempty"`
}

// Layer is one read-only layer.
type Layer struct {
	DiffID string `json:"diff_id"` // "sha256:…" of the layer's tar, uncompressed
	Digest string `json:"digest"`  // "sha256:…" of the EROFS file
	Size   int64  `json:"size"`    // bytes of the EROFS file
}

// Progress is how far one item of a long piece of work is. Unit: bytes, but for
// the step "build", whose Item is a line of the builder's output.
type Progress struct {
	Step  string // "download", "unpack", "build", "import", "export", "push"
	Item  string // such as the short digest of a layer
	Done  int64
	Total int64 // 0: not known
}

// Report receives progress. It is called from several goroutines at once and
// must not block. nil: nobody listens.
type Report func(Progress)

func (r Report) tell(step, item string, done, total int64) {
	if r != nil {
		r(Progress{Step: step, Item: item, Done: done, Total: total})
	}
}

// KindLabel is the image label that says whether the template's own init is the
// main program: KindSystem or KindApp.
const (
	KindLabel  = "strata.kind"
	KindSystem = "system"
	KindApp    = "app"
)

// isSystem tells whether a configuration starts an init.
func isSystem(c v1.Config) bool {
	switch c.Labels[KindLabel] {
	case KindSystem:
		return true
	case KindApp:
		return false
	}
	argv := append(append([]string(nil), c.Entrypoint...), c.Cmd...)
	if len(argv) == 0 {
		return false
	}
	switch path.Clean(argv[0]) {
	case "/sbin/init", "/usr/sbin/init", "/init", "init":
		return true
	}
	return path.Base(argv[0]) == "systemd" && !strings.HasPrefix(argv[0], "-")
}

// short is how a digest is shown to people.
func short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return digest[:min(12, len(digest))]
}
