// Package share holds the tests that what a weight and a guarantee promise is what
// busy programs really get. They take whole processors for seconds, so they are no
// row of the contract, and one that is disturbed looks again for longer.
package share
