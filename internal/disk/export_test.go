package disk

import (
	"testing"
	"time"

	"github.com/strata-project/strata/internal/mount/loop"
	"github.com/strata-project/strata/internal/require"
)

// SetLoop has images attached with other options.
func SetLoop(t testing.TB, o loop.Options) {
	before := loopOptions
	loopOptions = o
	t.Cleanup(func() { loopOptions = before })
}

// The tests ask for disks in use on purpose.
func init() { settle = require.Patience(100 * time.Millisecond) }

// StampUUID and SuperSum are for the test of the superblock's checksum.
var (
	StampUUID = stampUUID
	SuperSum  = superSum
)
