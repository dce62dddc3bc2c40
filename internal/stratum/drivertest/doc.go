// Package drivertest is the contract of stratum.Driver and stratum.Live as tests.
// Every driver runs it from a test of its own:
//
//	func TestContract(t *testing.T) { drivertest.Run(t, newFixture) }
//
// A case that needs a capability runs only where the driver has it. Cases that a
// stratum keeps in another way (a guest has a kernel of its own, so nothing of
// the host's can be seen there) are the driver's own tests.
//
// The template of all cases is a static busybox with the users and groups of
// Layer, so that a driver's fixture only has to make it reachable.
package drivertest
