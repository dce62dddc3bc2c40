// Package root builds the inside of an environment: its root out of descriptors of
// trees, with /dev, /proc, /sys, masks, tmpfs, volumes and files. The agents of zones
// and of guests share it, so that both look the same.
//
// The image is hostile: every path in it is resolved with openat2 in the new root,
// and those that strata's own mounts go to must not hold links at all. Masks go by
// the descriptor of the mounted proc, never by a path.
//
// Like all of the agents it imports no formatting, no reflection and no network.
package root
