package environment

import (
	"slices"

	"github.com/strata-project/strata/api"
)

// MaxMoves bounds the history of moves that a record keeps.
const MaxMoves = 16

// Moving is the journal of a move: what a daemon that finds it brings to an end. While
// it is set the record's Stratum is the depth that has a run of it, or is to have one
// next, and its Phase says nothing.
type Moving struct {
	From Placement `json:"from"`
	To   Placement `json:"to"`
	Move api.Move  `json:"move"` // as far as it has come
	Back bool      `json:"back"` // it could not be started at To, and goes back to From
}

// Placement is where an environment runs, and why.
type Placement struct {
	Stratum string      `json:"stratum"`
	Reason  string      `json:"reason"`
	Choice  *api.Choice `json:"choice,omitempty"`
	Asked   string      `json:"asked,omitempty"` // the spec's stratum
	Force   bool        `json:"force,omitempty"` // the spec's
	Notes   []string    `json:"notes,omitempty"`
}

// Placed returns where the record's environment runs, and why.
func (r Record) Placed() Placement {
	return Placement{r.Stratum, r.Reason, r.Choice, r.Spec.Stratum, r.Spec.Force, r.Notes}
}

// Place has the environment run elsewhere.
func (r *Record) Place(p Placement) {
	r.Stratum, r.Reason, r.Choice, r.Notes = p.Stratum, p.Reason, p.Choice, p.Notes
	r.Spec.Stratum, r.Spec.Force = p.Asked, p.Force
}

// Moved ends a move where the record says that it runs, and keeps it in the history.
// why is the reason why it failed, "" for none.
func (r *Record) Moved(m api.Move, why string) {
	m.Failed = why
	r.Moving = nil
	r.Moves = append(slices.Clone(r.Moves), m)
	r.Moves = r.Moves[max(0, len(r.Moves)-MaxMoves):]
}
