// Package ingest is the way in: every reading passes it, from whichever edge.
//
// For each message it asks whose the device is (custody), and of a device with
// periods for each reading whose it was at the reading's time; whether the stream has
// a live purpose and no bar (grant), seals the readings with their owner's
// journal key (vault) and appends the record to the journal. It promises that
// Commit reports success only for what is durable and still under a key that
// lives, that a message is taken whole or not at all, and that readings of two
// owners never share a record. It keeps nothing that it refuses.
//
// Repeats are not its business: they are dropped where readings are rolled,
// merged and scanned, so that this path has no state to share.
package ingest

import (
	"context"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Custody says whose a device is and what its streams are.
type Custody interface {
	Route(ctx context.Context, id holdfast.DeviceID) (*custody.Route, error)
	Child(ctx context.Context, gateway holdfast.DeviceID, name string) (holdfast.DeviceID, error)
	Accept(ctx context.Context, r *custody.Route, x *holdfast.Sample) (*custody.Stream, holdfast.Value, error)
}

// Purposes says whether readings may be collected.
type Purposes interface {
	Live(ctx context.Context, p holdfast.Purpose) bool
	Bars(a holdfast.AssignmentID) grant.Bars
	// Daily reports whether readings are kept for so short a time that their keys are
	// of the day.
	Daily(c *grant.Collected) bool
	// Stopped reports whether the one whose data it is has stopped their collection.
	Stopped(whose holdfast.PartyID, a holdfast.AssignmentID, stream string) bool
}

// Keys leases journal keys.
type Keys interface {
	JournalKey(ctx context.Context, a holdfast.AssignmentID, b seal.Bucket) (*vault.Lease, error)
}

// Tail is told of what became durable, so that queries and live feeds see it at once.
// It copies what it keeps of rows.
type Tail interface {
	Observe(h series.Header, rows []series.Row, pos, next journal.Pos)
}

// Options tunes a Gate; the zero value works.
type Options struct {
	// Hold says why readings of a stream may not come in now, nil if they may: an
	// erasure of it is under way.
	Hold func(a holdfast.AssignmentID, s holdfast.StreamID) error
	// MaxBatchReadings bounds what one message carries; default 10,000.
	MaxBatchReadings int
}

// Gate takes readings in.
type Gate struct {
	custody  Custody
	purposes Purposes
	keys     Keys
	log      journal.Log
	tail     Tail
	sessions *Sessions
	clock    *Clock
	opt      Options

	writer  [16]byte
	counter atomic.Uint64
	metrics metrics
	skews   skews
}

// New makes a Gate over what it needs.
func New(c Custody, p Purposes, k Keys, log journal.Log, t Tail, s *Sessions, clock *Clock, o Options) *Gate {
	if o.Hold == nil {
		o.Hold = func(holdfast.AssignmentID, holdfast.StreamID) error { return nil }
	}
	if o.MaxBatchReadings <= 0 {
		o.MaxBatchReadings = 10_000
	}
	return &Gate{
		custody: c, purposes: p, keys: k, log: log, tail: t, sessions: s, clock: clock, opt: o,
		writer: holdfast.NewID[[16]byte](), metrics: newMetrics(),
	}
}

// Batch begins a batch of what one connection delivered. session is the MQTT
// session's name, "" for HTTP.
func (g *Gate) Batch(ctx context.Context, p identity.Peer, session string) *Batch {
	return &Batch{ctx: ctx, gate: g, peer: p, session: session, arrival: g.clock.Now()}
}

// metrics counts what came in; no label tells whose it was.
type metrics struct {
	readings        *prometheus.CounterVec
	durable, failed prometheus.Counter // of readings
	dropped         prometheus.Counter // of readings
	bytes           prometheus.Counter
	records         prometheus.Counter
}

func newMetrics() metrics {
	m := metrics{
		readings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_ingest_readings_total",
			Help: "Readings by what became of them: durable, failed, refused by kind of reason, or dropped from a message because their owner has stopped their collection.",
		}, []string{"outcome"}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_ingest_record_bytes_total", Help: "Bytes of sealed journal records."}),
		records: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_ingest_records_total", Help: "Sealed journal records."}),
	}
	m.durable, m.failed = m.readings.WithLabelValues("durable"), m.readings.WithLabelValues("failed")
	m.dropped = m.readings.WithLabelValues("dropped: collection stopped")
	return m
}

// refused counts readings that were not taken, by the kind of reason.
func (m *metrics) refused(err error, readings int) {
	m.readings.WithLabelValues("refused: " + holdfast.KindOf(err).String()).Add(float64(readings))
}

// Metrics returns the collectors of this package.
func (g *Gate) Metrics() []prometheus.Collector {
	return []prometheus.Collector{g.metrics.readings, g.metrics.bytes, g.metrics.records, g.clock.collector()}
}
