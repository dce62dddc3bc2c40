package server

import (
	"testing"

	"github.com/strata-project/strata/internal/fault"
)

func TestEveryKindOfFailureIsCountedAsItself(t *testing.T) {
	for _, kind := range fault.Kinds() {
		if got := kindOf[kind.HTTP()]; got != kind {
			t.Errorf("%s is counted as %s", kind, got)
		}
	}
}
