package api

// Labels that hold what an environment file says and a Spec has no field for.
const (
	ProjectLabel   = "strata.project"
	DependsOnLabel = "strata.depends-on"
	StartLabel     = "strata.start"
)

// FileLabels are all of these: who has them was made by a file.
func FileLabels() []string { return []string{ProjectLabel, DependsOnLabel, StartLabel} }
