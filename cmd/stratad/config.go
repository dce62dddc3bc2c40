package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/stratum/guest"
)

// installedConfig is what the installed strata reads where it is there. A private root
// reads what --config names, and nothing else.
const installedConfig = "/etc/strata/strata.yaml"

// maxConfig bounds a configuration. Unit: bytes.
const maxConfig = 1 << 20

// config is the daemon's configuration file. What is not in it keeps its zero value.
type config struct {
	Standby int // spare guests that are kept of each kind of machine in use
}

// readConfig reads the file that was asked for; "": the installed one, where that is p's
// and is there. Kinds: Missing (it was asked for, and is not there), Invalid.
func readConfig(path string, p place.Places) (config, error) {
	asked := path != ""
	if !asked {
		if p.Tag != "" {
			return config{}, nil
		}
		path = installedConfig
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would be waited for
	switch {
	case errors.Is(err, os.ErrNotExist) && !asked:
		return config{}, nil
	case errors.Is(err, os.ErrNotExist):
		return config{}, fault.Missingf("there is no configuration file %s", path)
	case err != nil:
		return config{}, fault.Wrap(err, "open the configuration")
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return config{}, fault.Invalidf("the configuration %s is no regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return config{}, fault.Wrap(err, "read %s", path)
	}
	if len(text) > maxConfig {
		return config{}, fault.Invalidf("%s is longer than %d bytes", path, maxConfig)
	}
	c, err := parseConfig(text)
	return c, fault.Wrap(err, "%s", path)
}

// parseConfig reads a configuration. Every error says the line.
func parseConfig(text []byte) (c config, err error) {
	var root yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	switch err := d.Decode(&root); {
	case errors.Is(err, io.EOF): // nothing but comments
		return c, nil
	case err != nil:
		return c, fault.Invalidf("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return c, fault.Invalidf("there is more than one document in it")
	}
	all := root.Content[0]
	if all.Kind != yaml.MappingNode {
		return c, fault.Invalidf("line %d: a configuration is keys with their values", all.Line).Help("such as `standby: 2`")
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(all.Content); i += 2 {
		key, value := all.Content[i], all.Content[i+1]
		if seen[key.Value] {
			return c, fault.Invalidf("line %d: %s is there twice", key.Line, key.Value).At(key.Value)
		}
		seen[key.Value] = true
		switch key.Value {
		case "standby":
			if err := value.Decode(&c.Standby); err != nil || value.Tag != "!!int" || c.Standby < 0 || c.Standby > guest.MaxStandby {
				return c, fault.Invalidf("line %d: %q is no number of guests to keep", value.Line, value.Value).
					At(key.Value).Help("0 to %d", guest.MaxStandby)
			}
		default:
			return c, fault.Invalidf("line %d: there is no key %q", key.Line, key.Value).Help("there is: standby")
		}
	}
	return c, nil
}
