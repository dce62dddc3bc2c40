// Command bench compares strata with its peers and with the bare host.
//
//	go run ./bench [flags] [NAME...]
//
// Each comparison runs both sides in turn, A B A B …, in one go, and prints
// medians, the spread and the ratio, so that it holds on a machine whose speed
// drifts. A peer that is not installed is said to be missing; nothing is
// estimated. It needs root and the programs of bin/ (make build), works in a
// private root of its own, and cleans up after itself. "guest" stands for all of guest-*, "machine"
// likewise.
//
// The comparisons:
//
//	start     strata run --rm busybox true  ~  runc run, podman run: whole commands
//	parallel  100 of these at once          ~  100 runc run at once
//	idle      what 500 idle environments take; strata ls among them
//	observe   what it costs to watch these: the daemon alone, and with a top
//	disk      writing, reading, fsync inside a zone  ~  the same on the host's file system
//	guest-start      strata run --rm --stratum guest ~  a bare QEMU made for just that; warm ~ cold
//	guest-memory     what ten idle guests take
//	guest-disk       a private disk ~ that of the bare QEMU
//	guest-exec       strata exec in a guest ~ in a zone
//	machine-start    strata run --rm --stratum machine ~  a bare QEMU with the same board and disks, to
//	                 the first program's word, and whole by wall and by processor time
//	machine-disk     its private disk ~ that of the bare machine
//	machine-suspend  suspending a machine of 512 MiB and going on in a fresh process ~ writing
//	          and reading a file as long
//	network   TCP host → zone and back      ~  a plain veth into a plain namespace
package main
