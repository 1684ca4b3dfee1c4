package bench

import (
	"testing"
	"time"
)

// TestLinesCorpora: what a round adds up must not hold readings of another.
func TestLinesCorpora(t *testing.T) {
	warm := LinesCorpus(WarmUp)
	last := warm.To()
	for round := range 5 {
		c := LinesCorpus(round)
		if c.From.Sub(last) < 2*time.Second+10*time.Millisecond {
			t.Errorf("round %d begins %s after the one before", round, c.From.Sub(last))
		}
		last = c.To()
	}
	if last.After(time.Now()) {
		t.Error("the readings are not of the past")
	}
}
