// Package erasure is the way out for good: it destroys keys, then ciphertext,
// and signs a certificate of it.
//
// An erasure that was asked for is refused on every path at once, survives a
// crash at every step (Run takes it up again), and shares its rotation of the
// root key with all that wait beside it. It promises that when its certificate is
// signed, no key on this machine opens what the scope covers, and that every
// place has removed its part. docs/format/certificate.md has the certificate.
//
// It does not reach copies that others were given, nor a copy of the root key
// that somebody made outside a holder.
package erasure

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// States of an erasure.
const (
	Asked     = "asked"     // refused on every path
	Destroyed = "destroyed" // the keys are gone
	Done      = "done"      // the ciphertext too; there is a certificate
)

// Custody closes a party in the transaction that accepts its erasure, and refuses
// a scope that has missed an assignment made meanwhile. It says whose an assignment
// is and what its streams are, for holds name parties and streams.
type Custody interface {
	Leave(ctx context.Context, tx *sql.Tx, s holdfast.Scope) error
	// ReplayErased is Leave for a catalog that was put back to before the erasure.
	ReplayErased(ctx context.Context, tx *sql.Tx, s holdfast.Scope) error
	Assignment(ctx context.Context, id holdfast.AssignmentID) (custody.Assignment, error)
	StreamsOfAssignment(ctx context.Context, a custody.Assignment) ([]*custody.Stream, error)
}

// Deps is what a Gate is built on; all but Paperwork, Now and Fault are required.
type Deps struct {
	Catalog *catalog.DB
	Vault   *vault.Vault
	Ledger  *ledger.Ledger
	Series  *series.Series
	Grants  *grant.Register
	Custody Custody
	Places  Places
	// Arrival is the time that a reading would arrive at now, ns since 1970: what
	// came before an erasure is told by it, for the system's clock may be set back.
	Arrival   func() int64
	Paperwork Paperwork
	Logger    *slog.Logger
	Now       func() time.Time // the system's clock, by which readings age; default time.Now
	// Fault is asked at each of Steps, by tests that end a run there; nil: never.
	Fault func(step string) error
}

// Gate carries erasures out.
type Gate struct {
	Deps
	metrics metrics

	expiring sync.Mutex // one run of expiry at a time
	// reissuing is held from the barrier before a rotation that writes lists anew to
	// that rotation: of the journal keys of a list it keeps only the newest, and must
	// have made that itself. What is acknowledged since its last roll is under it.
	reissuing sync.Mutex
	doubted   atomic.Bool // the clock: see ErrClock

	whole, part, purge, paper *lane

	taking sync.Mutex // held while erasures are given to a lane
	taken  map[holdfast.ErasureID]bool

	holding atomic.Int32 // len(open), for those on the path of a reading
	mu      sync.RWMutex
	open    map[holdfast.ErasureID]holdfast.Scope // asked, keys not yet destroyed
	undone  map[holdfast.ErasureID]time.Time      // when it was asked for; not yet certified
	done    map[holdfast.ErasureID]chan struct{}  // closed when the erasure ended
	begun   begun

	holders seen // what holders have said since the start
}

// Erasure is one erasure as callers see it. It names ids only.
type Erasure struct {
	ID    holdfast.ErasureID `json:"id"`
	Party holdfast.PartyID   `json:"party"`
	State string             `json:"state"`
	Plan
	Certificate []byte `json:"-"` // its newest issue
}

// Plan is what is written down of an erasure while it goes on.
type Plan struct {
	Scope      Scope                  `json:"scope"`
	By         string                 `json:"by"` // the role that asked
	AskedAt    time.Time              `json:"asked"`
	RefusedAt  time.Time              `json:"refused"`
	OwnerKeys  []seal.KeyID           `json:"owner_keys"`
	RecordKeys []seal.KeyID           `json:"record_keys"`
	From       uint64                 `json:"rotation_from,omitempty"`
	To         uint64                 `json:"rotation_to,omitempty"`
	Holders    []vault.HolderEvidence `json:"holders,omitempty"`
	KeysDeadAt time.Time              `json:"keys_destroyed,omitzero"`
	PurgedAt   time.Time              `json:"purged,omitzero"`
	Kept       []Kept                 `json:"kept,omitempty"` // what holds keep of what was asked for
	Paper
}

// Scope is holdfast.Scope as it stands in certificates.
type Scope struct {
	Assignments []holdfast.AssignmentID `json:"assignments"`
	Streams     []holdfast.StreamID     `json:"streams,omitempty"`
	From        *time.Time              `json:"from,omitempty"` // both or neither
	To          *time.Time              `json:"to,omitempty"`
	Whole       bool                    `json:"whole_party,omitempty"`
	Before      time.Time               `json:"arrived_before"`
}

