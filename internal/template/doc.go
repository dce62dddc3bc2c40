// Package template keeps templates: immutable recipes that environments are made
// from, each some read-only EROFS layers and a configuration.
//
// # Words
//
//	id        "sha256:" of the OCI image configuration. That names every layer by
//	          its DiffID, so the id stands for all of the content. An image has the
//	          same id whichever way it came here, and again after export and import.
//	DiffID    "sha256:" of a layer's tar, uncompressed, as OCI has it
//	Digest    of a layer: "sha256:" of its EROFS file
//	blob      a manifest, a configuration or a compressed layer, just as it came
//	name      "repository:tag" as docker's users write it: docker.io/library/ and
//	          :latest may be left out. A name belongs to one template at a time.
//	session   one piece of work that adds to the store
//
// # What is kept
//
//	records/<id>.json      the template; written last, never changed
//	names.json             every name, replaced as a whole
//	layers/<digest>.erofs  what environments mount
//	layers/<diffid>.json   which EROFS file a layer became
//	whole/<digest>.erofs   all layers of a template as one, made when somebody asks for it
//	blobs/<digest>         manifest, configuration, compressed layers
//	download/<digest>      blobs under way; a broken-off one can be resumed for a day
//	work/                  folders being unpacked; emptied by Open
//
// Compressed layers are kept beside the EROFS files, for that is what lets a
// template be pushed or exported with the digests that it came with: neither the
// order nor the headers of the tar, and even less the compressor's choices, can
// be had back from a file system. A minimal Debian takes 63 MB that way beside
// 102 MB of EROFS.
//
// EROFS files are compressed by lz4, which every kernel that has EROFS knows: see
// erofsCompression for what it costs and saves.
//
// # Invariants
//
//   - A file has its final name only when it is whole, its content checked and
//     on disk (temporary file, fsync, rename, fsync of the folder).
//   - A record exists only after all that it names. So what a crash leaves is at
//     worst unnamed, and Open sweeps it.
//   - A name leads to a template that exists: Open passes over one whose record is gone.
//   - Nothing that a session counts on is swept: it pins a path before it looks.
//   - A template is not removed while a Use holds it, and not when the caller's
//     used function names an environment.
//
// # Locks
//
// A work lock by key (a layer's DiffID, a blob's digest) is taken before mu, and
// mu before nothing. A goroutine holds at most one work lock, except Busybox,
// whose own comes first. No lock is held while functions of the caller run.
//
// # What it does not do
//
// It mounts nothing that anybody else sees, knows no environment and no API, and does not guard its
// folder against another process: the daemon is the only one of its root.
package template
