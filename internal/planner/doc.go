// Package planner chooses the stratum of an environment: the shallowest that
// serves its needs, with the reason in words. It is pure.
//
// What each stratum serves stands in one table. A stratum that this build has no
// driver for is never chosen in silence for want of a deeper one: a need that
// none of the available ones serves is refused by name.
package planner
