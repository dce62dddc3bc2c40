// Package volume is strata's own server of a volume, cmd/strata-volume, for hosts that
// have no virtiofsd.
//
// The protocols are others': FUSE is go-fuse's, with its file system that shows a folder; the
// queues are package vhost's. What is here is what a volume of strata's is: the owners of what
// is made, no devices, no way out of the folder.
//
// It is started by package serve, as virtiofsd is, and has no more rights than that. It makes the
// volume its root, so that no name and no link leads elsewhere, and keeps only the capabilities
// for owners and modes of files, and the system calls of a program that works on files.
//
// What no machine's kernel asks for is refused before go-fuse relies on it (guard): names that are
// paths, locks, a file system's own requests. Where go-fuse panics nonetheless, this program
// ends, and with it the machine, as where virtiofsd ends.
//
// # What differs from virtiofsd
//
// It goes by names where virtiofsd goes by open files:
//
//   - Where somebody else on the host moves a folder, what is in it is missing until it is looked up
//     again; where he puts another file in a file's place, a new length set by name is that one's.
//   - Of a file or folder that has lost all its names, extended attributes are missing, and a folder's own.
//
// What is mounted below has the volume's device number, so that `find -xdev` goes on into it. A folder's
// default ACL does not spare new files their maker's umask. A file `.go-fuse-epoll-hack` in the volume's
// root cannot be used.
package volume