func scopeText(s holdfast.Scope) Scope {
	out := Scope{Assignments: s.Assignments, Streams: s.Streams, Whole: s.Whole, Before: time.Unix(0, s.Before).UTC()}
	if s.Partial() {
		from, to := time.Unix(0, s.Span.From).UTC(), time.Unix(0, s.Span.To).UTC()
		out.From, out.To = &from, &to
	}
	return out
}

func (p Plan) scope(party holdfast.PartyID) holdfast.Scope {
	s := holdfast.Scope{Party: party, Assignments: p.Scope.Assignments, Streams: p.Scope.Streams,
		Span: holdfast.Always, Whole: p.Scope.Whole, Before: p.Scope.Before.UnixNano()}
	if p.Scope.From != nil {
		s.Span = holdfast.Span{From: p.Scope.From.UnixNano(), To: p.Scope.To.UnixNano()}
	}
	return s
}

// inPart reports that the assignments live on after the erasure.
func inPart(s holdfast.Scope) bool { return len(s.Streams) > 0 || s.Partial() }

func (e *Erasure) inPart() bool { return len(e.Scope.Streams) > 0 || e.Scope.From != nil }

// Open reads the erasures that a crash or a shutdown left undone: they are
// refused again from here on, and Run goes on with them.
func Open(ctx context.Context, d Deps) (*Gate, error) {
	if err := d.Places.check(); err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	g := &Gate{Deps: d, metrics: newMetrics(), taken: map[holdfast.ErasureID]bool{},
		open: map[holdfast.ErasureID]holdfast.Scope{}, done: map[holdfast.ErasureID]chan struct{}{},
		undone: map[holdfast.ErasureID]time.Time{}}
	g.makeLanes()
	undone, err := g.Undone(ctx)
	if err != nil {
		return nil, fmt.Errorf("open erasures: %w", err)
	}
	for _, e := range undone {
		g.done[e.ID], g.undone[e.ID] = make(chan struct{}), e.AskedAt
		if e.State == Asked {
			g.open[e.ID] = e.scope(e.Party)
			g.holding.Add(1)
		}
	}
	if owed, err := g.rekeying(ctx); err != nil {
		return nil, fmt.Errorf("open rekeying: %w", err)
	} else if owed {
		g.part.poke()
	}
	if len(undone) > 0 {
		g.whole.poke()
		g.part.poke()
		g.purge.poke()
	}
	return g, nil
}

// Ask begins an erasure: it is on the owner's record, barred, and refused on
// every path when Ask returns; keys and ciphertext follow in Run. An owner may
// ask for what is his, an administrator for anything but the operating
// organisation itself, each with a settled credential.
//
// It is Denied where a hold keeps any of the scope; AskRest has the others erased.
func (g *Gate) Ask(ctx context.Context, by access.Principal, s holdfast.Scope) (Erasure, error) {
	return g.ask(ctx, by, s, false)
}

// AskRest is Ask for what of the scope no hold keeps. The certificate says what was
// kept.
func (g *Gate) AskRest(ctx context.Context, by access.Principal, s holdfast.Scope) (Erasure, error) {
	return g.ask(ctx, by, s, true)
}

func (g *Gate) ask(ctx context.Context, by access.Principal, s holdfast.Scope, rest bool) (Erasure, error) {
	switch {
	case !by.Can(access.ScopeWrite):
		return Erasure{}, holdfast.Errorf(holdfast.Denied, "this credential can't change anything")
	case by.Role == access.Owner && !s.Party.IsZero() && by.Party == s.Party:
	case by.Role == access.Administrator:
	default:
		return Erasure{}, holdfast.Errorf(holdfast.Denied, "only the owner of data or an administrator can have it erased")
	}
	if err := by.MustBeSettled(); err != nil {
		return Erasure{}, err
	}
	if len(s.Assignments) == 0 && !s.Whole {
		return Erasure{}, holdfast.Errorf(holdfast.NotFound, "nothing is in this scope")
	}
	if s.Span.From > s.Span.To {
		return Erasure{}, holdfast.Errorf(holdfast.Invalid, "the range ends before it begins")
	}
	s, kept, err := g.withoutHeld(ctx, s, by.Role == access.Owner)
	switch {
	case err != nil:
		return Erasure{}, err
	case len(kept) > 0 && (!rest || len(s.Assignments) == 0):
		return Erasure{}, refuseHeld(kept, s)
	}
	s.Before = g.Arrival()
	e := Erasure{ID: holdfast.NewID[holdfast.ErasureID](), Party: s.Party, State: Asked,
		Plan: Plan{Scope: scopeText(s), By: by.Role.String(), AskedAt: time.Now().UTC(), Kept: kept}}
	if !inPart(s) {
		keys, records, err := g.Vault.Doomed(ctx, owners(s))
		if err != nil {
			return Erasure{}, fmt.Errorf("plan erasure: %w", err)
		}
		e.OwnerKeys, e.RecordKeys = slices.Collect(maps.Values(keys)), records
	}
	// No read shows it and nothing of it comes in from here on; if the writing down
	// fails, nothing has happened.
	g.mu.Lock()
	g.open[e.ID] = s
	g.holding.Add(1)
	g.begun.add(s)
	g.done[e.ID], g.undone[e.ID] = make(chan struct{}), e.AskedAt
	g.mu.Unlock()
	e.RefusedAt = time.Now().UTC()
	if err := g.writeDown(ctx, e, s); err != nil {
		g.mu.Lock()
		delete(g.open, e.ID)
		g.holding.Add(-1)
		delete(g.done, e.ID)
		delete(g.undone, e.ID)
		g.mu.Unlock()
		return Erasure{}, fmt.Errorf("ask for erasure: %w", err)
	}
	for _, place := range g.Places.refuse() {
		if err := place(ctx, s); err != nil {
			g.Logger.Error("erasure: refuse at once", "erasure", e.ID, "err", err)
		}
	}
	g.metrics.asked.Inc()
	if err := g.step("asked"); err != nil {
		return e, err
	}
	if inPart(s) {
		g.part.poke()
	} else {
		g.whole.poke()
	}
	return e, nil
}

