// Package imports keeps the direction in which the packages of this module know
// one another. Its table is the drawing of docs/architecture.md, with the reason
// of each line, and its test fails where a package imports what its layer may not,
// or where a new package has no place in the table.
package imports
