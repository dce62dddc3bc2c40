package api

// Policies of giving memory back: while there is nothing to do, and never, as none says.
const (
	ReclaimIdle = "idle"
	ReclaimOff  = "off"
)

// Reclaimed is what a reclaim gave back to the host.
type Reclaimed struct {
	ID          string   `json:"id"`
	Environment string   `json:"environment" doc:"Its name."`
	Stratum     string   `json:"stratum"`
	Before      int64    `json:"before" doc:"Memory that the host held for it, in bytes."`
	After       int64    `json:"after" doc:"Memory that the host holds for it now, in bytes."`
	Freed       int64    `json:"freed" doc:"Bytes that went back to the host; 0 where it took more meanwhile."`
	By          []string `json:"by" doc:"How: balloon, page cache."`
	Kept        string   `json:"kept,omitempty" doc:"Why a part was not tried."`
}
