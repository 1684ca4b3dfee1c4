package ingest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
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
// together. It is used by one goroutine and is of no use after Commit.
type Batch struct {
	ctx     context.Context
	gate    *Gate
	peer    identity.Peer
	session string
	arrival int64

	parts    []*part
	received []uint16
	released []uint16
	readings int
}

// part is one record to be: the readings of one assignment and key bucket.
type part struct {
	header   series.Header
	content  series.Content
	lease    *vault.Lease
	plain    []byte
	record   []byte
	received []uint16
	whole    []uint16 // those of received whose message has readings in no other part
}

var parts = sync.Pool{New: func() any { return new(part) }}

// Add takes one message whole or not at all. child names a declared child of the
// peer, "" is the peer itself. It keeps no reference to samples.
//
// Of the errors, Unavailable and Internal may heal: the message must stay
// unacknowledged and the connection end. The others won't: sending it again is
// of no use.
func (b *Batch) Add(child string, samples []holdfast.Sample, d Delivery) error {
	err := b.add(child, samples, d)
	if err != nil {
		b.gate.metrics.readings.WithLabelValues("refused: " + holdfast.KindOf(err).String()).Add(float64(len(samples)))
	}
	return err
}

func (b *Batch) add(child string, samples []holdfast.Sample, d Delivery) error {
	if len(samples) > b.gate.opt.MaxBatchReadings {
		return holdfast.Errorf(holdfast.TooLarge, "a message carries at most %d readings", b.gate.opt.MaxBatchReadings)
	}
	device := b.peer.Device
	if child != "" {
		var err error
		if device, err = b.gate.custody.Child(b.ctx, b.peer.Device, child); err != nil {
			return err
		}
	}
	route, err := b.gate.custody.Route(b.ctx, device)
	if err != nil {
		return err
	}
	// Rows go to the parts at once; an error takes back what this message added.
	undo := b.mark()
	first, last := len(b.parts)+len(samples), -1
	for i := range samples {
		at, err := b.reading(route, &samples[i])
		if err != nil {
			undo()
			if len(samples) > 1 { // which one, not what: names are for its owner
				err = holdfast.Errorf(holdfast.KindOf(err), "reading %d of %d: %w", i+1, len(samples), err)
			}
			return err
		}
		first, last = min(first, at), max(last, at)
	}
	if d.QoS2 {
		// The id goes where the last of the message's readings are: the journal keeps
		// a prefix, so whoever finds the id finds all of them.
		if last >= 0 {
			b.parts[last].received = append(b.parts[last].received, d.PacketID)
		}
		if first == last {
			b.parts[last].whole = append(b.parts[last].whole, d.PacketID)
		}
		b.received = append(b.received, d.PacketID)
	}
	b.readings += len(samples)
	return nil
}

// reading puts one sample into its part and returns which.
func (b *Batch) reading(route *custody.Route, x *holdfast.Sample) (int, error) {
	if x.Value.Size() > holdfast.MaxValueBytes+8 {
		return 0, holdfast.Errorf(holdfast.TooLarge, "a value has at most %d bytes", holdfast.MaxValueBytes)
	}
	stream, value, err := b.gate.custody.Accept(b.ctx, route, *x)
	if err != nil {
		return 0, err
	}
	if !slices.ContainsFunc(stream.Purposes, func(p holdfast.Purpose) bool { return b.gate.purposes.Live(b.ctx, p) }) {
		return 0, holdfast.Errorf(holdfast.Denied, "the stream has no live purpose: it is not collected")
	}
	r := holdfast.Reading{Time: x.Time, Seq: x.Seq, Value: value}
	switch {
	case !x.Timed:
		r.Time = b.arrival
		r.Mark |= holdfast.Stamped
	case x.Time > b.arrival+int64(ahead) || x.Time < b.arrival-int64(b.gate.opt.Spool):
		r.Mark |= holdfast.Clock
	}
	if b.peer.TLS12 {
		r.Mark |= holdfast.TLS12
	}
	if b.gate.purposes.Barred(route.Assignment, stream.ID, r.Time, b.arrival) {
		return 0, holdfast.Errorf(holdfast.Denied, "these readings were erased: they are not taken back in")
	}
	if err := b.gate.opt.Hold(route.Assignment, stream.ID); err != nil {
		return 0, err
	}
	at := b.part(route.Assignment, seal.BucketOf(b.arrival, stream.Daily))
	p := b.parts[at]
	p.content.Rows = append(p.content.Rows, series.Row{Stream: stream.ID, Reading: r})
	return at, nil
}

