// Package sandbox says what programs of an environment may do and see, at every
// depth: capabilities, device nodes, and the files of proc that are hidden or
// protected. It is data; the agents apply it, and the drivers hand it to them.
package sandbox
