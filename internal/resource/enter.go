package resource

import (
	"path/filepath"

	"github.com/strata-project/strata/internal/thread"
)

// Run calls start on a thread that has entered the payload's v1 hierarchies, so
// that the process it starts is born in them, and throws the thread away. The v2
// hierarchy is start's to enter, with OpenUnified and CgroupFD; on v2 start runs on
// the calling thread. It returns start's error, or why the thread could not enter.
func (g *Group) Run(start func() error) error { return g.run(g.ThreadFiles(), start) }

// RunKeeper is Run for the keeper, with OpenKeeper.
func (g *Group) RunKeeper(start func() error) error { return g.run(g.tasks(keeperLeaf), start) }

func (g *Group) run(files []string, start func() error) error {
	if len(files) == 0 {
		return start()
	}
	return thread.Spare(func() error {
		for _, file := range files {
			if err := put(filepath.Dir(file), filepath.Base(file), "0"); err != nil {
				return explain(err, "enter control group %s", g.id)
			}
		}
		return start()
	})
}
