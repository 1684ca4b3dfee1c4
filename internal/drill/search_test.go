package drill

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// Wherever patterns stand among zeros, all are found.
func TestWordsAreFoundAmongZeros(t *testing.T) {
	r := rand.New(rand.NewPCG(testseed.Of(t), 1))
	patterns := [][]byte{[]byte("a-pattern"), {0, 0, 9, 8, 7, 6, 5, 4, 3}, {0, 1, 0, 0, 0, 0, 0, 0}, {1, 0, 0, 0, 0, 0, 0, 0, 2}}
	for _, zeros := range []bool{false, true} { // with a pattern that begins with zeros nothing is passed over
		if zeros {
			patterns = append(patterns, []byte{0, 0, 0, 5, 0, 0, 0, 0})
		}
		w := new(words)
		for i, p := range patterns {
			w.add(string(rune('a'+i)), p)
		}
		for range 300 {
			b := make([]byte, 2000)
			for range r.IntN(3) { // noise
				b[r.IntN(len(b))] = byte(r.Uint32())
			}
			for i := range patterns {
				copy(b[r.IntN(len(b)-20):], patterns[i])
			}
			var got, want []string
			w.in(b, func(name string) { got = append(got, name) })
			for i, p := range patterns {
				for at := 0; ; at++ {
					n := bytes.Index(b[at:], p)
					if n < 0 {
						break
					}
					at += n
					want = append(want, string(rune('a'+i)))
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("found %q, want %q", got, want)
			}
		}
	}
}
