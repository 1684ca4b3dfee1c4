// Package corpus makes readings as devices send them, always the same ones for the
// same description: to measure what a database does with them, and to know what it
// must answer.
package corpus

import (
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// Kind is what a simulated sensor measures.
type Kind int

const (
	Temperature Kind = iota // a slow walk in tenths
	HeartRate               // whole beats a minute
	Latitude                // of somebody who walks, to 1e-7 degrees
	Longitude               // to 1e-6 degrees
	State                   // one of a few words, rarely another
	Counter                 // grows by a few
	Vibration               // noise of a 32-bit float, widened
)

// Mixed is one sensor of each kind.
func Mixed() []Kind {
	return []Kind{Temperature, HeartRate, Latitude, Longitude, State, Counter, Vibration}
}

// String is the kind's field name in line protocol.
func (k Kind) String() string {
	return [...]string{"temperature", "heart_rate", "latitude", "longitude", "state", "counter", "vibration"}[k]
}

// Measurement is the one of all lines. On a hub a stream's name is this, an
// underscore and the kind; so is a metric's in VictoriaMetrics.
const Measurement = "env"

// Stream is the name of a kind's stream.
func (k Kind) Stream() string { return Measurement + "_" + k.String() }

// Words are what a stream of kind State says. A database without texts is given
// their places in this list.
func Words() []string { return []string{"idle", "starting", "running", "stopping", "fault"} }

// Corpus describes readings. A device's clock is off by up to 3 ms at each reading,
// and each of its sensors reads on its own.
type Corpus struct {
	Seed    uint64
	Devices int
	First   int // number of the first device
	Kinds   []Kind
	From    time.Time // whole milliseconds
	Every   time.Duration
	Steps   int  // readings of each stream, gaps included
	Gaps    bool // a device is silent now and then, for up to 60 steps
}

// To is behind the last reading.
func (c *Corpus) To() time.Time { return c.From.Add(time.Duration(c.Steps) * c.Every) }

// Name is the tag of a device.
func Name(device int) string { return "unit-" + strconv.Itoa(10_000 + device)[1:] }

// Point is one reading.
type Point struct {
	Device int
	Kind   Kind
	Series int32 // of device and kind
	Millis int64
	Value  float64 // of a state, its place among the words
}

// AppendLine writes the point in line protocol, its time in milliseconds; states as
// texts, or as numbers.
func (p *Point) AppendLine(b []byte, texts bool) []byte {
	b = append(b, Measurement+",device="...)
	b = append(b, Name(p.Device)...)
	b = append(b, ' ')
	b = append(b, p.Kind.String()...)
	b = append(b, '=')
	if p.Kind == State && texts {
		b = append(b, '"')
		b = append(b, Words()[int(p.Value)]...)
		b = append(b, '"')
	} else {
		b = strconv.AppendFloat(b, p.Value, 'f', -1, 64)
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, p.Millis, 10)
	return append(b, '\n')
}

// sensor is where one stream has got to.
type sensor struct {
	rng          *rand.Rand
	value, slope float64
}

func (c *Corpus) sensor(series int) sensor {
	rng := rand.New(rand.NewPCG(c.Seed, uint64(series)))
	return sensor{rng, rng.Float64(), rng.NormFloat64()}
}

func (s *sensor) next(k Kind) float64 {
	r := s.rng
	switch k {
	case Temperature:
		s.slope = 0.98*s.slope + 0.02*r.NormFloat64()
		s.value += 0.05*s.slope + 0.02*r.NormFloat64()
		return decimal(18+5*s.value, 10)
	case HeartRate:
		s.slope += 0.05*r.NormFloat64() - 0.01*s.slope
		return math.Round(72 + 10*s.slope + r.NormFloat64())
	case Latitude, Longitude:
		s.slope = 0.99*s.slope + 0.1*r.NormFloat64()
		s.value += 1e-5 * s.slope
		if k == Latitude {
			return decimal(52+s.value, 1e7)
		}
		return decimal(13+s.value, 1e6)
	case State:
		if r.IntN(300) == 0 {
			s.slope = float64(r.IntN(len(Words())))
		}
		return float64(min(len(Words())-1, int(math.Abs(s.slope))))
	case Counter:
		s.value += float64(r.IntN(12))
		return math.Floor(1000 + s.value)
	default:
		return float64(float32(0.3 * r.NormFloat64()))
	}
}

// decimal is the float nearest to v at so many steps to one.
func decimal(v, steps float64) float64 { return math.Round(v*steps) / steps }

// Points yields all readings in order of time, as a gateway collects them: at each
// step every device, of each all sensors. A point is valid until the next.
func (c *Corpus) Points() iter.Seq[*Point] {
	return func(yield func(*Point) bool) {
		sensors := make([]sensor, c.Devices*len(c.Kinds))
		for i := range sensors {
			sensors[i] = c.sensor(i)
		}
		silence := rand.New(rand.NewPCG(c.Seed, math.MaxUint64))
		silent := make([]int, c.Devices)
		var p Point
		for step := range c.Steps {
			at := c.From.UnixMilli() + int64(step)*c.Every.Milliseconds()
			for d := range c.Devices {
				switch {
				case silent[d] > 0:
					silent[d]--
				case c.Gaps && silence.IntN(2000) == 0:
					silent[d] = 1 + silence.IntN(60)
				}
				for i, k := range c.Kinds {
					s := &sensors[d*len(c.Kinds)+i]
					value := s.next(k)
					off := int64(s.rng.IntN(7) - 3)
					if silent[d] > 0 {
						continue
					}
					p = Point{Device: c.First + d, Kind: k, Series: int32((c.First+d)*len(c.Kinds) + i), Millis: at + off, Value: value}
					if !yield(&p) {
						return
					}
				}
			}
		}
	}
}

// Sum is what an aggregate over readings must yield.
type Sum struct {
	Count int
	Total float64
}

// Mean is the mean of the readings.
func (s Sum) Mean() float64 { return s.Total / float64(s.Count) }

// Close reports whether a count and a mean are these, the mean to one part in 10^9.
func (s Sum) Close(count, mean float64) bool {
	return count == float64(s.Count) && math.Abs(mean-s.Mean()) <= 1e-9*math.Abs(s.Mean())
}

// Load is a corpus made ready to be sent, so that making it is not measured.
type Load struct {
	Points int
	Bodies [][]byte // line protocol
	Rows   [][]Point
	Sums   map[Kind]Sum
}

// Form is what bodies a load has.
type Form int

const (
	Texts   Form = iota // lines, states as texts
	Numbers             // lines, states as numbers
	Rows                // no lines but points
)

// Load makes bodies of so many lines or rows.
func (c *Corpus) Load(form Form, size int) *Load {
	l := &Load{Sums: map[Kind]Sum{}}
	var body []byte
	var rows []Point
	n := 0
	flush := func() {
		if form == Rows {
			l.Rows = append(l.Rows, slices.Clone(rows))
		} else {
			l.Bodies = append(l.Bodies, slices.Clone(body))
		}
		body, rows, n = body[:0], rows[:0], 0
	}
	for p := range c.Points() {
		if form == Rows {
			rows = append(rows, *p)
		} else {
			body = p.AppendLine(body, form == Texts)
		}
		s := l.Sums[p.Kind]
		l.Sums[p.Kind] = Sum{s.Count + 1, s.Total + p.Value}
		l.Points++
		if n++; n == size {
			flush()
		}
	}
	if n > 0 {
		flush()
	}
	return l
}
