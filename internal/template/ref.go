package template

import (
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/near"
)

const (
	defaultTag = "latest"
	dockerHub  = "index.docker.io" // go-containerregistry's word for it
	hubLibrary = "library/"
	minPrefix  = 4 // digits of an id that may stand for it
	nearNames  = 3 // how many names are offered where one is missing
)

// maxRef is how much of a malformed name is looked at.
const maxRef = 512

// repository is the grammar of a repository's path, which go-containerregistry
// takes less strictly. Source: distribution/reference, regexp.go.
var repository = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// registryHost is the start of what may stand before the first slash.
var registryHost = regexp.MustCompile(`^[a-zA-Z0-9\[]`)

// parseName reads a template's name and returns it in full: with its tag, and
// without what docker's users leave out (docker.io/library/). Kinds: Invalid.
func parseName(text string) (string, error) {
	ref, err := parseRef(text, false)
	if err != nil {
		return "", err
	}
	return familiar(ref), nil
}

// parseTag is parseName of a name that somebody gives: one with a digest says what a registry
// has under it, so pulling it alone gives that. Kinds: Invalid.
func parseTag(text string) (string, error) {
	full, err := parseName(text)
	if err == nil && strings.Contains(full, "@") {
		return "", fault.Invalidf("%q has a digest, which is given by pulling it", printable(text)).Help("write [registry/]name[:tag]")
	}
	return full, err
}

// asked is the name that somebody gives, in full; none where it is "". Kinds: Invalid.
func asked(name string) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	full, err := parseTag(name)
	if err != nil {
		return nil, err
	}
	return []string{full}, nil
}

// parseRef reads a registry reference. plain allows http.
func parseRef(text string, plain bool) (name.Reference, error) {
	opts := []name.Option{name.WithDefaultTag(defaultTag)}
	if plain {
		opts = append(opts, name.Insecure)
	}
	if len(text) > maxRef {
		text = text[:maxRef] // which is refused: a repository has 255 at most
	}
	ref, err := name.ParseReference(text, opts...)
	if err != nil || !repository.MatchString(ref.Context().RepositoryStr()) || !registryHost.MatchString(ref.Context().RegistryStr()) {
		return nil, fault.Invalidf("%q is not a template's name", printable(text)).
			Help("write [registry/]name[:tag], in lower-case letters, digits, '.', '-', '_' and '/', the name of at least 2 characters")
	}
	return ref, nil
}

func familiar(ref name.Reference) string {
	repo := ref.Context().RepositoryStr()
	if ref.Context().RegistryStr() == dockerHub {
		repo = strings.TrimPrefix(repo, hubLibrary)
	} else {
		repo = ref.Context().RegistryStr() + "/" + repo
	}
	if d, ok := ref.(name.Digest); ok {
		return repo + "@" + d.DigestStr()
	}
	return repo + ":" + ref.Identifier()
}

// find returns the record that ref means, and the name it was found by, "" where
// by id. Under mu.
func (s *Store) find(ref string) (*record, string, error) {
	full, nameErr := parseName(ref)
	if nameErr == nil {
		if id, ok := s.names[full]; ok {
			return s.records[id], full, nil
		}
	}
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) < minPrefix || len(hex) > 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		if nameErr != nil {
			return nil, "", nameErr
		}
		return nil, "", s.missing(ref, full)
	}
	var found *record
	for id, r := range s.records {
		if strings.HasPrefix(id, "sha256:"+hex) {
			if found != nil {
				return nil, "", fault.Invalidf("more than one template's id starts with %s", hex).Help("write more digits: `strata template ls` shows them")
			}
			found = r
		}
	}
	if found == nil {
		return nil, "", s.missing(ref, full)
	}
	return found, "", nil
}

// missing says what to do about a name that no template has.
func (s *Store) missing(ref, full string) error {
	near := s.near(full)
	e := fault.Missingf("there is no template %q", printable(ref))
	switch {
	case len(near) > 0:
		return e.Help("did you mean %s? else `strata template pull %s`; `strata template ls` lists what is here", strings.Join(near, " or "), printable(ref))
	case len(s.names) == 0:
		return e.Help("there are no templates yet: get one with `strata template pull %s` or `strata template build debian:bookworm`", printable(ref))
	}
	return e.Help("get it with `strata template pull %s`; `strata template ls` lists what is here", printable(ref))
}

// near returns the names most like full, the nearest first.
func (s *Store) near(full string) []string {
	repo, _, _ := strings.Cut(full, ":")
	type candidate struct {
		name string
		far  int
	}
	var all []candidate
	for other := range s.names {
		otherRepo, _, _ := strings.Cut(other, ":")
		far := min(near.Distance(full, other), near.Distance(repo, otherRepo))
		if far <= max(2, len(repo)/3) {
			all = append(all, candidate{other, far})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.far != b.far {
			return a.far - b.far
		}
		return strings.Compare(a.name, b.name)
	})
	var names []string
	for _, c := range all[:min(len(all), nearNames)] {
		names = append(names, c.name)
	}
	return names
}
