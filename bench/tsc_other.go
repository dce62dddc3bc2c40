//go:build !amd64

package main

// tsc is not known here.
func tsc() int { return 0 }
