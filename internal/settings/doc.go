// Package settings is the one table of what an environment's resources are: how
// each is called (flag, key of `strata set`, field on the wire), what it means,
// how it is written, and at which stratum a change of it holds at once.
//
// Flags, keys, completion, the merging of an update, the refusal of what a
// stratum cannot do and docs/reference/resources.md all come from the table.
//
// It checks no bounds (package environment does) and applies nothing to the
// kernel (package resource and the drivers do).
package settings
