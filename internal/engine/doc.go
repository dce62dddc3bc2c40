// Package engine joins templates, disks, networks, drivers and records into what
// the API offers.
package engine
