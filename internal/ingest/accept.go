package ingest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Delivery is what a durable record must know of the MQTT publish it came in.
type Delivery struct {
	PacketID uint16
	QoS2     bool
}

// Batch is a few messages of one connection that are sealed and made durable
// together. It is used by one goroutine, until Commit, and is of no use after it.
type Batch struct {
	ctx     context.Context
	gate    *Gate
	peer    identity.Peer
	session string
	arrival int64

	parts    []*part
	at       map[partKey]int // where a part stands among many; nil while they are few
	touched  []touch         // the parts that the message under way adds to
	received []uint16
	released []uint16
	readings int
	moves    bool // of readings that the hub has already

	collected grant.Collected // to ask about, without a new one each time

	// Of the commit under way.
	done  func(error)
	left  atomic.Int32 // parts without an answer
	mu    sync.Mutex
	err   error
	whole []uint16 // of the parts that are durable
}

// part is one record to be: the readings of one assignment and key bucket. A device
// with periods has several, by the times of its readings.
type part struct {
	route    *custody.Route
	header   series.Header
	content  series.Content
	lease    *vault.Lease
	plain    []byte
	record   []byte
	received []uint16
	whole    []uint16 // those of received whose message has readings in no other part

	batch  *Batch
	answer func(journal.Pos, error) // part.answered, made once for all lives of the part
}

type partKey struct {
	assignment holdfast.AssignmentID
	bucket     seal.Bucket
}

// fewParts are found by looking at each; more get a map. A device has one, or a few
// by its periods, a gateway one for each child.
const fewParts = 8

// touch is a part and how many rows it had before the message under way.
type touch struct{ part, rows int }

var parts sync.Pool // of *part

func newPart() *part {
	if p, ok := parts.Get().(*part); ok {
		return p
	}
	p := new(part)
	p.answer = p.answered
	return p
}

// Add takes one message whole or not at all, but for readings whose collection was
// stopped: those are left out, so that one stream's stop does not stop the others
// that come with it. child names a declared child of the
// peer, "" is the peer itself. It keeps no reference to samples.
//
// Of the errors, Unavailable and Internal may heal: the message must stay
// unacknowledged and the connection end. The others won't: sending it again is
// of no use.
func (b *Batch) Add(child string, samples []holdfast.Sample, d Delivery) error {
	route, err := b.route(child)
	if err != nil {
		b.gate.metrics.refused(err, len(samples))
		return err
	}
	return b.AddTo(route, samples, d)
}

func (b *Batch) route(child string) (*custody.Route, error) {
	device := b.peer.Device
	if child != "" {
		var err error
		if device, err = b.gate.custody.Child(b.ctx, b.peer.Device, child); err != nil {
			return nil, err
		}
	}
	return b.gate.custody.Route(b.ctx, device)
}

// AddTo is Add for who has asked custody for the route already, a moment ago: that
// of the peer or of a declared child of it.
func (b *Batch) AddTo(route *custody.Route, samples []holdfast.Sample, d Delivery) error {
	err := b.add(route, samples, d)
	if err != nil {
		b.gate.metrics.refused(err, len(samples))
	}
	return err
}

func (b *Batch) add(route *custody.Route, samples []holdfast.Sample, d Delivery) error {
	if len(samples) > b.gate.opt.MaxBatchReadings {
		return holdfast.Errorf(holdfast.TooLarge, "a message carries at most %d readings", b.gate.opt.MaxBatchReadings)
	}
	// Rows go to the parts at once; an error takes back what this message added.
	b.touched = b.touched[:0]
	have := len(b.parts)
	m := message{route: route, to: route, bars: b.gate.purposes.Bars(route.Assignment)}
	m.own = m.bars
	for i := range samples {
		if err := b.reading(&m, &samples[i]); err != nil {
			b.undo(have)
			if len(samples) > 1 { // which one, not what: names are for its owner
				err = holdfast.Errorf(holdfast.KindOf(err), "reading %d of %d: %w", i+1, len(samples), err)
			}
			return err
		}
	}
	if m.stopped > 0 {
		if m.stopped == len(samples) {
			return errStopped
		}
		b.gate.metrics.dropped.Add(float64(m.stopped))
	}
	if d.QoS2 {
		// The id goes where the last of the message's readings are: the journal keeps
		// a prefix, so whoever finds the id finds all of them.
		last := -1
		for _, t := range b.touched {
			last = max(last, t.part)
		}
		if last >= 0 {
			b.parts[last].received = append(b.parts[last].received, d.PacketID)
		}
		if len(b.touched) == 1 {
			b.parts[last].whole = append(b.parts[last].whole, d.PacketID)
		}
		b.received = append(b.received, d.PacketID)
	}
	b.readings += len(samples) - m.stopped
	b.gate.skews.note(route.Device, &m.seen, b.arrival)
	return nil
}

