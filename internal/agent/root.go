package agent

import "github.com/strata-project/strata/internal/agent/root"

func wrap(err error, doing string) error { return root.Wrap(err, doing) }
