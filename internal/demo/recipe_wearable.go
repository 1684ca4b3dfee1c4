package demo

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func wearableStreams() []Stream {
	return []Stream{
		{"heart_rate", holdfast.Number, "beat/min", object},
		{"steps", holdfast.Integer, "", object},
		{"activity", holdfast.Text, "", object},
		{"worn", holdfast.Boolean, "", object},
		{"location", holdfast.Location, "", object},
		{"battery", holdfast.Number, "%EL", bare},
	}
}

type activity uint8

const (
	sleep activity = iota
	sit
	walk
	run
)

// gait is what an activity does: metres and steps a second, and the heart rate
// that it leads to.
type gait struct {
	name                 string
	speed, cadence, rate float64
}

func (a activity) gait() gait {
	return [...]gait{{"sleep", 0, 0, 53}, {"sit", 0, 0, 69}, {"walk", 1.4, 1.85, 101}, {"run", 2.8, 2.75, 151}}[a]
}

// point is a place in metres east and north of home.
type point struct{ x, y float64 }

func (p point) from(home holdfast.Position) holdfast.Position {
	const metresPerDegree = 111_320
	return holdfast.Position{
		Latitude:  home.Latitude + p.y/metresPerDegree,
		Longitude: home.Longitude + p.x/(metresPerDegree*math.Cos(home.Latitude*math.Pi/180)),
		Altitude:  math.NaN(),
	}
}

func anchors(seed uint64) (home holdfast.Position, work point) {
	rng := rand.New(rand.NewPCG(seed, anchorDraws))
	draw := func() float64 { return 2*rng.Float64() - 1 }
	// In the North Sea, where nobody lives.
	home = point{2000 * draw(), 2000 * draw()}.from(holdfast.Position{Latitude: 54.9, Longitude: 5.1})
	return home, point{math.Copysign(700+800*rng.Float64(), draw()), math.Copysign(700+800*rng.Float64(), draw())}
}

// Anchors tells where the wearer with this seed lives and works: what a privacy
// test must find in the raw data and no longer find in what a grant gives out.
func Anchors(seed uint64) (home, work holdfast.Position) {
	home, at := anchors(seed)
	return home, at.from(home)
}

// day is a day's plan, in seconds since midnight UTC; leave is beyond the day's end
// when there is no work.
type day struct{ wake, leave, back, jog, charge, bed float64 }

func (d day) night(s float64) bool { return s < d.wake || s >= d.bed }

// wearer is the state of a person and the device on their wrist.
type wearer struct {
	rng   *rand.Rand
	home  holdfast.Position
	work  point
	pulse float64 // how far this heart beats above the usual, 1/min

	today           day
	date            int // day of the year
	here            point
	atWork          bool
	jogging, jogged bool // now; today
	route           []point
	doing           activity
	worn            bool

	heart, flutter float64 // 1/min
	artefact       int     // seconds left in which the sensor takes steps for beats
	steps, battery float64
	off            drift
}

// Wearable is a wrist device: heart rate at 1 Hz while worn, steps of the day,
// activity, whether it is worn, location (each second on the way, each minute at
// rest), battery. Its wearer sleeps at home, goes to work on weekdays and jogs.
func Wearable(seed uint64, start time.Time, o Options) Device {
	return device(seed, start, o, "wearable", wearableStreams(), func(o Options, rng *rand.Rand) physics {
		w := &wearer{rng: rng, worn: true, pulse: 10 * (rng.Float64() - 0.5), battery: 60 + 35*rng.Float64()}
		w.home, w.work = anchors(seed)
		w.plan(start.UTC())
		s := secondOfDay(start.UTC())
		w.jogged = s > w.today.jog
		if w.atWork = s > w.today.leave && s < w.today.back; w.atWork {
			w.here = w.work
		}
		if !w.today.night(s) {
			w.doing = sit
		}
		w.heart = w.doing.gait().rate
		return w.second
	})
}

func secondOfDay(t time.Time) float64 { return float64(t.Hour()*3600 + t.Minute()*60 + t.Second()) }

func (w *wearer) plan(at time.Time) {
	around := func(hour, spread float64) float64 { return 3600 * (hour + spread*(2*w.rng.Float64()-1)) }
	w.date, w.steps, w.jogged = at.YearDay(), 0, false
	w.today = day{
		wake: around(6.7, 0.3), leave: around(7.7, 0.3), back: around(16.8, 0.4),
		jog: around(18.3, 0.3), charge: around(20.5, 0.5), bed: around(22.8, 0.5),
	}
	if at.Weekday() == time.Saturday || at.Weekday() == time.Sunday {
		w.today.leave, w.today.back = 25*3600, 0
	}
}

