package intake

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/senml"
	"github.com/holdfast-iot/holdfast/internal/sparkplug"
)

// Options are how an intake runs. Broker, Map, Gateway, State and Key are needed.
type Options struct {
	Broker  Broker
	Map     *Map
	Gateway Gateway
	State   string // folder
	// Key is what only this gateway knows: checks in the state's files are keyed with
	// it, so that they tell nobody what a message said.
	Key []byte

	// Hold leaves messages that can't be stored unacknowledged, up to half a window;
	// then Run ends with an error. Else they are acknowledged and counted.
	Hold bool
	// Declare makes an unknown name a child of the gateway.
	Declare func(ctx context.Context, name string) error
	// Rebirth asks nodes of Sparkplug for a birth when their aliases are not known.
	Rebirth bool

	Logger   *slog.Logger
	Now      func() int64 // ns since 1970; the system's clock
	Every    time.Duration
	Progress func(*Report) // called each Every, if that is not 0
}

// Intake runs.
type intake struct {
	Options
	state    *state
	hub      *hub
	link     *link
	report   *Report
	held     int
	declared map[string]error
	asked    map[string]time.Time // nodes, for their births
}

// Bounds of one pack.
const (
	packReadings = 2000
	packBytes    = 256 << 10
)

// grace is how long what is under way may go on when Run is told to end.
const grace = 5 * time.Second

// Run takes messages in until ctx ends, which is no error. It keeps trying what
// can heal. The report is not nil.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = systemNow
	}
	if o.Broker.Window <= 0 {
		o.Broker.Window = DefaultWindow
	}
	in := &intake{Options: o, hub: &hub{gateway: o.Gateway}, report: newReport(), declared: map[string]error{}, asked: map[string]time.Time{}}
	filters, err := o.Map.Filters()
	if err != nil {
		return in.report, err
	}
	if in.state, err = openState(o.State, o.Key, o.Now); err != nil {
		return in.report, err
	}
	defer in.state.close()
	defer in.hub.close()
	for attempt := 0; ctx.Err() == nil; attempt++ {
		in.link, err = in.Broker.dial(ctx, filters)
		if err == nil {
			attempt = -1
			in.Logger.Info("connected to the broker", "session_present", in.link.present, "filters", len(filters))
			err = in.listen(ctx)
			in.link.close()
			if _, ends := errors.AsType[*heldError](err); ends {
				return in.report, err
			}
		}
		if ctx.Err() != nil {
			break
		}
		in.report.Reconnects++
		in.Logger.Warn("the broker is away", "error", err)
		pause(ctx, attempt)
	}
	return in.report, nil
}

// pause waits longer from attempt to attempt, up to 30 s.
func pause(ctx context.Context, attempt int) {
	wait := min(30*time.Second, 250*time.Millisecond<<min(max(attempt, 0), 7))
	wait = wait/2 + rand.N(wait/2+1)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// heldError ends an intake that holds what it can't store.
type heldError struct{ n int }

func (e *heldError) Error() string {
	return itoa(e.n) + " messages can't be stored and are held at the broker: mend the map or declare the devices, then start again"
}

// listen takes one connection's messages in rounds: all that have come are
// stored, then acknowledged.
func (in *intake) listen(ctx context.Context) error {
	in.held = 0 // what was held comes again
	alive := time.NewTicker(hubIdle / 2)
	defer alive.Stop()
	var progress <-chan time.Time
	if in.Every > 0 && in.Progress != nil {
		t := time.NewTicker(in.Every)
		defer t.Stop()
		progress = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-alive.C:
			in.hub.alive()
		case <-progress:
			in.Progress(in.report)
		case m, ok := <-in.link.messages:
			if !ok {
				return in.link.why
			}
			round := in.gather(m)
			if err := in.round(ctx, round); err != nil {
				return err
			}
		}
	}
}

// gather is a message with those that wait behind it.
func (in *intake) gather(first *Message) []*Message {
	round := []*Message{first}
	for len(round) < in.Broker.Window {
		select {
		case m, ok := <-in.link.messages:
			if !ok {
				return round
			}
			round = append(round, m)
		default:
			return round
		}
	}
	return round
}

// round stores what some messages hold and acknowledges them.
func (in *intake) round(ctx context.Context, messages []*Message) error {
	// What has begun may end, for a while, when the process is told to end.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()

	taken := make([]Taken, len(messages))
	var fresh []uint16
	births := false
	for i, m := range messages {
		t := in.Map.Take(m, in.state.tables)
		at := int64(-1)
		for k := range t.Samples {
			if t.Samples[k].Timed {
				continue
			}
			if at < 0 {
				var isNew bool
				if at, isNew = in.state.times.of(m); isNew {
					fresh = append(fresh, m.ID)
				}
			}
			t.Samples[k].Time, t.Samples[k].Timed, t.Stamped = at, true, true
		}
		births = births || t.Births
		taken[i] = t
		in.rebirth(m, t)
	}
	for attempt := 0; ; attempt++ {
		err := in.state.times.keep(fresh)
		if err == nil && births {
			err = in.state.keepBirths()
		}
		if err == nil {
			break
		}
		in.Logger.Error("the state can't be written: nothing is acknowledged", "error", err)
		if pause(work, attempt); work.Err() != nil {
			return work.Err()
		}
	}
	said, err := in.store(work, taken)
	if err != nil {
		return err
	}
	return in.settle(messages, taken, said)
}

