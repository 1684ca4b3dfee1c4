package demo

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// trip is what a flawless van says, by time.
type trip struct {
	speeds map[int64]float64
	places map[int64]holdfast.Position
	drives map[int64]bool // what it says of whether it runs
	metres []float64
}

func tripOf(seed uint64, length time.Duration) trip {
	t := trip{map[int64]float64{}, map[int64]holdfast.Position{}, map[int64]bool{}, nil}
	for m := range Van(seed, tuesday, Options{For: length}).Messages {
		switch s := m.Samples[0]; s.Stream {
		case "speed":
			t.speeds[s.Time] = s.Value.Number()
		case "location":
			t.places[s.Time] = s.Value.Position()
		case "running":
			t.drives[s.Time] = s.Value.Boolean()
		case "odometer":
			t.metres = append(t.metres, s.Value.Number())
		}
	}
	return t
}

// A van sends each second on its way and each minute where it is parked, goes no
// faster than it may, stands still now and then, and has no location in tunnels.
func TestVanDrivesAndParks(t *testing.T) {
	const length = 6 * time.Hour
	for _, seed := range []uint64{1, 2} {
		v := tripOf(seed, length)
		var times []int64
		stood, fastest, dark, longest := 0, 0., 0, 0
		for at, speed := range v.speeds {
			times = append(times, at)
			fastest = max(fastest, speed)
			if speed == 0 {
				stood++
			}
		}
		slices.Sort(times)
		for i, at := range times {
			if _, seen := v.places[at]; seen {
				dark = 0
			} else if dark++; v.speeds[at] == 0 {
				t.Fatalf("seed %d: it stands in a tunnel", seed)
			}
			longest = max(longest, dark)
			if i > 0 {
				if change := v.speeds[at] - v.speeds[times[i-1]]; change > gaining+0.1 || change < -1.5*braking-0.1 {
					t.Fatalf("seed %d: speed changes by %.1f m/s", seed, change)
				}
				if gap := time.Duration(at - times[i-1]); gap > 61*time.Second || gap > 2*time.Second && v.speeds[at] > gaining+0.1 {
					t.Fatalf("seed %d: nothing for %v, then it goes at %.1f m/s", seed, gap, v.speeds[at])
				}
			}
		}
		if fastest > cruising+0.05 || fastest < cruising-0.5 {
			t.Errorf("seed %d: it goes up to %.1f m/s", seed, fastest)
		}
		if n := len(times); n < int(length.Seconds())/4 || n > int(length.Seconds())*9/10 || stood < n/20 {
			t.Errorf("seed %d: %d readings of speed in %v, %d of them 0", seed, n, length, stood)
		}
		if longest < 12 || longest > 40 {
			t.Errorf("seed %d: the longest time without location is %d s", seed, longest)
		}
		if !slices.IsSorted(v.metres) || v.metres[len(v.metres)-1]-v.metres[0] < 20_000 {
			t.Errorf("seed %d: the odometer goes from %.0f to %.0f", seed, v.metres[0], v.metres[len(v.metres)-1])
		}
		parked := 0
		for _, runs := range v.drives {
			if !runs {
				parked++
			}
		}
		if parked < 20 {
			t.Errorf("seed %d: parked %d times in %v", seed, parked, length)
		}
	}
}

// Locations are 3 m off on average, and what is off stays so for a while.
func TestSatellitesDrift(t *testing.T) {
	const n = 20_000
	rng := rand.New(rand.NewPCG(3, physicsDraws))
	var off drift
	var last point
	square, product := 0., 0.
	for range n {
		at := off.from(point{}, 0.95, rng)
		square += at.x * at.x
		product += at.x * last.x
		last = at
	}
	if rms := math.Sqrt(square / n); math.Abs(rms-3) > 0.5 {
		t.Errorf("off by %.2f m", rms)
	}
	if kept := product / square; math.Abs(kept-0.95) > 0.02 {
		t.Errorf("%.3f is kept from one second to the next", kept)
	}
}