func owners(s holdfast.Scope) []vault.Owner {
	var out []vault.Owner
	for _, a := range s.Assignments {
		out = append(out, vault.OfAssignment(a))
	}
	if s.Whole {
		out = append(out, vault.OfParty(s.Party))
	}
	return out
}

// writeDown puts the erasure, its bars and its ledger entry into one transaction.
func (g *Gate) writeDown(ctx context.Context, e Erasure, s holdfast.Scope) error {
	box, err := g.sealPlan(ctx, e)
	if err != nil {
		return err
	}
	on := vault.Hub
	if !s.Party.IsZero() {
		on = vault.OfParty(s.Party)
	}
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO erasure (id, number, party, state, plan_sealed)
			VALUES ($1, (SELECT coalesce(max(number), 0) + 1 FROM erasure), $2, $3, $4)`, e.ID, e.Party, Asked, box); err != nil {
			return err
		}
		if err := g.Custody.Leave(ctx, tx, s); err != nil {
			return err
		}
		for _, bar := range bars(s) {
			if err := g.Grants.SetBar(ctx, tx, bar); err != nil {
				return err
			}
		}
		if err := takeBack(ctx, tx, e); err != nil {
			return err
		}
		if len(e.RecordKeys) > 0 { // from when they die, the ledger has rows that do not open
			if _, err := g.Ledger.Append(ctx, tx, vault.Hub, ledger.KindErasureBegun, beginning{Erasure: e.ID, Covers: ledger.Covers{RecordKeys: e.RecordKeys}}); err != nil {
				return err
			}
		}
		_, err := g.Ledger.Append(ctx, tx, on, "erasure asked", struct {
			Erasure holdfast.ErasureID `json:"erasure"`
			Scope   Scope              `json:"scope"`
			By      string             `json:"by"`
			Kept    []Kept             `json:"kept,omitempty"`
		}{e.ID, e.Scope, e.By, e.Kept})
		return err
	})
	if err != nil {
		// Whoever asked may have gone away: that must not leave bars of what did not happen.
		return errors.Join(err, g.Grants.ReloadBars(context.WithoutCancel(ctx)))
	}
	return nil
}

// bars keep out what the scope covers: of assignments that end, whatever comes;
// of those that live on, what arrived or was taken before the erasure.
func bars(s holdfast.Scope) (out []grant.Bar) {
	before := s.Before
	if !inPart(s) {
		before = math.MaxInt64
	}
	streams := s.Streams
	if len(streams) == 0 {
		streams = []holdfast.StreamID{{}} // every one
	}
	for _, a := range s.Assignments {
		for _, stream := range streams {
			out = append(out, grant.Bar{Party: s.Party, Assignment: a, Stream: stream, Span: s.Span, ArrivedBefore: before})
		}
	}
	return out
}

// Hold says whether readings of a stream may come in now: not while an erasure
// that covers it is under way. Of what ends for good they are Denied; of what
// lives on they are Unavailable, for the moment that it takes.
func (g *Gate) Hold(a holdfast.AssignmentID, stream holdfast.StreamID) error {
	if g.holding.Load() == 0 {
		return nil
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, s := range g.open {
		switch {
		case !slices.Contains(s.Assignments, a):
		case !inPart(s):
			return holdfast.Errorf(holdfast.Denied, "the device was erased")
		case len(s.Streams) == 0 || slices.Contains(s.Streams, stream):
			return holdfast.Errorf(holdfast.Unavailable, "readings of this stream are being erased: send again in a moment")
		}
	}
	return nil
}

// Erasure returns one erasure. Whoever knows its random id may ask: an owner who
// erased himself has no credential left to ask with.
func (g *Gate) Erasure(ctx context.Context, id holdfast.ErasureID) (Erasure, error) {
	all, err := g.list(ctx, `id = $1`, id)
	if err != nil {
		return Erasure{}, err
	}
	if len(all) == 0 {
		return Erasure{}, holdfast.Errorf(holdfast.NotFound, "there is no such erasure")
	}
	return all[0], nil
}

// Erasures returns all of them, oldest first; an owner's own only.
func (g *Gate) Erasures(ctx context.Context, by access.Principal) ([]Erasure, error) {
	switch by.Role {
	case access.Administrator, access.Auditor:
		return g.list(ctx, `1 = 1`)
	case access.Owner:
		return g.list(ctx, `party = $1`, by.Party)
	}
	return nil, holdfast.Errorf(holdfast.Denied, "only owners and administrators see erasures")
}

// Wait returns when the erasure is done, or ctx ends.
func (g *Gate) Wait(ctx context.Context, id holdfast.ErasureID) error {
	g.mu.RLock()
	ended := g.done[id]
	g.mu.RUnlock()
	if ended == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Undone returns the erasures that are not done, oldest first.
func (g *Gate) Undone(ctx context.Context) ([]Erasure, error) {
	return g.list(ctx, `state NOT IN ($1, $2)`, Done, incomplete)
}

// list reads erasures in the order in which they were asked.
func (g *Gate) list(ctx context.Context, where string, args ...any) ([]Erasure, error) {
	var out []Erasure
	var boxes [][]byte
	err := g.Catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id, party, state, plan_sealed, certificate FROM erasure WHERE `+where+` ORDER BY number`, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e Erasure
			var box []byte
			if err := rows.Scan(&e.ID, &e.Party, &e.State, &box, &e.Certificate); err != nil {
				return err
			}
			if e.State == incomplete {
				e.State, e.Incomplete = Done, true
			}
			out, boxes = append(out, e), append(boxes, box)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read erasures: %w", err)
	}
	for i := range out {
		plain, err := g.Vault.OpenField(ctx, vault.Hub, "erasure", out[i].ID[:], "plan", boxes[i])
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(plain, &out[i].Plan); err != nil {
			return nil, fmt.Errorf("decode erasure %s: %w", out[i].ID, err)
		}
	}
	return out, nil
}

