package guest_test

import (
	"testing"

	"github.com/strata-project/strata/internal/stratum/virtual/virtualtest"
)

func TestMemoryMovesByBalloon(t *testing.T) {
	r := newRoot(t)
	virtualtest.Balloons(t, r.Root, r.driver)
}
