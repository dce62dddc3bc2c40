// Package seccomp compiles the default system-call filter of zones, and a narrower one of
// the host's tools that read hostile files, to classic BPF, in pure Go, and loads it.
//
// The rules are moby's default profile (github.com/moby/profiles/seccomp) with
// its argument rules and its conditions on capabilities, architecture and
// kernel. A profile is compiled once per set of capabilities and kernel and
// then kept; what a process loads is a Filter, plain instructions that can be
// handed to it as bytes.
//
// The program looks at the architecture word first, then walks a binary tree of
// ranges of system-call numbers, so that the cost grows with the logarithm of
// the number of rules. Nothing but the number and the architecture is read on
// the way to an unconditional answer: that lets the kernel (5.11 and later)
// answer from a bitmap and not run the program at all.
//
// Words: a rule allows or refuses some calls; a verdict is what the kernel is
// told to do; a table maps the names of calls to the numbers of one
// architecture.
//
// What differs from libseccomp, on purpose:
//   - The first argument of socket and of personality is compared as 32 bits,
//     because the kernel throws the upper half away. Compared as 64 bits,
//     socket(1<<32|AF_VSOCK) passes the profile's "greater than AF_VSOCK".
//   - A process of an architecture that the profile does not know is killed as
//     a whole, not only its thread.
//
// What it does not do: on 32-bit x86, socket goes through socketcall, whose
// arguments are in memory that no filter can see; the profile allows it, and so
// AF_VSOCK and AF_ALG can be reached from there, as in docker.
//
// Which capabilities to ask with: the bounding set of the process. An app zone
// has docker's fourteen. A system zone runs systemd as root of its own user
// namespace, which mounts, so CAP_SYS_ADMIN must be in the set (it opens mount,
// setns, unshare, clone and clone3 and the new mount calls); besides it systemd
// uses CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_NICE, CAP_SYS_BOOT,
// CAP_SYS_RESOURCE, CAP_SYS_TTY_CONFIG, CAP_SYSLOG, CAP_DAC_READ_SEARCH,
// CAP_IPC_LOCK, CAP_LEASE, CAP_LINUX_IMMUTABLE, CAP_NET_BROADCAST and
// CAP_AUDIT_CONTROL. They count only against what the user namespace owns. Leave out
// CAP_SYS_MODULE, CAP_SYS_RAWIO (its unit tracing.mount fails with it),
// CAP_SYS_TIME, CAP_BPF, CAP_PERFMON, CAP_MAC_ADMIN and CAP_MAC_OVERRIDE: the
// kernel checks those against the host, so they would only widen the filter.
package seccomp

//go:generate go run ./gen -out tables.go
