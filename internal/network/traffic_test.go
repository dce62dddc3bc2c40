package network

import (
	"reflect"
	"testing"
)

func TestTrafficIsSeenFromInside(t *testing.T) {
	got := parseTraffic(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0
sv0123456789abz:     776       8    0    0    0     0          0         0      1122      11    0    0    0     0       0          0
sv0123456789ac1: 5 0 0
svshort: 1 1 1 1 1 1 1 1 1 1 1 1
`)
	if want := map[string]Traffic{"0123456789ab": {Received: 1122, Sent: 776}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}
