package api

import (
	"time"

	"github.com/strata-project/strata/internal/unit"
)

// MoveRequest asks for an environment at another stratum.
type MoveRequest struct {
	Stratum string `json:"stratum" enum:"zone,guest,machine" doc:"Where it is to run."`
	Force   bool   `json:"force,omitempty" doc:"Move it even where the stratum does not serve a need."`
	DryRun  bool   `json:"dry_run,omitempty" doc:"Check all that a move checks, say what it would do, and do nothing."`

	Update *Update `json:"update,omitempty" doc:"With a dry run: what is to be changed before the move, and is judged with it."`
}

// Move is one move of an environment between strata.
type Move struct {
	At       time.Time     `json:"at"`
	From     string        `json:"from" enum:"zone,guest,machine"`
	To       string        `json:"to" enum:"zone,guest,machine"`
	Ran      bool          `json:"ran" doc:"It was running, and so was stopped and started."`
	Forced   bool          `json:"forced,omitempty" doc:"Needs that the new stratum does not serve were passed over."`
	Stop     unit.Duration `json:"stop,omitempty" doc:"How long the end of the old run took."`
	Start    unit.Duration `json:"start,omitempty" doc:"How long the start of the new run took."`
	Downtime unit.Duration `json:"downtime,omitempty" doc:"From the request to end until the main program ran again."`
	Failed   string        `json:"failed,omitempty" doc:"Why it is not at the new stratum: it is back where it was."`
	Settled  bool          `json:"settled,omitempty" doc:"The daemon ended in the middle, and the next one brought it to an end."`
}

// Moved is what a move did, or with dry_run would do.
type Moved struct {
	Move   Move     `json:"move"`
	DryRun bool     `json:"dry_run,omitempty" doc:"Nothing was done."`
	Plan   Plan     `json:"plan" doc:"What the environment has at the new stratum."`
	Notes  []string `json:"notes" doc:"What a move does not keep."`
}

// Difference is a promise of the contract that a stratum does not keep as others do.
type Difference struct {
	Row     string `json:"row" doc:"Name of the row in docs/contract.md."`
	Promise string `json:"promise" doc:"What the row promises."`
	Differs string `json:"differs" doc:"What is otherwise at this stratum."`
}
