package agent

import "github.com/strata-project/strata/internal/agent/root"

// The kinds of failure, as package fault spells them.
const (
	missing  = root.Missing
	unable   = root.Unable
	invalid  = root.Invalid
	internal = root.Internal
)

func fail(kind, field, message string) error { return root.Fail(kind, field, message) }

func wrap(err error, doing string) error { return root.Wrap(err, doing) }
