//go:build !amd64

package qemu

// TSC returns 0: only x86 has a time stamp counter that a kernel has to be told of.
func TSC() int { return 0 }