// errStopped won't heal by sending again.
var errStopped = holdfast.Errorf(holdfast.Denied, "collection was stopped by the one whose data it is")

// message is what the readings of one message have in common.
type message struct {
	route *custody.Route  // of the device
	to    *custody.Route  // of the assignment that the last reading belongs to
	own   grant.Bars      // of route
	bars  grant.Bars      // of to
	live  *custody.Stream // the last stream of to found to have a live purpose
	part  int             // of the last reading, if live is set

	stopped int // readings whose collection is stopped: left out, the others are taken
	seen    seen
}

// reading puts one sample into its part.
func (b *Batch) reading(m *message, x *holdfast.Sample) error {
	if x.Value.Size() > holdfast.MaxValueBytes+8 {
		return holdfast.Errorf(holdfast.TooLarge, "a value has at most %d bytes", holdfast.MaxValueBytes)
	}
	r := holdfast.Reading{Time: x.Time, Seq: x.Seq}
	if !x.Timed {
		r.Time = b.arrival
		r.Mark |= holdfast.Stamped
	} else {
		m.seen.newest = max(m.seen.newest, x.Time)
	}
	to, byArrival := m.route.At(r.Time, b.arrival)
	if byArrival {
		r.Mark |= holdfast.Clock
		m.seen.marked, m.seen.off = m.seen.marked+1, max(0, x.Time)-b.arrival
	}
	if to != m.to {
		if err := to.Denied(); err != nil {
			return err
		}
		m.to, m.bars, m.live = to, b.gate.purposes.Bars(to.Assignment), nil
	}
	// Before a first reading makes its stream: of what is stopped nothing is kept.
	if b.gate.purposes.Stopped(to.Whose(), to.Assignment, x.Stream) {
		m.stopped++
		return nil
	}
	stream, value, err := b.accept(m, x)
	if err != nil {
		return err
	}
	r.Value = value
	if b.peer.TLS12 {
		r.Mark |= holdfast.TLS12
	}
	if m.bars.Bar(stream.ID, r.Time, b.arrival) || to != m.route && m.own.BarPast(r.Time, b.arrival) {
		return holdfast.Errorf(holdfast.Denied, "these readings were erased: they are not taken back in")
	}
	if stream != m.live {
		if !slices.ContainsFunc(stream.Purposes, func(p holdfast.Purpose) bool { return b.gate.purposes.Live(b.ctx, p) }) {
			return holdfast.Errorf(holdfast.Denied, "the stream has no live purpose: it is not collected")
		}
		if err := b.gate.opt.Hold(to.Assignment, stream.ID); err != nil {
			return err
		}
		m.live, m.part = stream, b.part(m.route, to.Assignment, seal.BucketOf(b.arrival, b.daily(stream)))
	}
	p := b.parts[m.part]
	p.content.Rows = append(p.content.Rows, series.Row{Stream: stream.ID, Reading: r})
	return nil
}

// daily reports whether a stream's keys are of the day, not of the month.
func (b *Batch) daily(s *custody.Stream) bool {
	if s.Daily {
		return true
	}
	b.collected = grant.Collected{Category: s.Category, Purposes: s.Purposes, Days: s.RetentionDays}
	return b.gate.purposes.Daily(&b.collected)
}

// accept is custody's, without the look-up when the stream is that of the reading
// before.
func (b *Batch) accept(m *message, x *holdfast.Sample) (*custody.Stream, holdfast.Value, error) {
	if m.live != nil && m.live.Name == x.Stream && x.Unit == "" {
		v, err := m.live.Accept(x)
		return m.live, v, err
	}
	return b.gate.custody.Accept(b.ctx, m.to, x)
}

