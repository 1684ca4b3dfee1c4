package demo

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// The cold room of a shop, in °C and seconds.
const (
	coldWarm     = 4.5   // at which the compressor starts
	coldEnough   = 2.5   // at which it stops
	wallLag      = 9000. // in which warmth comes through the walls
	doorLag      = 450.  // and through the open door
	compressing  = 0.006 // °C per second that the compressor takes out
	coldWeek     = 7 * 86400
	longestLapse = 2400
)

func coldStreams() []Stream {
	return []Stream{
		{"temperature", holdfast.Number, "Cel", object},
		{"ambient", holdfast.Number, "Cel", bare},
		{"compressor", holdfast.Boolean, "", object},
		{"door", holdfast.Boolean, "", object},
	}
}

// coldRoom is the state of a cold room.
type coldRoom struct {
	rng        *rand.Rand
	lapse      int // second of the week at which the door is left open
	lapseEnds  int
	inside     float64
	weather    float64
	compressor bool
	door       bool
	open       int // seconds left for which somebody has the door open
}

// ColdRoom is the sensor of a shop's cold room: its temperature every ten seconds,
// that of the air around it, the compressor, and the door, which is opened now and
// then from six to eight. Once a week, in the second half of what is shorter than
// that, somebody leaves it open and the compressor trips, for 40 minutes at most.
func ColdRoom(seed uint64, start time.Time, o Options) Device {
	return device(seed, start, o, "cold-room", coldStreams(), func(o Options, rng *rand.Rand) physics {
		span := min(coldWeek, int(o.For/time.Second))
		c := &coldRoom{rng: rng, inside: 3 + rng.Float64()}
		c.lapse = int(float64(span) * (0.6 + 0.05*rng.Float64()))
		c.lapseEnds = c.lapse + min(longestLapse, span/2)
		return c.second
	})
}

func (c *coldRoom) second(i int, at time.Time, out *measures) {
	doorBefore, compressorBefore := c.door, c.compressor
	lapse := i%coldWeek >= c.lapse && i%coldWeek < c.lapseEnds
	c.handle(at.Hour(), lapse)
	outside := c.air(secondOfDay(at))
	switch {
	case lapse || c.inside < coldEnough:
		c.compressor = false
	case c.inside > coldWarm:
		c.compressor = true
	}
	warmth := (outside - c.inside) / wallLag
	if c.door {
		warmth += (outside - c.inside) / doorLag
	}
	if c.compressor {
		warmth -= compressing
	}
	c.inside += warmth
	if i%10 == 0 {
		out.number("temperature", c.inside+0.05*c.rng.NormFloat64(), 1)
	}
	if i%60 == 0 {
		out.number("ambient", outside, 1)
	}
	if i%60 == 0 || c.door != doorBefore {
		out.boolean("door", c.door)
	}
	if i%60 == 0 || c.compressor != compressorBefore {
		out.boolean("compressor", c.compressor)
	}
}

// handle has people use the door.
func (c *coldRoom) handle(hour int, lapse bool) {
	if c.open > 0 {
		c.open--
	} else if hour >= 6 && hour < 20 && c.rng.Float64() < 1./700 {
		c.open = 15 + c.rng.IntN(30)
	}
	c.door = lapse || c.open > 0
}

// air is that of the shop: a curve of the day, and the weather.
func (c *coldRoom) air(s float64) float64 {
	c.weather = 0.9999*c.weather + 0.01*c.rng.NormFloat64()
	return 18 + 4*math.Sin(2*math.Pi*(s/3600-9)/24) + c.weather
}
