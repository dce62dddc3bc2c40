package api

import "time"

// Kernel is a kernel that guests and machines boot.
type Kernel struct {
	ID      string    `json:"id" doc:"Digest of its content."`
	Name    string    `json:"name"`
	Release string    `json:"release" doc:"As uname -r says it inside."`
	Arch    string    `json:"arch"`
	Source  string    `json:"source" doc:"As it was asked for, or the name of its file."`
	Origin  string    `json:"origin" doc:"Where it was found: a package, or a path."`
	Size    int64     `json:"size" doc:"Bytes that it takes on this host, uncompressed, with its modules."`
	Added   time.Time `json:"added"`
	Modules int       `json:"modules" doc:"How many modules are kept of it."`
	Default bool      `json:"default" doc:"It is taken where none is named."`
	UsedBy  []string  `json:"used_by,omitempty" doc:"Names of environments that boot it."`
}

// KernelRequest asks for a kernel.
type KernelRequest struct {
	Source string `json:"source" minLength:"1" maxLength:"512" doc:"debian: the distribution's newest cloud kernel. debian:PACKAGE: that package's. host: the newest of the host's /boot. host:RELEASE: that one. template:REF: the newest that a template carries."`
	Name   string `json:"name,omitempty" maxLength:"128" doc:"Default: its release."`
	For    string `json:"for,omitempty" enum:"guest,machine" doc:"With first: the stratum that is to boot it. Default: guest."`
	First  bool   `json:"first,omitempty" doc:"Only where there is no kernel yet that the stratum can boot: else the answer is the one that it boots. Of several such requests at once, one fetches."`
}
