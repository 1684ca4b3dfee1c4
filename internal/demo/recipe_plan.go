package demo

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"
)

// Plan is a fleet of devices that send side by side.
type Plan struct {
	Devices []Device
	// Start is the virtual time at which Play begins; the first message's if zero.
	Start time.Time
	// Speed is how much faster than real time Play goes; 0 is as fast as its caller
	// takes the messages.
	Speed float64
}

// The owners in the demo who are no persons.
const (
	couriers = "Swift Couriers"
	shop     = "Corner Shop"
)

// Fleet is the demo's: a bench of the operating organisation ("" as owner), three
// people with a wearable each, a delivery firm with two vans, and a shop with a cold
// room. Ben's clock is 90 s fast and gains 20 s a day, that of the second van is 25 s
// slow; vans are often without network; Cleo's device has no faults.
func Fleet(seed uint64, start time.Time, length time.Duration) Plan {
	usual := UsualFaults()
	torn, fast, far, slow := usual, usual, usual, usual
	torn.BrokenSensor = true
	fast.ClockOffset, fast.ClockDrift = 90*time.Second, 20./86400
	far.Late, slow.Late = 0.1, 0.1
	slow.ClockOffset = -25 * time.Second
	return Plan{Start: start, Devices: []Device{
		Bearing(seed, start, Options{Name: "bench-1", For: length, Faults: torn}),
		Wearable(seed+1, start, Options{Name: "band-ada", Owner: "Ada", For: length, Faults: usual}),
		Wearable(seed+2, start, Options{Name: "band-ben", Owner: "Ben", For: length, Faults: fast}),
		Wearable(seed+3, start, Options{Name: "band-cleo", Owner: "Cleo", For: length}),
		Van(seed+4, start, Options{Name: "van-1", Owner: couriers, Firm: true, For: length, Faults: far}),
		Van(seed+5, start, Options{Name: "van-2", Owner: couriers, Firm: true, For: length, Faults: slow}),
		ColdRoom(seed+6, start, Options{Name: "cold-1", Owner: shop, Firm: true, For: length, Faults: usual}),
	}}
}

// Messages gives every device's messages in the order of At, without waiting. Of
// two at the same moment, the device that stands first in Devices sends first.
func (p *Plan) Messages() iter.Seq2[*Device, Message] {
	return func(yield func(*Device, Message) bool) {
		type head struct {
			device  *Device
			message Message
			next    func() (Message, bool)
		}
		var heads []head
		for i := range p.Devices {
			next, stop := iter.Pull(p.Devices[i].Messages)
			defer stop()
			if m, ok := next(); ok {
				heads = append(heads, head{&p.Devices[i], m, next})
			}
		}
		for len(heads) > 0 {
			first := 0
			for i := range heads {
				if heads[i].message.At.Before(heads[first].message.At) {
					first = i
				}
			}
			h, ok := &heads[first], false
			if !yield(h.device, h.message) {
				return
			}
			if h.message, ok = h.next(); !ok {
				heads = slices.Delete(heads, first, first+1)
			}
		}
	}
}

// Play gives the messages of Messages, each when its moment has come at the plan's
// Speed, and ends early when ctx is done. A caller who is slower than the plan gets
// what is overdue at once, and none is left out.
func (p *Plan) Play(ctx context.Context) iter.Seq2[*Device, Message] {
	return func(yield func(*Device, Message) bool) {
		begun, start := time.Now(), p.Start
		for d, m := range p.Messages() {
			start = cmp.Or(start, m.At)
			if p.Speed > 0 {
				due := begun.Add(time.Duration(float64(m.At.Sub(start)) / p.Speed))
				select {
				case <-time.After(time.Until(due)):
				case <-ctx.Done():
				}
			}
			if ctx.Err() != nil || !yield(d, m) {
				return
			}
		}
	}
}