func (w *wearer) second(i int, at time.Time, out *measures) {
	if at.YearDay() != w.date {
		w.plan(at)
	}
	s := secondOfDay(at)
	didBefore, wornBefore := w.doing, w.worn
	moving := w.live(i, s)
	w.worn = moving || s < w.today.charge || s >= w.today.charge+2700
	beat := w.beat(s)
	if w.worn {
		out.number("heart_rate", beat, 0)
		w.steps += w.doing.gait().cadence * (0.95 + 0.1*w.rng.Float64())
		w.battery = max(1, w.battery-1./1800)
	} else {
		w.battery = min(100, w.battery+1./36)
	}
	if i%60 == 0 || w.worn != wornBefore {
		out.boolean("worn", w.worn)
	}
	if w.worn && (i%60 == 0 || w.doing != didBefore) {
		out.text("activity", w.doing.gait().name)
		out.number("steps", math.Floor(w.steps), 0)
	}
	if i%60 == 0 || moving {
		out.location("location", w.fix(moving))
	}
	if i%300 == 0 {
		out.number("battery", w.battery, 0)
	}
}

// live moves the wearer along the day's plan, and reports whether they are on the
// way. Roads run east and north.
func (w *wearer) live(i int, s float64) (moving bool) {
	if len(w.route) == 0 {
		w.jogging = false
		atWork := s >= w.today.leave && s < w.today.back
		switch {
		case atWork && !w.atWork:
			w.route = []point{{w.work.x, w.here.y}, w.work}
		case !atWork && w.atWork:
			w.route = []point{{0, w.here.y}, {}}
		case !w.atWork && !w.jogged && s >= w.today.jog && s < w.today.jog+3600:
			w.route = []point{{900, 0}, {900, 700}, {0, 700}, {}}
			w.jogging, w.jogged = true, true
		}
		w.atWork = atWork
	}
	if i%20 == 0 || len(w.route) > 0 && w.doing < walk {
		w.choose(s)
	}
	if len(w.route) == 0 {
		return false
	}
	far := w.doing.gait().speed
	next := w.route[0]
	if left := math.Hypot(next.x-w.here.x, next.y-w.here.y); left <= far {
		w.here, w.route = next, w.route[1:]
	} else {
		w.here.x += (next.x - w.here.x) * far / left
		w.here.y += (next.y - w.here.y) * far / left
	}
	return true
}

// choose takes one step of the Markov chain of activities that belongs to the
// time of day and to being on the way or not.
func (w *wearer) choose(s float64) {
	var to [4]float64 // chance of sleep, sit, walk, run
	switch night := w.today.night(s); {
	case len(w.route) > 0 && w.jogging:
		to = [4]float64{0, 0, 0.08, 0.92}
	case len(w.route) > 0:
		to = [4]float64{0, 0, 0.995, 0.005}
	case night && w.doing == sleep:
		to = [4]float64{0.998, 0.002, 0, 0}
	case night:
		to = [4]float64{0.1, 0.88, 0.02, 0}
	case w.doing == walk || w.doing == run:
		to = [4]float64{0, 0.3, 0.7, 0}
	default:
		to = [4]float64{0, 0.98, 0.02, 0}
	}
	draw := w.rng.Float64()
	for a, chance := range to {
		if draw -= chance; draw < 0 {
			w.doing = activity(a)
			return
		}
	}
}

// beat is the heart rate that the sensor shows: the heart follows its target with
// a lag, flutters from breath to breath, and in motion the sensor at times takes
// steps for beats.
func (w *wearer) beat(s float64) float64 {
	g := w.doing.gait()
	target := g.rate + w.pulse + 3*math.Cos(2*math.Pi*(s/3600-16)/24)
	lag := 25.
	if target < w.heart {
		lag = 50
	}
	w.heart += (target - w.heart) / lag
	w.flutter = 0.8*w.flutter + 1.2*w.rng.NormFloat64()
	if w.artefact > 0 && g.cadence > 0 {
		w.artefact--
		return 60*g.cadence + w.flutter
	}
	w.artefact = 0
	if g.cadence > 0 && w.rng.Float64() < 0.002 {
		w.artefact = 4 + w.rng.IntN(10)
	}
	return w.heart + w.flutter
}

// fix is where the satellites seem to show the wearer.
func (w *wearer) fix(moving bool) holdfast.Position {
	keep := 0.05 // from one minute to the next
	if moving {
		keep = 0.95 // from one second to the next
	}
	return w.off.from(w.here, keep, w.rng).from(w.home)
}

// drift is how far off the satellites show a place: 3 m, of which a share is kept
// from one fix to the next.
type drift point

// from is where a place seems to be.
func (d *drift) from(here point, keep float64, rng *rand.Rand) point {
	fresh := 3 * math.Sqrt(1-keep*keep)
	*d = drift{keep*d.x + fresh*rng.NormFloat64(), keep*d.y + fresh*rng.NormFloat64()}
	return point{here.x + d.x, here.y + d.y}
}
