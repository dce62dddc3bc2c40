// Package unpack writes the tar of one image layer into a folder, as overlayfs
// wants a layer to be.
//
// A tar is hostile. Every path of it is resolved component by component beneath
// the folder, as if that folder were the root of all: an absolute name or link
// starts there and ".." at the top stays there. What is resolved is then opened
// by openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, and the entry made
// relative to that descriptor without following its last component; so that even
// a fault in the resolving cannot lead outside. Names with a ".." component are
// refused outright: no honest writer makes them.
//
// Words:
//
//	entry     one header of the tar with its data
//	implied   a folder that no entry named but that an entry lies in; it is made
//	          as root's, 0755 (/tmp and its like 1777, /root 0700), 1970. It hides
//	          what owner and mode the folder has in a layer below: docker's layers
//	          name every folder on the way, and other builders should.
//	whiteout  ".wh.x": x of the layers below is gone; becomes a character device 0:0
//	opaque    ".wh..wh..opq": all of a folder of the layers below is gone; becomes
//	          the attribute trusted.overlay.opaque
//
// Kept: contents, hard links, symbolic links, devices, fifos, numeric owners,
// modes with setuid, setgid and sticky, times to the nanosecond, and the
// attributes user.*, security.capability and, where the host's file system has
// them, the POSIX ACLs. Other attributes
// are dropped (trusted.* would let an image speak to overlayfs; labels of a
// security module mean nothing on another host) and counted. Sockets cannot be
// in a tar.
//
// A whiteout hides only what lies below: where the same layer has the name too,
// what it has stays, and a folder of that name becomes opaque.
//
// Bounds are in Limits. The package needs root (owners, device nodes, trusted.*).
// It leaves a half-written folder where it fails: its caller removes it. Nobody
// else may write into that folder meanwhile.
package unpack
