package api

import "github.com/strata-project/strata/internal/unit"

// Capacity is what a host can guarantee, and what of it is guaranteed.
type Capacity struct {
	Memory  MemoryCapacity `json:"memory"`
	CPUs    CPUCapacity    `json:"cpus"`
	Held    []Claim        `json:"held" doc:"What runs or is being started, the largest guarantee first."`
	Waiting []Claim        `json:"waiting" doc:"What waits for room, in order."`
}

// MemoryCapacity is in bytes.
type MemoryCapacity struct {
	Host        unit.Size `json:"host" doc:"What the host has."`
	Reserve     unit.Size `json:"reserve" doc:"Of it the host's own."`
	ReserveFrom string    `json:"reserve_from,omitempty" doc:"Where the reserve comes from, in words."`
	Capacity    unit.Size `json:"capacity" doc:"What can be guaranteed: host less reserve."`
	Guaranteed  unit.Size `json:"guaranteed"`
	Overhead    unit.Size `json:"overhead" doc:"What strata itself spends for what runs."`
	Free        unit.Size `json:"free" doc:"What can still be guaranteed."`
	Overcommit  float64   `json:"overcommit,omitempty" doc:"By which factor limits together may pass the capacity. 0: no bound."`
}

// CPUCapacity is in processors.
type CPUCapacity struct {
	Host        unit.CPUs `json:"host"`
	Reserve     unit.CPUs `json:"reserve"`
	ReserveFrom string    `json:"reserve_from,omitempty" doc:"Where the reserve comes from, in words."`
	Capacity    unit.CPUs `json:"capacity"`
	Guaranteed  unit.CPUs `json:"guaranteed"`
	Free        unit.CPUs `json:"free"`
	Overcommit  float64   `json:"overcommit,omitempty"`
}

// Claim is what one environment takes of the capacity.
type Claim struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Stratum  string    `json:"stratum"`
	Memory   unit.Size `json:"memory" doc:"Guaranteed bytes."`
	CPUs     unit.CPUs `json:"cpus" doc:"Guaranteed processors."`
	Overhead unit.Size `json:"overhead" doc:"Bytes that strata itself spends for it."`
}
