package virtual

import (
	"net/netip"
	"testing"

	"github.com/strata-project/strata/internal/stratum"
)

func TestACardWithIPv6HasItsLinkLocalAddress(t *testing.T) {
	both := []netip.Prefix{netip.MustParsePrefix("10.0.0.2/20"), netip.MustParsePrefix("fd00::2/64")}
	for sentence, c := range map[string]struct {
		address []netip.Prefix
		want    []string
	}{
		"both families": {both, []string{"fe80::5eff:fe10:1/64", "10.0.0.2/20", "fd00::2/64"}},
		"no IPv6":       {both[:1], []string{"10.0.0.2/20"}},
	} {
		n, err := Network(&stratum.Tap{MAC: "02:00:5e:10:00:01", Address: c.address})
		if err != nil || len(n.Address) != len(c.want) {
			t.Fatalf("%s: %+v, %v, want %v", sentence, n, err, c.want)
		}
		for i, a := range n.Address {
			ip, _ := netip.AddrFromSlice(a.IP)
			if got := netip.PrefixFrom(ip, a.Bits).String(); got != c.want[i] {
				t.Errorf("%s: %s, want %s", sentence, got, c.want[i])
			}
		}
	}
	if n, err := Network(&stratum.Tap{MAC: "02:00:5e"}); err == nil {
		t.Errorf("an address of three bytes: %+v", n)
	}
}
