// Package envfile reads, checks, plans and writes environment files: one or many
// environments as they should be, in YAML, for `strata apply` and
// `strata export-config`.
//
// # Where the fields come from
//
// An environment of a file has every field of api.Spec, by reflection over its json
// tags with '-' for '_', and two that only files have: depends-on and start. Bounds
// (enum, maxLength, maxItems, minimum, maximum) are the API's own tags. So a field that
// the API gets, files and their JSON schema have at once, and a test proves it.
//
// # What is kept of a file
//
// Nothing but environments, with their specs, and three labels on each that a file with
// a project made: strata.project, and where they are set strata.depends-on and
// strata.start. So export-config gives back all of a file's meaning, and --prune knows
// what is the project's.
//
// # What changes how
//
// New compares a file with environments that exist. What api.Update has is changed
// live (a disk that runs: by a stop and a start), and another stratum is moved to, with the
// disk; for everything else an environment has to be replaced, which loses its private
// disk and so is done only where it is asked for.
//
// # Where it is carried out
//
// In the CLI, over the API that everybody has: there is nothing in applying a file that
// a client may not do, the file and the folder that its paths are relative to are the
// client's, and questions and progress go to a person. A daemon that ends in the middle
// leaves environments that the next apply compares and completes; there is no state of
// an application to recover.
//
// # Hostile input
//
// A file is bounded in bytes, environments and items; every node that is read counts,
// also through aliases, so that aliases of aliases end in a refusal. Reading follows the
// types, which are not recursive.
//
// The package is pure: it reads no file and asks no daemon.
package envfile
