package network

import "context"

// Finding is one thing that Check looked at.
type Finding struct {
	Name   string
	OK     bool
	Needed bool   // zones do not work without it
	Detail string // what was found
	How    string // how it was probed
	Lost   string // what is lost without it
	Fix    string // what the admin can do
}

// Check looks at what this host offers to networks. It changes nothing on it.
func (h *Host) Check(ctx context.Context) []Finding { return nil }
