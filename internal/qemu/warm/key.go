package warm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/unit"
)

// layout is raised whenever images of before cannot be used any more.
const layout = 1

// SourceMAC is the address of a source's network card. A clone's card keeps it until
// the agent has set another.
const SourceMAC = "02:00:00:00:00:01"

// Key is all that a booted system depends on. Make one with KeyOf.
type Key struct {
	Inputs    []string  // digests of what it boots from
	QEMU      []string  // program and firmware: path, version, size, time of last change
	Processor string    // the host's, where the guest sees it
	Args      []string  // the source's command line, but for descriptors and the TSC
	Memory    unit.Size // of the machine
	TSC       int       // kHz; may differ by tolerance, so it is no part of the digest
}

// tolerance is by how much the frequency of the time stamp counter may differ, as
// measured by two daemons: one part in tolerance, which is how exact qemu.TSC is. A
// guest that boots is told the frequency with the same error.
const tolerance = 1000

// KeyOf returns the key of the guests that g is one of. inputs are digests of what
// lies at the paths of g. Kinds: Unable where a guest like g cannot be saved.
func KeyOf(program qemu.Program, g qemu.Guest, inputs ...string) (Key, error) {
	if len(g.Volumes) > 0 {
		return Key{}, fault.Unablef("a guest with volumes cannot start from a saved system: QEMU saves no virtiofs")
	}
	k := Key{Inputs: inputs, Memory: g.Memory, TSC: g.TSC}
	g = shape(g)
	g.TSC = 0
	k.Args = g.Args()
	for _, path := range []string{program.Path, program.Firmware} {
		if path == "" {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return Key{}, fault.Unablef("look at %s: %w", path, err)
		}
		k.QEMU = append(k.QEMU, fmt.Sprint(path, " ", st.Size, " ", st.Mtim.Nano()))
	}
	k.QEMU = append(k.QEMU, program.Version)
	if g.Accelerator == qemu.KVM { // -cpu host
		k.Processor = qemu.Processor()
	}
	return k, nil
}

// shape is a guest without what differs between guests of one key.
func shape(g qemu.Guest) qemu.Guest {
	g.Name, g.MAC = "warm", SourceMAC
	g.Template, g.Disk, g.Tap = 3, 4, 5
	g.Control, g.Monitor, g.Streams, g.Console, g.Events = 6, 7, 8, 9, 10
	g.Backing, g.Incoming, g.StartStopped, g.Rehearsed, g.OwnEntropy = qemu.Backing{File: "memory", Shared: true}, false, false, false, false
	return g
}

// Digest names the key's image.
func (k Key) Digest() string {
	k.TSC = 0
	text, err := json.Marshal(struct {
		Layout int
		Arch   string
		Page   int
		Key    Key
	}{layout, runtime.GOARCH, os.Getpagesize(), k})
	if err != nil {
		panic(err) // strings and numbers can always be written
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// near tells whether a system that was saved with TSC kHz goes on with k's.
func (k Key) near(tsc int) bool {
	difference := max(k.TSC-tsc, tsc-k.TSC)
	return difference <= k.TSC/tolerance
}
