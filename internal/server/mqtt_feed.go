package server

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/mqtt"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/senml"
)

// subscriptions is what there is to subscribe to over MQTT: readings for people and
// programs, commands and desired states for devices.
type subscriptions struct{ s *Server }

func (x subscriptions) Open(ctx context.Context, who mqtt.Subscriber, filter, resume string) (mqtt.Subscription, error) {
	if rest, ok := strings.CutPrefix(filter, "feed/"); ok {
		return x.s.openFeed(ctx, who, rest, resume)
	}
	return twinSource{x.s.twin}.Open(ctx, who, filter, resume)
}

const (
	// mostParties is of how many parties one subscription with a wildcard gives readings.
	mostParties = 64
	// lookForParties is how often such a subscription looks for parties that have made a
	// grant meanwhile.
	lookForParties = time.Minute
	// tooSlow is how long a subscriber may take for one reading before the end of a feed
	// is taken to be his doing.
	tooSlow = 20 * time.Second
)

// feedFilter is what stands behind feed/.
type feedFilter struct {
	device string // "": all
	stream string // "": all
	one    bool   // streams of one level only
}

func parseFeed(rest string) (f feedFilter, err error) {
	shape := holdfast.Errorf(holdfast.Invalid, "readings are feed/DEVICE/STREAM; + stands for any device, + or # for any stream, feed/# for all")
	if rest == "#" {
		return f, nil
	}
	device, stream, ok := strings.Cut(rest, "/")
	if !ok {
		return f, shape
	}
	if device != "+" {
		if holdfast.CheckName("device", device) != nil {
			return f, shape
		}
		f.device = device
	}
	switch {
	case stream == "+":
		f.one = true
	case stream == "#":
	case holdfast.CheckName("stream", stream) != nil:
		return f, shape
	default:
		f.stream = stream
	}
	return f, nil
}

// topic is where a reading is published: under the name that the subscriber gave the
// device, else under the one that he may know it by. It is "" for a stream that the
// filter does not match.
func (f *feedFilter) topic(src *query.Source) string {
	if f.one && strings.Contains(src.Stream, "/") {
		return ""
	}
	device := cmp.Or(f.device, src.DeviceName)
	if device == "" {
		device = src.Device.String()
	}
	return "feed/" + device + "/" + src.Stream
}

// feed is a subscription to readings: a Follow of a device, or one of each party whose
// readings there may be.
type feed struct {
	s       *Server
	ctx     context.Context // of its follows
	cancel  context.CancelFunc
	who     access.Principal
	purpose holdfast.Purpose
	filter  feedFilter
	given   chan given
	look    *time.Ticker // for parties; nil: there is one for good
	parts   []*feedPart
	mark    string // at the beginning
	running sync.WaitGroup
}

// feedPart is one Follow of a feed.
type feedPart struct {
	key    string // in the mark
	party  holdfast.PartyID
	follow *query.Feed
	cursor string
}

// given is an item, or the end of a part.
type given struct {
	part *feedPart
	item query.Item
	err  error
}

func (s *Server) openFeed(ctx context.Context, who mqtt.Subscriber, rest, resume string) (mqtt.Subscription, error) {
	if who.IsDevice() {
		return nil, holdfast.Errorf(holdfast.Denied, "readings are for people and programs: a device subscribes to cmd/# and desired")
	}
	filter, err := parseFeed(rest)
	if err != nil {
		return nil, err
	}
	f := &feed{s: s, filter: filter, purpose: holdfast.Purpose(who.Purpose), given: make(chan given)}
	if f.who, err = s.access.Again(ctx, who.Peer.Credential); err != nil {
		return nil, err
	}
	if f.purpose != "" && f.purpose != holdfast.OwnAccess && !s.grants.Live(ctx, f.purpose) {
		return nil, holdfast.Errorf(holdfast.Denied, "the purpose does not exist or has ended")
	}
	f.ctx, f.cancel = context.WithCancel(s.edges)
	if err := f.open(ctx, splitMark(resume)); err != nil {
		for _, p := range f.parts {
			p.follow.Close()
		}
		f.cancel()
		return nil, err
	}
	for _, p := range f.parts {
		f.start(p)
	}
	f.mark = f.place()
	return f, nil
}

// open begins the follows. Of several parties those that refuse are left out, if any
// does not.
func (f *feed) open(ctx context.Context, marks map[string]string) error {
	if f.filter.device != "" {
		device, err := f.device(ctx)
		if err != nil {
			return err
		}
		return f.begin("device", holdfast.PartyID{}, query.Selection{Device: device, Stream: f.filter.stream}, marks)
	}
	parties, err := f.parties(ctx)
	if err != nil {
		return err
	}
	var refused error
	for _, p := range parties {
		err := f.begin(p.String(), p, query.Selection{Party: p, Stream: f.filter.stream}, marks)
		if k := holdfast.KindOf(err); err != nil && k != holdfast.Denied && k != holdfast.NotFound {
			return err
		}
		refused = cmp.Or(refused, err)
	}
	if len(f.parts) == 0 {
		return refused
	}
	if f.who.Role == access.Program {
		f.look = time.NewTicker(lookForParties)
	}
	return nil
}

