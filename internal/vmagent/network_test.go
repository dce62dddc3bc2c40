package vmagent

import (
	"slices"
	"testing"

	"github.com/strata-project/strata/internal/vmagent/spec"
)

func TestACardWithIPv6HasItsLinkLocalAddress(t *testing.T) {
	for sentence, c := range map[string]struct {
		network spec.Network
		want    []string
	}{
		"both families": {spec.Network{MAC: "02:00:5e:10:00:01", Address: []string{"10.0.0.2/20", "fd00::2/64"}}, []string{"fe80::5eff:fe10:1/64", "10.0.0.2/20", "fd00::2/64"}},
		"no IPv6":       {spec.Network{MAC: "02:00:5e:10:00:01", Address: []string{"10.0.0.2/20"}}, []string{"10.0.0.2/20"}},
		"no MAC":        {spec.Network{Address: []string{"fd00::2/64"}}, []string{"fd00::2/64"}},
	} {
		if got := withLinkLocal(&c.network); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", sentence, got, c.want)
		}
	}
}
