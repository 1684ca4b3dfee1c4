package demo

import (
	"math"
	"math/cmplx"
	"math/rand/v2"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// The bench: a shaft at about 1,500 rpm in a ball bearing, at rest for a
// minute in every ten, worn out over the last fifth of its life.
const (
	sampleRate = 25_600             // Hz
	window     = 2048               // samples that are looked at each second: two turns of the shaft
	ringing    = 256                // samples that an impact rings for
	resonance  = 3000               // Hz
	ringDecay  = 0.001              // s
	ballPass   = 9. / 2 * (1 - 0.2) // a turn: nine balls, of 0.2 of the pitch diameter
	cycle      = 600                // s
	cycleRuns  = 540                // s
	thermalLag = 1800               // s
)

func bearingStreams() []Stream {
	return []Stream{
		{"vibration/rms", holdfast.Number, "m/s2", packed},
		{"vibration/crest", holdfast.Number, "", packed},
		{"vibration/kurtosis", holdfast.Number, "", packed},
		{"vibration/velocity", holdfast.Number, "mm/s", packed},
		{"temperature", holdfast.Number, "Cel", object},
		{"rpm", holdfast.Number, "1/min", object},
		{"ambient", holdfast.Number, "Cel", bare},
		{"zone", holdfast.Text, "", object},
		{"running", holdfast.Boolean, "", object},
		{"cycles", holdfast.Integer, "", object},
	}
}

// bearing is the state of a bench.
type bearing struct {
	rng      *rand.Rand
	life     float64 // s
	nominal  float64 // rpm
	ring     [ringing]float64
	rpm      float64
	heat     float64 // of the housing, Cel
	velocity float64 // mm/s RMS, smoothed
	running  bool
	cycles   int
	zone     string
}

// Bearing is a bearing test bench. Each second that it turns at speed, it sends
// what a window of synthesised vibration shows: RMS of acceleration, crest factor,
// kurtosis and RMS of velocity; besides them temperatures, speed, zone (A to D, by
// the limits of ISO 20816-3), whether it runs, and how often it was started.
func Bearing(seed uint64, start time.Time, o Options) Device {
	return device(seed, start, o, "bearing-bench", bearingStreams(), func(o Options, rng *rand.Rand) physics {
		return newBearing(rng, o.Life).second
	})
}

func newBearing(rng *rand.Rand, life time.Duration) *bearing {
	b := &bearing{rng: rng, life: life.Seconds(), heat: air(0), velocity: 1}
	b.nominal = 1480 + 15*b.rng.Float64()
	for i := range b.ring {
		t := float64(i) / sampleRate
		b.ring[i] = math.Exp(-t/ringDecay) * math.Sin(2*math.Pi*resonance*t)
	}
	return b
}

// air is the hall's temperature.
func air(second int) float64 {
	return 21 + 1.5*math.Sin(2*math.Pi*float64(second)/86400)
}

func (b *bearing) second(i int, _ time.Time, out *measures) {
	age, target := float64(i)/b.life, air(i)
	runs := age < 1 && (i+cycle/2)%cycle < cycleRuns
	news := runs != b.running || i%60 == 0
	if runs && !b.running {
		b.cycles++
	}
	b.running = runs
	if runs {
		b.rpm = min(b.rpm+250, b.nominal*(1+0.001*b.rng.NormFloat64()))
		target += 12
	} else {
		b.rpm = max(0, b.rpm-180)
	}
	if runs && b.rpm > 0.98*b.nominal {
		v := b.vibration(b.rpm/60, age)
		target += v.rms * v.rms
		b.velocity += (v.velocity - b.velocity) / 20
		out.number("vibration/rms", v.rms, 4)
		out.number("vibration/crest", v.crest, 3)
		out.number("vibration/kurtosis", v.kurtosis, 3)
		out.number("vibration/velocity", v.velocity, 3)
	}
	b.heat += (target - b.heat) / thermalLag
	if i%5 == 0 {
		out.number("temperature", b.heat+0.03*b.rng.NormFloat64(), 2)
		out.number("rpm", b.rpm, 1)
	}
	if i%60 == 0 {
		out.number("ambient", air(i)+0.05*b.rng.NormFloat64(), 1)
	}
	if zone := zoneOf(b.velocity); news || zone != b.zone {
		b.zone = zone
		out.text("zone", zone)
		out.boolean("running", runs)
		out.number("cycles", float64(b.cycles), 0)
	}
}

// zoneOf tells the zone of a medium machine on a rigid foundation (ISO 20816-3,
// group 2) from its velocity in mm/s RMS.
func zoneOf(velocity float64) string {
	switch {
	case velocity < 1.4:
		return "A"
	case velocity < 2.8:
		return "B"
	case velocity < 4.5:
		return "C"
	}
	return "D"
}

// vibration is what a window shows: acceleration in m/s² RMS, its crest factor
// and kurtosis, and velocity in mm/s RMS.
type vibration struct{ rms, crest, kurtosis, velocity float64 }

// vibration synthesises a window at shaft frequency turn (Hz) and age (0 new, 1
// worn out): the shaft's first two harmonics, noise, and the impacts of a spall in
// the outer race. The impacts grow first and shake the shaft later, so that crest
// factor and kurtosis tell of the wear before RMS does.
func (b *bearing) vibration(turn, age float64) vibration {
	wear := max(0, (age-0.8)/0.2)
	impact := 0.9 * math.Expm1(4.2*wear)       // m/s²
	shaft := 0.19 * math.Exp(1.85*wear*wear)   // m/s², the first harmonic's peak
	noise := 0.5 + 0.04*impact                 // m/s² RMS
	phase := 2 * math.Pi * b.rng.Float64()     // of the shaft when the window opens
	advance := 2 * math.Pi * turn / sampleRate // per sample
	angle, step := cmplx.Rect(1, phase), cmplx.Rect(1, advance)

	var x [window]float64
	for i := range x {
		c := real(angle)
		x[i] = shaft*(c+0.3*(2*c*c-1)) + noise*b.rng.NormFloat64()
		angle *= step
	}
	between := sampleRate / (ballPass * turn)
	for at := -between * b.rng.Float64(); impact > 0 && at < window; at += between * (1 + 0.015*b.rng.NormFloat64()) {
		strength := impact * (1 + 0.5*math.Cos(phase+advance*at))
		for i := max(0, int(at)); i < min(window, int(at)+ringing); i++ {
			x[i] += strength * b.ring[i-int(at)]
		}
	}
	return look(&x)
}

// look computes a window's statistics. Velocity is the sum of the acceleration;
// taking the mean from both removes what is slower than the window.
func look(x *[window]float64) vibration {
	var mean float64
	for _, a := range x {
		mean += a / window
	}
	var peak, second, fourth, speed, speeds, squares float64
	for _, a := range x {
		a -= mean
		peak = max(peak, math.Abs(a))
		second += a * a / window
		fourth += a * a * a * a / window
		speed += a * 1000 / sampleRate
		speeds += speed / window
		squares += speed * speed / window
	}
	rms := math.Sqrt(second)
	return vibration{rms, peak / rms, fourth / (second * second), math.Sqrt(max(0, squares-speeds*speeds))}
}
