// Package planner chooses the stratum of an environment: the shallowest that
// serves its needs, with the reason in words. It is pure: what the host can do and
// what strata cost are handed to it.
//
// Needs are the user's, the template's (label strata.need) and those that an option
// implies. The vocabulary stands in one table, which the reference is made from
// too. A need that nothing here serves is refused by name, with a remedy; no need
// is ever dropped in silence. By force a stratum named by the user is taken all the
// same, and what it does not serve is part of the answer.
package planner
