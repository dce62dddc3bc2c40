package environment

import (
	"encoding/json"
	"time"

	"github.com/strata-project/strata/api"
)

// Version is the form of a Record. It is raised when a field changes its
// meaning; package store refuses what is newer and upgrades what is older.
const Version = 1

// Phase is what a daemon that finds a record should make true.
type Phase string

// The phases.
const (
	PhaseCreated   Phase = "created"   // nothing: it was never started
	PhaseStarting  Phase = "starting"  // a start was under way: adopt it, or call it failed
	PhaseRunning   Phase = "running"   // it runs: adopt it, or call it crashed
	PhaseStopping  Phase = "stopping"  // the user asked for its end: end it
	PhaseStopped   Phase = "stopped"   // nothing
	PhaseWaiting   Phase = "waiting"   // the restart policy starts it again
	PhaseSuspended Phase = "suspended" // nothing: a start goes on with what is written down
	PhaseCopying   Phase = "copying"   // created, and a run that only copies files was made: end it
)

// Record is all that is kept of one environment.
type Record struct {
	Version    int         `json:"version"`
	ID         string      `json:"id"`
	Name       string      `json:"name"`
	Spec       api.Spec    `json:"spec"` // as asked, but for later updates
	TemplateID string      `json:"template_id"`
	Stratum    string      `json:"stratum"`
	Reason     string      `json:"reason"`
	Choice     *api.Choice `json:"choice,omitempty"` // nil in records of before it was kept
	Resolved   Resolved    `json:"resolved"`
	IDBase     uint32      `json:"id_base"`
	Address    api.Address `json:"address,omitzero"`
	Created    time.Time   `json:"created"`
	Notes      []string    `json:"notes,omitempty"`
	Bases      []string    `json:"bases,omitempty"`      // what a foreign system's disk lies over, the highest first
	Written    bool        `json:"written,omitempty"`    // it was started since its disk was last frozen
	Devices    []Device    `json:"devices,omitempty"`    // attached to a machine
	MachineID  string      `json:"machine_id,omitempty"` // of a clone of kind system; "": its disk's own

	Phase       Phase     `json:"phase"`
	UserStopped bool      `json:"user_stopped,omitempty"`
	Restarting  bool      `json:"restarting,omitempty"` // a start is to follow the end of its run
	Started     time.Time `json:"started,omitzero"`
	Exit        *api.Exit `json:"exit,omitempty"`
	OOM         *api.OOM  `json:"oom,omitempty"` // the last kill that was told
	Restarts    int       `json:"restarts,omitempty"`
	LastFailure string    `json:"last_failure,omitempty"`

	Moving *Moving    `json:"moving,omitempty"` // set while it is between two strata
	Moves  []api.Move `json:"moves,omitempty"`  // the last of them, the oldest first
}

// Encode writes the record as it is kept.
func (r Record) Encode() ([]byte, error) {
	r.Version = Version
	return json.Marshal(r)
}