// part finds or begins the part of an assignment and bucket, which the message
// under way is about to add to. The device's route told that it belongs there.
func (b *Batch) part(route *custody.Route, a holdfast.AssignmentID, bucket seal.Bucket) int {
	at := b.find(a, bucket)
	if at < 0 {
		at = b.begin(a, bucket)
		b.parts[at].route = route // the oldest: a later message's is no staler
	}
	if !slices.ContainsFunc(b.touched, func(t touch) bool { return t.part == at }) {
		b.touched = append(b.touched, touch{at, len(b.parts[at].content.Rows)})
	}
	return at
}

func (b *Batch) find(a holdfast.AssignmentID, bucket seal.Bucket) int {
	if b.at != nil {
		if at, ok := b.at[partKey{a, bucket}]; ok {
			return at
		}
		return -1
	}
	return slices.IndexFunc(b.parts, func(p *part) bool { return p.header.Assignment == a && p.header.Bucket == bucket })
}

func (b *Batch) begin(a holdfast.AssignmentID, bucket seal.Bucket) int {
	p := newPart()
	p.batch = b
	p.header = series.Header{Type: series.Readings, Assignment: a, Bucket: bucket, Arrival: b.arrival}
	p.content = series.Content{Rows: p.content.Rows[:0]}
	p.received, p.whole = p.received[:0], p.whole[:0]
	b.parts = append(b.parts, p)
	switch at := len(b.parts) - 1; {
	case b.at != nil:
		b.at[partKey{a, bucket}] = at
	case len(b.parts) > fewParts:
		b.at = make(map[partKey]int, 4*fewParts)
		for i, p := range b.parts {
			b.at[partKey{p.header.Assignment, p.header.Bucket}] = i
		}
	}
	return len(b.parts) - 1
}

// undo takes back what the message under way added; the batch had so many parts
// before it.
func (b *Batch) undo(parts int) {
	for _, t := range b.touched {
		rows := b.parts[t.part].content.Rows
		clear(rows[t.rows:])
		b.parts[t.part].content.Rows = rows[:t.rows]
	}
	for _, p := range b.parts[parts:] {
		delete(b.at, partKey{p.header.Assignment, p.header.Bucket})
		p.recycle()
	}
	b.parts = b.parts[:parts]
}

// Release ends the life of a QoS 2 packet id; it is durable with the Commit.
func (b *Batch) Release(packetID uint16) { b.released = append(b.released, packetID) }

// Len returns how many readings the batch holds.
func (b *Batch) Len() int { return b.readings }

// Commit makes the batch durable. done is called exactly once, possibly before
// Commit returns, else by the journal's committer: with nil when all of it is
// durable, else with the reason why none of it counts. Commit blocks while the
// journal's queue is full.
func (b *Batch) Commit(done func(error)) {
	if len(b.released) > 0 || len(b.received) > 0 && len(b.parts) == 0 {
		if err := b.carryIDs(); err != nil {
			b.fail(err, done)
			return
		}
	}
	if len(b.parts) == 0 {
		done(nil)
		return
	}
	if err := b.sealAll(); err != nil {
		b.fail(err, done)
		return
	}
	b.done = done
	b.left.Store(int32(len(b.parts)))
	var bytes int
	for _, p := range b.parts {
		bytes += len(p.record)
	}
	b.gate.metrics.records.Add(float64(len(b.parts)))
	b.gate.metrics.bytes.Add(float64(bytes))
	for _, p := range b.parts {
		b.gate.log.Append(p.record, p.answer)
	}
}

// carryIDs finds a record for packet ids: one of the batch under the peer's key,
// else one of its own. A child's would not do: if that is erased, it takes the end
// of an id with it, and a later message of the same id would pass for a repeat. A
// peer that was erased has no session to keep.
func (b *Batch) carryIDs() error {
	if b.session == "" {
		return nil
	}
	alone := len(b.parts) == 0
	at := slices.IndexFunc(b.parts, func(p *part) bool { return p.header.Assignment == b.peer.Assignment })
	if at < 0 {
		route, err := b.gate.custody.Route(b.ctx, b.peer.Device)
		if k := holdfast.KindOf(err); err != nil && (k == holdfast.Denied || k == holdfast.NotFound) {
			return nil
		} else if err != nil {
			return err
		}
		at = b.part(route, route.Assignment, seal.BucketOf(b.arrival, false))
		if len(b.parts[at].content.Rows) == 0 {
			b.parts[at].header.Type = series.Release
		}
		if alone {
			b.parts[at].received = append(b.parts[at].received, b.received...)
		}
	}
	b.parts[at].content.Released = b.released
	return nil
}

