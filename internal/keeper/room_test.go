package keeper

import (
	"bufio"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/require"
)

// TestAMachineWithoutRoomOnTheHostGoesOn plays QEMU, which holds a machine still.
func TestAMachineWithoutRoomOnTheHostGoesOn(t *testing.T) {
	b := power(t, newMachine(t), nil)
	said := make(chan string, 100)
	go func() {
		for lines := bufio.NewScanner(b.monitor); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	hears := func(command string) {
		t.Helper()
		for end := time.After(require.Patience(20 * time.Second)); ; {
			select {
			case line := <-said:
				if strings.Contains(line, command) {
					return
				}
			case <-end:
				t.Fatalf("QEMU was not asked to %s", command)
			}
		}
	}
	silent := func(why string) {
		t.Helper()
		for {
			select {
			case line := <-said:
				t.Fatalf("%s, and QEMU was asked %s", why, line)
			case <-time.After(2500 * time.Millisecond): // it asks each second
				return
			}
		}
	}
	stalls := make(chan bool, 100)
	go func() {
		last := false
		b.Watch(t.Context(), func(st wire.Status) {
			if st.Stalled != last {
				last = st.Stalled
				stalls <- last
			}
		})
	}()
	tells := func(stalled bool) {
		t.Helper()
		select {
		case now := <-stalls:
			if now != stalled {
				t.Fatalf("it is told to stand still: %v", now)
			}
		case <-time.After(require.Patience(20 * time.Second)):
			t.Fatalf("it is not told whether it stands still; want %v", stalled)
		}
	}
	hears("qmp_capabilities")
	b.event(`{"event":"BLOCK_IO_ERROR","data":{"action":"report","nospace":false}}`)
	silent("the system inside was told of the error")
	b.event(`{"event":"BLOCK_IO_ERROR","data":{"action":"stop","nospace":true}}`)
	tells(true)
	hears("query-status")
	b.event(`{"return":{"status":"running","running":true}}`) // it is not held still yet
	hears("query-status")
	b.event(`{"return":{"status":"paused","running":false}}`) // by somebody
	hears("query-status")
	b.event(`{"return":{"status":"io-error","running":false}}`)
	hears("cont")
	b.event(`{"event":"RESUME"}`)
	b.event(`{"event":"BLOCK_IO_ERROR","data":{"action":"stop","nospace":true}}`) // there is no room still
	hears("query-status")
	b.event(`{"return":{"status":"io-error","running":false}}`)
	hears("cont")
	b.event(`{"event":"RESUME"}`)
	time.Sleep(1500 * time.Millisecond) // it may be asking already
	for len(said) > 0 {
		<-said
	}
	silent("it goes on")
	tells(false)
	select {
	case <-stalls:
		t.Error("a try in vain was told")
	default:
	}
}
