package envfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// dependencies checks that each is there and that none comes before itself.
func (r *reader) dependencies(f *File, names map[string]int) {
	bad := false
	for i, e := range f.Environments {
		for j, d := range e.DependsOn {
			path := fmt.Sprintf("environments[%d].depends-on[%d]", i, j)
			target, known := names[d.Name]
			switch {
			case !known:
				note := r.wrong(path, "%s depends on %s, which is not in this file", e.Name, clip(d.Name))
				if near := nearest(d.Name, slices.Sorted(maps.Keys(names))); len(near) > 0 {
					note.Help("nearest: %s", strings.Join(near, ", "))
				}
				bad = true
			case slices.ContainsFunc(e.DependsOn[:j], func(o Dependency) bool { return o.Name == d.Name }):
				r.wrong(path, "%s depends on %s twice", e.Name, d.Name)
			case f.Environments[target].Start == Never:
				r.wrong(path, "%s depends on %s, which is never started", e.Name, d.Name).Help("leave start: never out of %s", d.Name)
			case d.Until == Ended && f.Environments[target].Start != Once:
				r.wrong(path, "%s waits for the end of %s, which is started anew by every apply", e.Name, d.Name).Help("write start: once at %s", d.Name)
			}
		}
	}
	if bad {
		return
	}
	if circle := circle(f.Environments); circle != nil {
		path := fmt.Sprintf("environments[%d].depends-on", names[circle[0]])
		r.wrong(path, "these wait for one another: %s", strings.Join(append(circle, circle[0]), " -> ")).Help("leave one of the dependencies out")
	}
}

// circle returns names that depend on one another in turn, nil where there are none.
func circle(entries []Entry) []string {
	done := map[string]bool{}
	for _, e := range Order(entries) {
		done[e.Name] = true
	}
	left := map[string]Entry{}
	for _, e := range entries {
		if !done[e.Name] {
			left[e.Name] = e
		}
	}
	if len(left) == 0 {
		return nil
	}
	// Whoever is left waits for another that is left: follow until one comes again.
	var path []string
	for name := slices.Sorted(maps.Keys(left))[0]; ; {
		if i := slices.Index(path, name); i >= 0 {
			return path[i:]
		}
		path = append(path, name)
		for _, d := range left[name].DependsOn {
			if _, waits := left[d.Name]; waits {
				name = d.Name
				break
			}
		}
	}
}

// Order returns entries so that each comes after those it depends on, and else as they
// stand. Those that wait for one another in a circle are left out.
func Order(entries []Entry) []Entry {
	out := make([]Entry, 0, len(entries))
	done := map[string]bool{}
	for more := true; more; {
		more = false
		for _, e := range entries {
			ready := !slices.ContainsFunc(e.DependsOn, func(d Dependency) bool { return !done[d.Name] })
			if !done[e.Name] && ready {
				out, done[e.Name], more = append(out, e), true, true
			}
		}
	}
	return out
}

// dependsText and dependsIn write and read the label that holds dependencies.
func dependsText(all []Dependency) string {
	words := make([]string, len(all))
	for i, d := range all {
		words[i] = d.Name
		if d.Until != "" && d.Until != Ready {
			words[i] += ":" + d.Until
		}
	}
	return strings.Join(words, ",")
}

func dependsIn(text string) []Dependency {
	var all []Dependency
	for word := range strings.SplitSeq(text, ",") {
		if name, until, _ := strings.Cut(word, ":"); name != "" {
			all = append(all, Dependency{Name: name, Until: until})
		}
	}
	return all
}
