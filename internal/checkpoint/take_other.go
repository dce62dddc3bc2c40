//go:build !amd64

package checkpoint

import "github.com/strata-project/strata/internal/fault"

// Possible tells whether there are images for this processor.
const Possible = false

// Take is for x86-64. Kinds: Unable.
func Take(pid int, _ Options) (*Image, error) {
	return nil, fault.Unablef("write down process %d: it is for x86-64 only", pid)
}
