package machine_test

import (
	"testing"

	"github.com/strata-project/strata/internal/stratum/virtual/virtualtest"
)

func TestMemoryMovesByBalloon(t *testing.T) {
	r := virtualtest.New(t, "linux-image-amd64")
	virtualtest.Balloons(t, r, newDriver(t, r))
}
