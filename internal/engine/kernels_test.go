package engine

import (
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

func TestAKernelAnswersToWhatCouldMeanIt(t *testing.T) {
	k := api.Kernel{ID: "sha256:0123456789ab", Name: "mine", Release: "6.1.0", Default: true}
	for ref, want := range map[string]bool{
		"mine": true, "6.1.0": true, "0123": true, "sha256:01234": true, k.ID: true,
		"012": false, "yours": false, "6.1": false, "1234": false,
	} {
		if got := answers(k, ref); got != want {
			t.Errorf("%q: %v, want %v", ref, got, want)
		}
	}
}

func TestAnEngineWithoutKernelsSaysSo(t *testing.T) {
	e := &Engine{}
	_, listed := e.Kernels(t.Context())
	_, shown := e.Kernel(t.Context(), "x")
	_, added := e.AddKernel(t.Context(), api.KernelRequest{Source: "host"})
	_, chosen := e.SetDefaultKernel(t.Context(), "x")
	_, removed := e.RemoveKernel(t.Context(), "x")
	for _, err := range []error{listed, shown, added, chosen, removed} {
		if !fault.Is(err, fault.Unable) {
			t.Errorf("error is %v", err)
		}
	}
	if h := e.facts(t.Context(), api.Spec{Kernel: "x"}, api.Template{}); len(h.Lacks) > 0 {
		t.Errorf("what cannot be known is not lacking: %v", h.Lacks)
	}
}
