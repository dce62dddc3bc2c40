// Package version says which strata this is.
package version

// Version is set by the linker at `make build`; it is git's description of the commit.
var Version = "unknown"