// part finds or begins the part of an assignment and bucket. A batch has few.
func (b *Batch) part(a holdfast.AssignmentID, bucket seal.Bucket) int {
	for i, p := range b.parts {
		if p.header.Assignment == a && p.header.Bucket == bucket {
			return i
		}
	}
	p := parts.Get().(*part)
	p.header = series.Header{Type: series.Readings, Assignment: a, Bucket: bucket, Arrival: b.arrival}
	p.content = series.Content{Rows: p.content.Rows[:0]}
	p.received, p.whole = p.received[:0], p.whole[:0]
	b.parts = append(b.parts, p)
	return len(b.parts) - 1
}

// mark remembers how far the batch has come; the function it returns goes back
// there.
func (b *Batch) mark() (undo func()) {
	n := len(b.parts)
	var rows [8]int
	have := rows[:0]
	for _, p := range b.parts {
		have = append(have, len(p.content.Rows))
	}
	return func() {
		for i, p := range b.parts[:n] {
			p.content.Rows = p.content.Rows[:have[i]]
		}
		for _, p := range b.parts[n:] {
			p.recycle()
		}
		b.parts = b.parts[:n]
	}
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
	j := &join{batch: b, done: done}
	j.left.Store(int32(len(b.parts)))
	for _, p := range b.parts {
		b.gate.metrics.records.Inc()
		b.gate.metrics.bytes.Add(float64(len(p.record)))
		b.gate.log.Append(p.record, func(pos journal.Pos, err error) { j.one(p, pos, err) })
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
		at = b.part(route.Assignment, seal.BucketOf(b.arrival, false))
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
		// Asked again now that there is a lease: an erasure that came between Add
		// and here waits for leases older than itself, and must not miss a newer one.
		// One that has ended since then left a bar.
		for i := range p.content.Rows {
			r := &p.content.Rows[i]
			if err := b.gate.opt.Hold(p.header.Assignment, r.Stream); err != nil {
				return err
			}
			if b.gate.purposes.Barred(p.header.Assignment, r.Stream, r.Time, b.arrival) {
				return holdfast.Errorf(holdfast.Unavailable, "readings of this stream were erased while they came in: send again")
			}
		}
		if p.content.Received = p.received; len(p.received)+len(p.content.Released) > 0 {
			p.content.Session = []byte(b.session)
		}
		p.header.Writer, p.header.Counter = b.gate.writer, b.gate.counter.Add(1)
		p.header.Key = lease.Cipher.ID()
		p.record, p.plain = series.AppendRecord(p.record[:0], p.plain, p.header, &p.content, lease.Cipher)
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
	b.gate.metrics.readings.WithLabelValues("failed").Add(float64(b.readings))
	done(err)
}

// join waits for the records of a batch.
type join struct {
	batch *Batch
	done  func(error)
	left  atomic.Int32
	mu    sync.Mutex
	err   error
	whole []uint16 // of the records that are durable
}

// one is told what became of one record. It runs in the journal's committer and
// must not block.
func (j *join) one(p *part, pos journal.Pos, err error) {
	b := j.batch
	if err == nil && !p.lease.Valid() {
		err = holdfast.Errorf(holdfast.Unavailable, "the key was withdrawn while the reading was written")
	}
	if err == nil {
		b.gate.tail.Observe(p.header, pos, pos+journal.Pos(len(p.record)))
	}
	j.mu.Lock()
	if err != nil {
		j.err = errors.Join(j.err, err)
	} else {
		j.whole = append(j.whole, p.whole...)
	}
	j.mu.Unlock()
	p.lease.Done()
	p.recycle()
	if j.left.Add(-1) > 0 {
		return
	}
	j.mu.Lock()
	err = j.err
	j.mu.Unlock()
	if err != nil {
		b.gate.metrics.readings.WithLabelValues("failed").Add(float64(b.readings))
		// None of it is acknowledged, but what is durable must not be taken again.
		b.gate.sessions.exchanged(b.session, j.whole, nil)
	} else {
		b.gate.metrics.readings.WithLabelValues("durable").Add(float64(b.readings))
		b.gate.sessions.exchanged(b.session, b.received, b.released)
	}
	j.done(err)
}

// The largest buffers that go back to the pool.
const (
	maxKept     = 64 << 10
	maxKeptRows = 1000
)

// recycle clears the plaintext and gives the buffers back.
func (p *part) recycle() {
	clear(p.plain[:cap(p.plain)])
	clear(p.content.Rows[:cap(p.content.Rows)])
	if cap(p.plain) > maxKept || cap(p.record) > maxKept || cap(p.content.Rows) > maxKeptRows {
		return
	}
	p.lease = nil
	parts.Put(p)
}
