package api

import "time"

// PriceRequest says what to measure.
type PriceRequest struct {
	Quick    bool     `json:"quick,omitempty" doc:"Less exact, and within a minute."`
	Template string   `json:"template,omitempty" maxLength:"512" doc:"Template of the environments that are measured. Default: busybox."`
	Strata   []string `json:"strata,omitempty" maxItems:"3" enum:"zone,guest,machine" doc:"Only these. Default: all that this strata serves."`
}

// PriceHost is what a price depends on of the host.
type PriceHost struct {
	Kernel      string `json:"kernel"`
	CPU         string `json:"cpu" doc:"The processor's name."`
	CPUs        int    `json:"cpus" doc:"How many processors the host has."`
	QEMU        string `json:"qemu,omitempty" doc:"QEMU's version."`
	Accelerator string `json:"accelerator,omitempty" doc:"kvm: the processor runs guests and machines. tcg: QEMU translates them."`
	Version     string `json:"version" doc:"Which strata this is."`
}

// Price is what the strata cost on this host, as they were measured last.
type Price struct {
	Host   PriceHost      `json:"host" doc:"The host as it is now."`
	Strata []StratumPrice `json:"strata" doc:"Every stratum that this strata serves, shallowest first."`
}

// StratumPrice is what one stratum costs.
type StratumPrice struct {
	Stratum  string        `json:"stratum" enum:"zone,guest,machine"`
	Measured time.Time     `json:"measured,omitzero" doc:"When. Absent: it was not measured."`
	Age      int64         `json:"age,omitempty" doc:"How long ago that is. Unit: seconds."`
	Took     float64       `json:"took,omitempty" doc:"How long measuring took. Unit: seconds."`
	Quick    bool          `json:"quick,omitempty" doc:"Measured in little time: less exact."`
	Template string        `json:"template,omitempty" doc:"The template it was measured with."`
	Host     *PriceHost    `json:"host,omitempty" doc:"The host as it was."`
	Stale    []string      `json:"stale,omitempty" doc:"What changed since: the figures are of another host."`
	LeftOut  string        `json:"left_out,omitempty" doc:"Why it was not measured this time."`
	Line     string        `json:"line" doc:"The price in a line, as a plan has it."`
	Figures  []PriceFigure `json:"figures" doc:"What was measured, and what was not."`
}

// PriceFigure is one thing that was measured, inside and on the bare host in turn.
type PriceFigure struct {
	Name   string       `json:"name"`
	Means  string       `json:"means" doc:"What it is, in words."`
	Unit   string       `json:"unit"`
	More   bool         `json:"more,omitempty" doc:"More is better. Default: less is."`
	Inside *PriceSample `json:"inside,omitempty" doc:"Absent: not measured."`
	Host   *PriceSample `json:"host,omitempty" doc:"The same on the bare host. Absent: the host has no such thing."`
	Times  float64      `json:"times,omitempty" doc:"How many times the host's cost it is: the median of the pairs. 1: the same. 2: twice as slow."`
	Why    string       `json:"why,omitempty" doc:"Why it was not measured."`
}

// PriceSample is several takings of one figure.
type PriceSample struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
	Count  int     `json:"count"`
}
