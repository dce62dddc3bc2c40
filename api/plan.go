package api

// Need is a reason to virtualize, as strata knows it.
type Need struct {
	Name    string `json:"name"`
	Means   string `json:"means" doc:"What it means, in the user's words."`
	Stratum string `json:"stratum" enum:"zone,guest,machine" doc:"The shallowest stratum that serves it."`
	Deepest string `json:"deepest,omitempty" doc:"The deepest stratum that still serves it. Default: any."`
	Takes   string `json:"takes,omitempty" doc:"What it also takes of the host."`
	Without string `json:"without,omitempty" doc:"What an environment with it cannot have."`
	Why     string `json:"why" doc:"What the stratum has that serves it."`
	Source  string `json:"source" doc:"The document that it is known from."`
	Later   bool   `json:"later,omitempty" doc:"No stratum of this version serves it: asking for it is refused."`
}

// Choice is a stratum, and why it is that one.
type Choice struct {
	Stratum string   `json:"stratum" enum:"zone,guest,machine"`
	Reason  string   `json:"reason"`
	Need    string   `json:"need,omitempty" doc:"The need that decided."`
	Needs   []Wanted `json:"needs" doc:"All needs that were looked at."`
	Others  []Depth  `json:"others" doc:"The other strata, shallowest first."`
	Price   string   `json:"price" doc:"What the stratum costs on this host, or that it was not measured."`
	Unmet   []string `json:"unmet,omitempty" doc:"Needs that are not served, by force."`
}

// Wanted is a need, and who has it.
type Wanted struct {
	Need    string `json:"need"`
	From    string `json:"from" doc:"asked, template, or the option that implies it."`
	Stratum string `json:"stratum" doc:"The shallowest stratum that serves it."`
}

// Depth is what another stratum would have meant.
type Depth struct {
	Stratum string `json:"stratum"`
	Deeper  bool   `json:"deeper" doc:"It is deeper than the chosen one."`
	Lacks   string `json:"lacks,omitempty" doc:"What it lacks, where it is shallower."`
	Adds    string `json:"adds,omitempty" doc:"What it would add, where it is deeper."`
	Served  bool   `json:"served" doc:"This strata has it."`
	Price   string `json:"price"`
}

// Plan is what making and starting an environment would do.
type Plan struct {
	Choice   Choice   `json:"choice"`
	Template string   `json:"template"`
	Kind     string   `json:"kind"`
	Command  []string `json:"command"`
	Kernel   string   `json:"kernel" doc:"The kernel that it would run on."`
	Fetch    bool     `json:"fetch,omitempty" doc:"That kernel is not here, and would be fetched first."`
	Memory   string   `json:"memory"`
	CPUs     string   `json:"cpus"`
	PIDs     string   `json:"pids"`
	Disk     string   `json:"disk"`
	Network  string   `json:"network"`
	Devices  []string `json:"devices"`
	Starts   []string `json:"starts" doc:"Programs that would be started on the host."`
	Mounts   []string `json:"mounts" doc:"What would be mounted inside."`
	Notes    []string `json:"notes,omitempty"`

	Differences []Difference `json:"differences" doc:"Where the contract is kept otherwise at this stratum."`
}
