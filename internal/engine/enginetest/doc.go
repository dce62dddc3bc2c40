// Package enginetest holds stand-ins for what an engine stands on, so that it and
// what is built on it can be tested without privilege: a driver whose programs are
// scripts of the test, templates, a pool, a network.
//
// A Driver's Host is what outlives a daemon: a second Driver of the same Host
// adopts what the first started, as keepers would be.
package enginetest
