package api

import "time"

// Error is one fault as the wire has it.
type Error struct {
	Kind    string  `json:"kind" enum:"invalid,missing,conflict,unable,busy,denied,full,internal"`
	Message string  `json:"message"`
	Field   string  `json:"field,omitempty" doc:"Which part of the request is at fault."`
	Hint    string  `json:"hint,omitempty" doc:"What to do next."`
	Also    []Error `json:"also,omitempty" doc:"Further faults of the same request."`
}

// OperationHeader names the header with a caller's own id for a long request.
const OperationHeader = "Strata-Operation"

// Event is one thing that happened.
type Event struct {
	Time      time.Time         `json:"time"`
	Type      string            `json:"type" doc:"environment, template, kernel, network or progress."`
	Action    string            `json:"action" doc:"What happened, such as create, start, die, oom, health."`
	ID        string            `json:"id,omitempty" doc:"Of what it happened to."`
	Name      string            `json:"name,omitempty"`
	Detail    map[string]string `json:"detail,omitempty"`
	Operation string            `json:"operation,omitempty" doc:"Id of the long request this belongs to."`
	Progress  *Progress         `json:"progress,omitempty"`
}

// Progress is how far one item of a long request is.
type Progress struct {
	Step  string `json:"step" doc:"Such as download, unpack, build."`
	Item  string `json:"item,omitempty"`
	Done  int64  `json:"done"`
	Total int64  `json:"total,omitempty" doc:"0 where it is not known."`
}

// Template is an immutable recipe that environments are made from.
type Template struct {
	ID      string         `json:"id"`
	Names   []string       `json:"names"`
	Created time.Time      `json:"created"`
	Size    int64          `json:"size" doc:"Bytes that its layers take on this host."`
	OS      string         `json:"os"`
	Arch    string         `json:"arch"`
	Source  string         `json:"source" doc:"Where it came from."`
	Kind    string         `json:"kind" enum:"app,system"`
	Config  TemplateConfig `json:"config"`
	Layers  []Layer        `json:"layers" doc:"Lowest first."`
	UsedBy  []string       `json:"used_by,omitempty" doc:"Names of environments made from it."`
}

// TemplateConfig is what an environment takes from its template by default.
type TemplateConfig struct {
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Command    []string          `json:"command,omitempty"`
	Env        []string          `json:"env,omitempty"`
	WorkDir    string            `json:"workdir,omitempty"`
	User       string            `json:"user,omitempty"`
	StopSignal string            `json:"stop_signal,omitempty"`
	Ports      []string          `json:"ports,omitempty"`
	Volumes    []string          `json:"volumes,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Health     *Health           `json:"health,omitempty"`
}

// Layer is one read-only layer of a template.
type Layer struct {
	DiffID string `json:"diff_id"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// PullRequest asks for a template from a registry.
type PullRequest struct {
	Ref      string `json:"ref" maxLength:"512"`
	Platform string `json:"platform,omitempty" maxLength:"64" doc:"os/arch[/variant]. Default: the host's."`
	Insecure bool   `json:"insecure,omitempty" doc:"Allow plain HTTP."`
	Auth     *Auth  `json:"auth,omitempty" doc:"Default: the daemon's own docker config."`
}

// PushRequest sends a template to a registry.
type PushRequest struct {
	Target   string `json:"target,omitempty" maxLength:"512" doc:"Default: the template's own name."`
	Insecure bool   `json:"insecure,omitempty" doc:"Allow plain HTTP."`
	Auth     *Auth  `json:"auth,omitempty" doc:"Default: the daemon's own docker config."`
}

// Auth is what a registry asks for. The CLI takes it from the caller's docker config.
type Auth struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identity_token,omitempty"`
	RegistryToken string `json:"registry_token,omitempty"`
}