// settle counts what became of messages, and acknowledges them.
func (in *intake) settle(messages []*Message, taken []Taken, said []error) error {
	done := messages[:0:0]
	for i, m := range messages {
		stored := in.report.count(m, &taken[i], said[i])
		if !stored && in.Hold && m.QoS > 0 {
			in.held++
			continue
		}
		done = append(done, m)
	}
	if err := in.link.ack(done); err != nil {
		return err
	}
	if in.held > in.Broker.Window/2 {
		return &heldError{in.held}
	}
	return nil
}

// store sends the readings of messages until the hub has said of each message's
// that they are durable (nil) or never will be.
func (in *intake) store(ctx context.Context, taken []Taken) (said []error, err error) {
	said = make([]error, len(taken))
	packs := packsOf(taken)
	for attempt := 0; len(packs) > 0; attempt++ {
		answers, answered, err := in.hub.publish(ctx, packs)
		var next []pack
		for i, p := range packs {
			switch {
			case !answered[i]:
				next = append(next, p)
			case answers[i] == nil:
			case in.declare(ctx, p.child, answers[i]):
				next = append(next, p)
			case len(p.items) > 1: // each by itself: one may be at fault
				for _, item := range p.items {
					next = append(next, packOf(taken, p.child, []int{item}))
				}
			default:
				said[p.items[0]] = answers[i]
			}
		}
		packs = next
		if err == nil {
			attempt = -1
			continue
		}
		in.report.Retries++
		in.Logger.Warn("the hub is away: nothing is acknowledged to the broker", "error", err)
		if pause(ctx, attempt); ctx.Err() != nil {
			return said, ctx.Err()
		}
	}
	return said, nil
}

// packsOf lays the readings of many messages together by device, in their order.
func packsOf(taken []Taken) []pack {
	type open struct {
		items           []int
		readings, bytes int
	}
	var order []string
	of := map[string]*open{}
	var out []pack
	flush := func(child string, o *open) {
		if len(o.items) > 0 {
			out = append(out, packOf(taken, child, o.items))
		}
		*o = open{}
	}
	for i, t := range taken {
		if len(t.Samples) == 0 {
			continue
		}
		o := of[t.Device]
		if o == nil {
			o = &open{}
			of[t.Device] = o
			order = append(order, t.Device)
		}
		size := 0
		for _, s := range t.Samples {
			size += 2*s.Value.Size() + len(s.Stream) + 64
		}
		if o.readings+len(t.Samples) > packReadings || o.bytes+size > packBytes {
			flush(t.Device, o)
		}
		o.items, o.readings, o.bytes = append(o.items, i), o.readings+len(t.Samples), o.bytes+size
	}
	for _, child := range order {
		flush(child, of[child])
	}
	return out
}

func packOf(taken []Taken, child string, items []int) pack {
	n := 0
	for _, i := range items {
		n += len(taken[i].Samples)
	}
	body := senml.AppendCBORPack(nil, n)
	for _, i := range items {
		for _, s := range taken[i].Samples {
			body = senml.AppendCBOR(body, s.Stream, s.Unit, holdfast.Reading{Time: s.Time, Seq: s.Seq, Value: s.Value})
		}
	}
	return pack{child: child, body: body, items: slices.Clone(items)}
}

// maxDeclared bounds the devices that one run declares: a broker's topics are
// anybody's.
const maxDeclared = 1000

// declare makes a child that the hub does not know, once. It reports whether the
// pack is to be sent again.
func (in *intake) declare(ctx context.Context, child string, refused error) bool {
	r, ok := errors.AsType[*refusal](refused)
	if !ok || r.code != 0x90 || child == "" || in.Declare == nil || len(in.declared) >= maxDeclared {
		return false
	}
	if _, tried := in.declared[child]; tried {
		return false
	}
	err := in.Declare(ctx, child)
	in.declared[child] = err
	if err != nil {
		in.Logger.Error("a device can't be declared", "error", err)
		return false
	}
	in.report.Declared++
	return true
}

// rebirth asks a node for its births, at most once a minute.
func (in *intake) rebirth(m *Message, t Taken) {
	if !in.Rebirth || t.Unknown == 0 {
		return
	}
	topic, err := sparkplug.ParseTopic(m.Topic)
	if err != nil {
		return
	}
	to := sparkplug.Namespace + "/" + topic.Group + "/NCMD/" + topic.Node
	now := time.Unix(0, in.Now())
	if last, ok := in.asked[to]; ok && now.Sub(last) < time.Minute || len(in.asked) >= 10_000 {
		return
	}
	in.asked[to] = now
	payload := sparkplug.Rebirth(sparkplug.Millis{At: uint64(now.UnixMilli()), Known: true})
	if err := in.link.send(func(w io.Writer) error { return in.link.codec.publish(w, to, payload) }); err == nil {
		in.report.Rebirths++
	}
}