func (g *Gate) sealPlan(ctx context.Context, e Erasure) ([]byte, error) {
	plain, err := json.Marshal(e.Plan)
	if err != nil {
		return nil, err
	}
	return g.Vault.SealField(ctx, vault.Hub, "erasure", e.ID[:], "plan", plain)
}

// save writes down how far an erasure has come.
func (g *Gate) save(ctx context.Context, e Erasure, more func(*sql.Tx) error) error {
	box, err := g.sealPlan(ctx, e)
	if err != nil {
		return err
	}
	state := e.State
	if e.Incomplete {
		state = incomplete
	}
	return g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if more != nil {
			if err := more(tx); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE erasure SET state = $1, plan_sealed = $2, certificate = $3 WHERE id = $4`, state, box, e.Certificate, e.ID)
		return err
	})
}

type metrics struct {
	asked, finished prometheus.Counter
	seconds         prometheus.Histogram
	expired         prometheus.Counter
	lastExpiry      prometheus.Gauge
}

func newMetrics() metrics {
	return metrics{
		asked:      prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_erasures_asked_total", Help: "Erasures asked for."}),
		finished:   prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_erasures_done_total", Help: "Erasures with a certificate."}),
		expired:    prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_retention_keys_destroyed_total", Help: "Keys of a stream's month or day destroyed by age."}),
		lastExpiry: prometheus.NewGauge(prometheus.GaugeOpts{Name: "holdfast_retention_last_run_timestamp_seconds", Help: "When the last run of retention since the start ended."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_erasure_key_seconds",
			Help: "Seconds from asking to the destruction of the keys.", Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}}),
	}
}

// Metrics returns the collectors of this package.
func (g *Gate) Metrics() []prometheus.Collector {
	return []prometheus.Collector{g.metrics.asked, g.metrics.finished, g.metrics.seconds, g.metrics.expired, g.metrics.lastExpiry,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_erasure_oldest_unpurged_seconds",
			Help: "How long ago the oldest erasure was asked for of which ciphertext is still there; 0: none is."}, func() float64 { return g.oldest().Seconds() })}
}

// oldest is how long ago the oldest erasure was asked for that has no certificate.
func (g *Gate) oldest() (age time.Duration) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, at := range g.undone {
		age = max(age, time.Since(at))
	}
	return age
}