// BuildRequest asks for a template made of a distribution's packages.
type BuildRequest struct {
	Base     string   `json:"base" maxLength:"128" doc:"distribution:release, such as debian:bookworm."`
	Variant  string   `json:"variant,omitempty" enum:"minbase,systemd" doc:"Default: minbase."`
	Packages []string `json:"packages,omitempty" maxItems:"1024"`
	Name     string   `json:"name,omitempty" maxLength:"512" doc:"Default: the base, with the variant."`
	Mirror   string   `json:"mirror,omitempty" maxLength:"512" doc:"Default: what the host's apt uses."`
}

// TagRequest gives a template a further name.
type TagRequest struct {
	Name string `json:"name" maxLength:"512"`
}

// Freed is what a removal gave back.
type Freed struct {
	Removed []string `json:"removed"`
	Bytes   int64    `json:"bytes"`
}

// Network is a bridge that environments meet on.
type Network struct {
	Name     string    `json:"name" maxLength:"63"`
	Isolated bool      `json:"isolated,omitempty" doc:"No way out of it and none in."`
	IPv4     string    `json:"ipv4,omitempty" maxLength:"45" doc:"Subnet. Default: a free one."`
	IPv6     string    `json:"ipv6,omitempty" maxLength:"64" doc:"Subnet. Default: a unique local one."`
	Project  string    `json:"project,omitempty" maxLength:"63" doc:"Project of the environment file that made it; apply --prune goes by it."`
	Bridge   string    `json:"bridge,omitempty" readOnly:"true"`
	Created  time.Time `json:"created,omitzero" readOnly:"true"`
	UsedBy   []string  `json:"used_by,omitempty" readOnly:"true"`
}

// Finding is one thing that `strata host check` looked at.
type Finding struct {
	Group   string `json:"group" doc:"What it is about: process, kernel, programs, network."`
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Unknown bool   `json:"unknown,omitempty" doc:"It was not judged: neither there nor missing."`
	Needed  bool   `json:"needed" doc:"Zones do not work without it."`
	Detail  string `json:"detail,omitempty"`
	How     string `json:"how" doc:"How it was probed."`
	Lost    string `json:"lost,omitempty" doc:"What is lost without it."`
	Fix     string `json:"fix,omitempty"`
}

// Info is what the daemon says of itself.
type Info struct {
	Version      string         `json:"version"`
	APIVersion   string         `json:"api_version"`
	Root         string         `json:"root,omitempty"`
	State        string         `json:"state"`
	Socket       string         `json:"socket"`
	PID          int            `json:"pid"`
	Started      time.Time      `json:"started"`
	Kernel       string         `json:"kernel"`
	Arch         string         `json:"arch"`
	Cgroups      string         `json:"cgroups" enum:"v1,hybrid,v2"`
	Environments map[string]int `json:"environments" doc:"How many are in each state."`
	Templates    int            `json:"templates"`
	Standby      *Standby       `json:"standby,omitempty" doc:"Guests that stand by, and images of such; left out where there are none."`
}

// Standby are machines that were started before it is known for whom. What they hold is
// strata's own.
type Standby struct {
	Machines int   `json:"machines"`
	Images   int   `json:"images" doc:"Machines that were written down, of which guests start as copies."`
	Bytes    int64 `json:"bytes" doc:"Memory that both hold."`
}

// LogLine is one piece of an environment's output.
type LogLine struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream" enum:"stdout,stderr"`
	Data   []byte    `json:"data" doc:"Base64: output may be any bytes."`
}

// WaitResult answers a wait.
type WaitResult struct {
	Exit Exit `json:"exit"`
}

// Stats is what an environment uses now.
type Stats struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Time        time.Time `json:"time"`
	CPUTime     int64     `json:"cpu_time" doc:"Nanoseconds since it started."`
	Memory      int64     `json:"memory"`
	MemoryPeak  int64     `json:"memory_peak"`
	MemoryLimit int64     `json:"memory_limit,omitempty"`
	PIDs        int64     `json:"pids"`
	PIDsLimit   int64     `json:"pids_limit,omitempty"`
	OOMKills    int64     `json:"oom_kills"`
	Missing     string    `json:"missing,omitempty" doc:"Why what is used inside is not known: processor time is all that is told then."`
}
