package demo

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// The town: its roads run east and north, a block apart, through a depot. North of
// the first road a river crosses it, under which they all go through tunnels.
const (
	block       = 250.        // m
	tunnelSouth = 1.1 * block // m north of the depot
	tunnelNorth = 1.9 * block
	cruising    = 13.5 // m/s
	turning     = 4.   // m/s
	gaining     = 1.8  // m/s²
	braking     = 2.2  // m/s²
)

func vanStreams() []Stream {
	return []Stream{
		{"location", holdfast.Location, "", object},
		{"speed", holdfast.Number, "m/s", object},
		{"odometer", holdfast.Integer, "m", object},
		{"running", holdfast.Boolean, "", object},
	}
}

// leg is a stretch of road: where it ends, how fast the van is there, and how long
// it stays.
type leg struct {
	to    point
	speed float64 // m/s
	stay  int     // s
	door  bool    // a customer's: the van parks
}

// van is the state of a delivery van.
type van struct {
	rng      *rand.Rand
	depot    holdfast.Position
	here     point
	speed    float64 // m/s
	odometer float64 // m
	parked   bool
	stay     int // seconds left
	route    []leg
	off      drift
}

// Van is a delivery van: location and speed at 1 Hz while it is on its way and once
// a minute while it is parked, odometer, and whether it runs. It goes from door to
// door by random ways, stops at red lights, and has no location in tunnels.
func Van(seed uint64, start time.Time, o Options) Device {
	return device(seed, start, o, "delivery-van", vanStreams(), func(_ Options, rng *rand.Rand) physics {
		// In the North Sea, west of where the wearers live.
		depot := point{4000 * (rng.Float64() - 0.5), 4000 * (rng.Float64() - 0.5)}.from(holdfast.Position{Latitude: 55.2, Longitude: 4.2})
		v := &van{rng: rng, depot: depot, parked: true, stay: 5 + rng.IntN(40), odometer: math.Floor(1e5 * rng.Float64() * 1000)}
		return v.second
	})
}

func (v *van) second(i int, _ time.Time, out *measures) {
	before := v.parked
	v.drive()
	news := v.parked != before
	if !v.parked || news || i%60 == 0 {
		if !v.underground() {
			keep := 0.95 // from one second to the next
			if v.parked {
				keep = 0.05 // from one minute to the next
			}
			out.location("location", v.off.from(v.here, keep, v.rng).from(v.depot))
		}
		out.number("speed", v.speed, 1)
	}
	if news || i%60 == 0 {
		out.number("odometer", math.Floor(v.odometer), 0)
		out.boolean("running", !v.parked)
	}
}

func (v *van) underground() bool { return v.here.y > tunnelSouth && v.here.y < tunnelNorth }

// drive moves the van on by a second.
func (v *van) drive() {
	if v.stay > 0 {
		v.stay--
		return
	}
	v.parked = false
	if len(v.route) == 0 {
		v.route = v.plan()
	}
	next := v.route[0]
	left := math.Hypot(next.to.x-v.here.x, next.to.y-v.here.y)
	// Never faster than what can still be braked from a second later.
	v.speed = min(cruising, v.speed+gaining, math.Sqrt(braking*braking+next.speed*next.speed+2*braking*left)-braking)
	if left-v.speed < 0.5 {
		v.odometer += left
		v.here, v.speed, v.stay, v.parked, v.route = next.to, next.speed, next.stay, next.door, v.route[1:]
		return
	}
	v.odometer += v.speed
	v.here.x += (next.to.x - v.here.x) * v.speed / left
	v.here.y += (next.to.y - v.here.y) * v.speed / left
}

// plan chooses a door and a way to it: block by block, nearer with each.
func (v *van) plan() (route []leg) {
	x, y := int(math.Round(v.here.x/block)), int(math.Round(v.here.y/block))
	toX, toY := v.rng.IntN(11)-5, v.rng.IntN(11)-4
	if toX == x && toY == y {
		toX++
	}
	east := false
	for first := true; x != toX || y != toY; first = false {
		along := y == toY || x != toX && v.rng.Float64() < 0.5
		if !first {
			route = append(route, v.crossing(point{float64(x) * block, float64(y) * block}, along != east))
		}
		if east = along; east {
			x += towards(x, toX)
		} else {
			y += towards(y, toY)
		}
	}
	return append(route, leg{to: point{float64(x) * block, float64(y) * block}, stay: 60 + v.rng.IntN(180), door: true})
}

// crossing is how the van gets over one: at a red light it waits.
func (v *van) crossing(at point, turns bool) leg {
	switch {
	case v.rng.Float64() < 0.2:
		return leg{to: at, stay: 5 + v.rng.IntN(35)}
	case turns:
		return leg{to: at, speed: turning}
	}
	return leg{to: at, speed: cruising}
}

func towards(from, to int) int {
	if from < to {
		return 1
	}
	return -1
}
