// Package demo makes the devices that `holdfast demo` simulates, by seeded recipes: a
// bearing test bench, wearables, delivery vans and a cold room.
//
// A recipe has two halves. The first is the physics: once a second, what the
// device measures. The second is the link: what becomes of it on the way, with
// the faults of real fleets (gaps, a wrong clock, stretches that arrive late in
// batches, repeats, messages that overtake each other). The halves draw from
// generators of their own, so that faults never change what was measured.
//
// Promises: the same seed, start and options give the same messages, byte for
// byte, each time Messages is ranged over; every message tells in Samples exactly
// what a hub must read from its payload. Values are rounded far above the last
// bits of a float64, so machines that fuse multiplication and addition write the
// same bytes.
//
// The recipes send nothing and know no hub. Their people, firms and places do not
// exist. Run is the demo itself: a hub, what its people and firms do with it, and what
// it promised each of them, chapter by chapter.
package demo

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Message is one publish of a device. Samples are as the payload says them: where a
// stream is Integer they carry plain numbers of JSON, which the hub turns into
// integers by the profile.
type Message struct {
	At      time.Time         // when it is sent, in true time; the device's clock may differ
	Topic   string            // "data/STREAM", or "data" for a SenML pack
	Payload []byte            // a scalar, an object with t, v and seq, or a SenML pack in JSON
	Samples []holdfast.Sample // what Payload says, in its order; not to be changed
	Repeat  bool              // a second delivery of an earlier message
}

// Stream describes one stream of a simulated device, for the profile that it needs.
type Stream struct {
	Name string
	Type holdfast.ValueType
	Unit string // SenML's, "" for none
	form form
}

// form is how a stream's live readings are written.
type form uint8

const (
	object form = iota // {"t":..., "v":..., "seq":...}
	bare               // the value alone: the hub stamps it
	packed             // together with those of the same moment, as a SenML pack
)

// Device is a simulated device. Messages gives its messages in the order of At
// and may be ranged over many times.
type Device struct {
	Name     string
	Owner    string
	Firm     bool // the owner is an organisation
	Profile  string
	Streams  []Stream
	Messages iter.Seq[Message]
}

// Options shape a device. The zero Options is a flawless device for an hour.
type Options struct {
	Name  string // "" for one made of its profile and seed
	Owner string
	Firm  bool          // the owner is an organisation
	For   time.Duration // how long it measures; 0 is an hour
	// Life is how long a bearing takes from new to worn out; 0 is all of For. At its
	// end the bench trips and stands still.
	Life   time.Duration
	Faults Faults
}

// Faults are what goes wrong between a device and its hub. Shares lie in [0, 1].
type Faults struct {
	Gap          float64       // share of seconds that are lost for good, some seconds at a time
	Late         float64       // share of seconds stored and sent minutes later as SenML packs
	Duplicate    float64       // share of messages delivered twice; those without a time never are, since nothing tells a repeat of them
	Disorder     float64       // share of messages overtaken by later ones
	ClockOffset  time.Duration // the device's clock minus true time at the start
	ClockDrift   float64       // seconds that it gains per second
	BrokenSensor bool          // one reading, half way, is NaN
}

// UsualFaults are those of a healthy device on a poor network.
func UsualFaults() Faults {
	return Faults{Gap: 0.02, Late: 0.05, Duplicate: 0.01, Disorder: 0.02}
}

// The uses of randomness: each has a generator of its own, so that none disturbs
// another.
const (
	physicsDraws uint64 = iota + 1
	linkDraws
	anchorDraws
)

// physics adds what is measured at a second, the i-th since the start, to out.
type physics func(i int, at time.Time, out *measures)

// device joins a device's physics, begun anew for each range over its messages, to
// its link.
func device(seed uint64, start time.Time, o Options, profile string, streams []Stream, begin func(o Options, rng *rand.Rand) physics) Device {
	if o.For <= 0 {
		o.For = time.Hour
	}
	if o.Life <= 0 {
		o.Life = o.For
	}
	if o.Name == "" {
		o.Name = fmt.Sprintf("%s-%d", profile, seed)
	}
	return Device{o.Name, o.Owner, o.Firm, profile, streams, func(yield func(Message) bool) {
		rng := rand.New(rand.NewPCG(seed, physicsDraws))
		step, l, at := begin(o, rng), newLink(seed, start, o), start
		for i := range int(o.For / time.Second) {
			at = start.Add(time.Duration(i)*time.Second + time.Duration(rng.IntN(20))*time.Millisecond)
			if !l.flush(at, yield) {
				return
			}
			out := measures{streams: streams}
			step(i, at.UTC(), &out)
			l.second(at, out.list)
		}
		l.deliver(at)
		l.flush(holdfast.MaxTime, yield)
	}}
}
