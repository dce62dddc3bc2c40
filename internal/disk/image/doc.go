// Package image reads disk images that others made: what a file is, how large the
// disk in it is, and what other files it leads to (Open); and it makes what strata
// runs them by: an overlay that leaves them as they are (Tool.Overlay), or a copy
// (Tool.Import).
//
// # Words
//
//	layer   an image file, and further ones that belong to the same disk
//	chain   layers, the first of which lies over the second, and so on
//	part    a stretch of the disk that is in one file: most layers have one
//	overlay a qcow2 image of what has changed since
//
// # Hostile input
//
// Images come from anywhere, and so do the names of other files in them. What is read
// here are headers, in pieces of bounded size, and nothing of them is believed beyond
// what is checked. A file that is named is opened in the folder that the caller
// gives, without a way out of it by links; with none given, it is refused, and so is
// one of strata's own, whose disks other environments write. QEMU is then given each
// file by descriptor, and told to open nothing else (package argv).
//
// What is in the images is for QEMU alone to read: when it runs the machine, and when
// it makes overlays and copies, which happens in a QEMU without a machine, confined as
// those that run one. There is no qemu-img: it opens files by name only, with the
// rights of their owner.
//
// A raw image has no header, and its system can write one into it. So a format is
// detected once, when the image comes in; whoever keeps an image keeps its format.
//
// # What it does not do
//
// It repairs nothing, reads no file system, and follows no images of other machines
// (snapshots, linked clones of VMware and VirtualBox). It does not compress.
package image
