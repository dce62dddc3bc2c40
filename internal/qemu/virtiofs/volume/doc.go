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
// # What differs from virtiofsd
//
// It goes by names where virtiofsd goes by open files: where somebody else on the host moves a
// folder, what is open in it from inside is missing until it is looked up again. A folder's default ACL
// does not spare new files their maker's umask. A file that has lost all its names cannot get a new one.
package volume