// sealAll leases the keys and seals each part.
func (b *Batch) sealAll() error {
	for _, p := range b.parts {
		lease, err := b.gate.keys.JournalKey(b.ctx, p.header.Assignment, p.header.Bucket)
		if err != nil {
			return err
		}
		p.lease = lease
		if p.route.Stale() {
			return holdfast.Errorf(holdfast.Unavailable, "the device's assignments changed while its readings came in: send again")
		}
		// Asked again now that there is a lease: an erasure that came between Add
		// and here waits for leases older than itself, and must not miss a newer one.
		// One that has ended since then left a bar.
		bars := b.gate.purposes.Bars(p.header.Assignment)
		for i := range p.content.Rows {
			r := &p.content.Rows[i]
			if i == 0 || r.Stream != p.content.Rows[i-1].Stream {
				if err := b.gate.opt.Hold(p.header.Assignment, r.Stream); err != nil {
					return err
				}
			}
			if !b.moves && bars.Bar(r.Stream, r.Time, b.arrival) {
				return holdfast.Errorf(holdfast.Unavailable, "readings of this stream were erased while they came in: send again")
			}
		}
		if p.content.Received = p.received; len(p.received)+len(p.content.Released) > 0 {
			p.content.Session = []byte(b.session)
		}
		p.header.Writer, p.header.Counter = b.gate.writer, b.gate.counter.Add(1)
		p.header.Key = lease.Cipher.ID()
		if p.record, p.plain, err = series.AppendRecord(p.record[:0], p.plain, p.header, &p.content, lease.Cipher); err != nil {
			return holdfast.Errorf(holdfast.Unavailable, "the key was withdrawn while the reading was sealed: %w", err)
		}
	}
	return nil
}

// fail ends a batch that did not reach the journal.
func (b *Batch) fail(err error, done func(error)) {
	for _, p := range b.parts {
		if p.lease != nil {
			p.lease.Done()
		}
		p.recycle()
	}
	b.gate.metrics.failed.Add(float64(b.readings))
	done(err)
}

// answered is told what became of the part's record. It runs in the journal's
// committer and must not block.
func (p *part) answered(pos journal.Pos, err error) {
	b := p.batch
	if err == nil && !p.lease.Valid() {
		err = holdfast.Errorf(holdfast.Unavailable, "the key was withdrawn while the reading was written")
	}
	if err == nil {
		b.gate.tail.Observe(p.header, p.content.Rows, pos, pos+journal.Pos(len(p.record)))
	}
	if err != nil || len(p.whole) > 0 {
		b.mu.Lock()
		if err != nil {
			b.err = errors.Join(b.err, err)
		} else {
			b.whole = append(b.whole, p.whole...)
		}
		b.mu.Unlock()
	}
	p.lease.Done()
	p.recycle()
	if b.left.Add(-1) > 0 {
		return
	}
	b.mu.Lock()
	err = b.err
	b.mu.Unlock()
	if err != nil {
		b.gate.metrics.failed.Add(float64(b.readings))
		// None of it is acknowledged, but what is durable must not be taken again.
		b.gate.sessions.exchanged(b.session, b.whole, nil)
	} else {
		b.gate.metrics.durable.Add(float64(b.readings))
		b.gate.sessions.exchanged(b.session, b.received, b.released)
	}
	b.done(err)
}

// The largest buffers that go back to the pool.
const (
	maxKept     = 64 << 10
	maxKeptRows = 1000
)

// recycle clears the plaintext and gives the buffers back.
func (p *part) recycle() {
	clear(p.plain)
	clear(p.content.Rows)
	p.batch, p.route, p.plain, p.content.Rows = nil, nil, p.plain[:0], p.content.Rows[:0]
	if cap(p.plain) > maxKept || cap(p.record) > maxKept || cap(p.content.Rows) > maxKeptRows {
		return
	}
	p.lease = nil
	parts.Put(p)
}