// parties are those whose readings a wildcard may mean: the subscriber's own, and for
// a program those who have granted that something.
func (f *feed) parties(ctx context.Context) ([]holdfast.PartyID, error) {
	all := []holdfast.PartyID{f.who.Party}
	if f.who.Role != access.Program {
		return all, nil
	}
	grantors, err := f.s.grants.Grantors(ctx, f.who.Party)
	if err != nil {
		return nil, err
	}
	for _, p := range grantors {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	if len(all) > mostParties {
		return nil, holdfast.Errorf(holdfast.TooLarge, "readings of more than %d parties: subscribe to devices by their ids", mostParties)
	}
	return all, nil
}

// device finds the device of a filter: any id, and the subscriber's own names. A name
// that is nobody's is answered like an id that is not his to read.
func (f *feed) device(ctx context.Context) (holdfast.DeviceID, error) {
	if id, err := holdfast.ParseID[holdfast.DeviceID](f.filter.device); err == nil {
		return id, nil
	}
	d, err := f.s.custody.DeviceByLabel(ctx, f.who.Party, f.filter.device)
	if k := holdfast.KindOf(err); err != nil && (k == holdfast.NotFound || k == holdfast.Conflict) {
		return holdfast.NewID[holdfast.DeviceID](), nil
	}
	return d.ID, err
}

func (f *feed) begin(key string, party holdfast.PartyID, sel query.Selection, marks map[string]string) error {
	follow, err := f.s.query.Follow(f.ctx, query.Follow{Who: f.who, Purpose: f.purpose, Selection: sel, After: marks[key]})
	if err != nil {
		return err
	}
	p := &feedPart{key: key, party: party, follow: follow}
	f.parts = append(f.parts, p)
	p.cursor, err = follow.Cursor()
	return err
}

func (f *feed) start(p *feedPart) { f.running.Go(func() { f.run(p) }) }

// run hands on what a part gives.
func (f *feed) run(p *feedPart) {
	slow := false
	for item, err := range p.follow.Items {
		if slow && holdfast.KindOf(err) == holdfast.Unavailable {
			err = holdfast.Errorf(holdfast.TooLarge, "the subscriber does not keep up: connect again to go on")
		}
		began := time.Now()
		select {
		case f.given <- given{p, item, err}:
		case <-f.ctx.Done():
			return
		}
		slow = time.Since(began) > tooSlow
	}
}

func (f *feed) Mark() string { return f.mark }

func (f *feed) Next(ctx context.Context) (mqtt.Message, error) {
	var look <-chan time.Time
	if f.look != nil {
		look = f.look.C
	}
	for {
		select {
		case g := <-f.given:
			if g.err == nil {
				return f.message(g), nil
			}
			if k := holdfast.KindOf(g.err); len(f.parts) == 1 || k != holdfast.Denied && k != holdfast.NotFound {
				return mqtt.Message{}, g.err
			}
			f.parts = slices.DeleteFunc(f.parts, func(p *feedPart) bool { return p == g.part })
		case <-look:
			if err := f.join(ctx); err != nil {
				return mqtt.Message{}, err
			}
		case <-ctx.Done():
			return mqtt.Message{}, ctx.Err()
		case <-f.ctx.Done():
			return mqtt.Message{}, holdfast.Errorf(holdfast.Unavailable, "the subscription was closed")
		}
	}
}

func (f *feed) message(g given) mqtt.Message {
	g.part.cursor = g.item.Cursor
	m := mqtt.Message{QoS: 1, ContentType: "application/json", Mark: f.place()}
	if row := g.item.Row; row != nil {
		if m.Topic = f.filter.topic(row.Source); m.Topic != "" {
			m.Payload = senml.AppendScalar(make([]byte, 0, 96), row.Reading)
		}
	}
	return m
}

// join begins follows of parties that have come since.
func (f *feed) join(ctx context.Context) error {
	parties, err := f.parties(ctx)
	if holdfast.KindOf(err) == holdfast.TooLarge { // it goes on with those that it has
		return nil
	}
	if err != nil {
		return err
	}
	for _, party := range parties {
		if slices.ContainsFunc(f.parts, func(p *feedPart) bool { return p.party == party }) {
			continue
		}
		err := f.begin(party.String(), party, query.Selection{Party: party, Stream: f.filter.stream}, nil)
		switch k := holdfast.KindOf(err); {
		case err == nil:
			f.start(f.parts[len(f.parts)-1])
		case k != holdfast.Denied && k != holdfast.NotFound:
			return err
		}
	}
	return nil
}

func (f *feed) Done(context.Context, mqtt.Message) error { return nil }

func (f *feed) Close() error {
	f.cancel()
	f.running.Wait() // the amounts are on record
	if f.look != nil {
		f.look.Stop()
	}
	return nil
}

// A mark has the cursor of each part, as KEY CURSOR, with commas.

func (f *feed) place() string {
	var b strings.Builder
	for i, p := range f.parts {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(p.key)
		b.WriteByte(' ')
		b.WriteString(p.cursor)
	}
	return b.String()
}

func splitMark(text string) map[string]string {
	marks := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		if key, cursor, ok := strings.Cut(part, " "); ok {
			marks[key] = cursor
		}
	}
	return marks
}
