// Package stratum defines what every depth of virtualization offers, and the
// words for it.
//
// A Driver starts a Plan and gives a Live: one run of one environment. A Plan is
// a value: all that the run needs, resolved, so that it can be printed and
// tested without privilege. A Live ends when its keeper says so; it reports
// facts and never sets an environment's state.
//
// What every stratum can do is in Driver and Live. What only some can do is an
// optional interface (Pauser, Limiter), and Capabilities says so beforehand; a
// missing capability is refused by name.
//
// The contract of both is package drivertest, which every driver runs.
//
// Strata never import one another; mechanisms (disk, network, resource, mount,
// keeper, agent) never import this package.
package stratum
