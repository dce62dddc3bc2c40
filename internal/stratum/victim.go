package stratum

import "github.com/strata-project/strata/internal/unit"

// unguarded is the victim score of who has no guarantee: it is chosen before a program of
// the host's own that holds as much and up to half of the host's memory more.
const unguarded = 500

// Victim returns how readily the host's kernel is to choose a program when the host is
// short of memory, for an environment that is guaranteed so much of all that the host has.
//
// The kernel compares what each process holds, in thousandths of all memory, with such a
// score added. A guarantee is taken off the score, so that who holds more above its
// guarantee goes first, and who is within its own goes last. Source: proc(5),
// oom_score_adj; Linux, mm/oom_kill.c, oom_badness.
func Victim(guarantee, all unit.Size) int {
	if all <= 0 {
		return unguarded
	}
	return max(0, unguarded-int(float64(guarantee)/float64(all)*1000))
}
