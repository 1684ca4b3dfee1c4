package erasure

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Routine expiry: once a day the keys of all buckets that have outlived their
// retention die in one rotation, then their ciphertext goes. Reads have withheld them
// since they expired, reading by reading.
//
// A run is written down before it destroys anything. After a crash it is taken up
// where it stood: destroying what is destroyed does nothing.

// maxAhead is how much later than the last run the clock may say that it is without
// somebody's word for it: one that jumps must not destroy what is not due.
const maxAhead = 7 * 24 * time.Hour

// expireTick is how often RunExpiry looks whether a day has begun.
const expireTick = time.Minute

// Due is the buckets of one stream whose keys are due to die.
type Due struct {
	Party      holdfast.PartyID      `json:"party"` // on whose record it goes; zero: the hub's
	Assignment holdfast.AssignmentID `json:"assignment"`
	Stream     holdfast.StreamID     `json:"stream"`
	Buckets    []seal.Bucket         `json:"buckets"` // of arrival: YYYYMM, or YYYYMMDD
	Held       bool                  `json:"-"`       // a hold keeps them
}

// Expiry is how routine expiry stands.
type Expiry struct {
	Last    time.Time // when the last run ended; zero: none did
	Doubted bool      // the clock is too far ahead of it: nothing dies by age until somebody vouches for it
	Due     []Due
}

type expiryPlan struct {
	At        int64 `json:"at"` // the clock when it was made
	Destroyed bool  `json:"destroyed,omitempty"`
	Due       []Due `json:"due"`
}

// RunExpiry runs expiry once a day, after midnight UTC, when buckets end, until ctx
// ends. What fails is tried again.
func (g *Gate) RunExpiry(ctx context.Context) error {
	tick := time.NewTicker(expireTick)
	defer tick.Stop()
	for {
		if err := g.expireDaily(ctx); err != nil && ctx.Err() == nil {
			g.Logger.Error("retention: not finished, will be tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (g *Gate) expireDaily(ctx context.Context) error {
	g.expiring.Lock()
	defer g.expiring.Unlock()
	last, plan, err := g.expiryState(ctx)
	if err != nil {
		return err
	}
	now := g.Now()
	switch {
	case plan != nil:
		return g.expire(ctx, *plan)
	case last.IsZero(): // there is nothing yet to compare the clock with
		return g.saveExpiry(ctx, now, nil)
	case now.Sub(last) > maxAhead:
		if !g.doubted.Swap(true) {
			g.Logger.Error("retention: the clock is far ahead of the last run: nothing dies by age until somebody vouches for it", "ahead", now.Sub(last).Round(time.Hour))
		}
		return nil
	}
	g.doubted.Store(false)
	if !sameDay(last, now) && now.After(last) {
		_, err := g.expireNow(ctx, now)
		return err
	}
	return nil
}

func sameDay(a, b time.Time) bool {
	return a.UTC().Truncate(24 * time.Hour).Equal(b.UTC().Truncate(24 * time.Hour))
}

// Expire runs expiry now. It is a Conflict while the clock is doubted, unless the
// caller vouches for it.
func (g *Gate) Expire(ctx context.Context, clockIsRight bool) (Expiry, error) {
	g.expiring.Lock()
	defer g.expiring.Unlock()
	last, plan, err := g.expiryState(ctx)
	if err != nil {
		return Expiry{}, err
	}
	now := g.Now()
	if plan == nil && !last.IsZero() && now.Sub(last) > maxAhead && !clockIsRight {
		return Expiry{}, holdfast.Errorf(holdfast.Conflict, "the clock says that it is %s, the last run was on %s: if the clock is right, say so",
			now.UTC().Format(time.RFC3339), last.UTC().Format(time.RFC3339))
	}
	if plan != nil {
		if err := g.expire(ctx, *plan); err != nil {
			return Expiry{}, err
		}
	}
	due, err := g.expireNow(ctx, now)
	if err != nil {
		return Expiry{}, err
	}
	g.doubted.Store(false)
	return Expiry{Last: now, Due: due}, nil
}

// expireNow carries out what is due, and returns it.
func (g *Gate) expireNow(ctx context.Context, now time.Time) ([]Due, error) {
	if err := g.Series.Roll(ctx); err != nil { // what is in the journal is in no cell yet
		return nil, err
	}
	due, err := g.due(ctx, now)
	if err != nil {
		return nil, err
	}
	return due, g.begin(ctx, now, due)
}

// begin writes down a run and carries it out.
func (g *Gate) begin(ctx context.Context, now time.Time, due []Due) error {
	plan := expiryPlan{At: now.UnixNano(), Due: slices.DeleteFunc(slices.Clone(due), func(d Due) bool { return d.Held })}
	if len(plan.Due) == 0 {
		return g.saveExpiry(ctx, now, nil)
	}
	last, _, err := g.expiryState(ctx)
	if err != nil {
		return err
	}
	if err := g.saveExpiry(ctx, last, &plan); err != nil {
		return err
	}
	return g.expire(ctx, plan)
}

// Expiring returns how expiry stands and what is due now; held ones too.
func (g *Gate) Expiring(ctx context.Context) (Expiry, error) {
	last, _, err := g.expiryState(ctx)
	if err != nil {
		return Expiry{}, err
	}
	now := g.Now()
	due, err := g.due(ctx, now)
	return Expiry{Last: last, Doubted: !last.IsZero() && now.Sub(last) > maxAhead, Due: due}, err
}

// LastExpiry returns when the last run ended, and whether the clock is doubted.
func (g *Gate) LastExpiry(ctx context.Context) (last time.Time, doubted bool, err error) {
	last, _, err = g.expiryState(ctx)
	return last, !last.IsZero() && g.Now().Sub(last) > maxAhead, err
}

// due returns the buckets whose last reading has outlived its retention.
func (g *Gate) due(ctx context.Context, now time.Time) (out []Due, err error) {
	var a custody.Assignment
	before := map[holdfast.StreamID]int64{} // of a: what ends by then is due
	held := map[holdfast.StreamID]bool{}
	for c, err := range g.Series.AllCells(ctx) {
		if err != nil {
			return nil, err
		}
		if c.Assignment != a.ID {
			if a, err = g.ages(ctx, c.Assignment, now, before, held); err != nil {
				return nil, err
			}
		}
		edge, known := before[c.Stream]
		if !known || edge == 0 || c.Bucket.Ends() > edge {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Assignment == c.Assignment && out[n-1].Stream == c.Stream {
			out[n-1].Buckets = append(out[n-1].Buckets, c.Bucket)
			continue
		}
		out = append(out, Due{Party: a.Whose(), Assignment: a.ID, Stream: c.Stream, Buckets: []seal.Bucket{c.Bucket}, Held: held[c.Stream]})
	}
	return out, nil
}

// ages fills in how long the streams of an assignment are kept and what holds keep.
// Of one that is erased, or being erased, there are none.
func (g *Gate) ages(ctx context.Context, id holdfast.AssignmentID, now time.Time, before map[holdfast.StreamID]int64, held map[holdfast.StreamID]bool) (custody.Assignment, error) {
	clear(before)
	clear(held)
	a, err := g.Custody.Assignment(ctx, id)
	if holdfast.KindOf(err) == holdfast.NotFound || err == nil && a.State == custody.Erased {
		return custody.Assignment{ID: id}, nil
	}
	if err != nil {
		return a, err
	}
	streams, err := g.Custody.StreamsOfAssignment(ctx, a)
	if err != nil {
		return a, err
	}
	for _, s := range streams {
		before[s.ID] = g.Grants.DestroyBefore(&grant.Collected{Category: s.Category, Purposes: s.Purposes, Days: s.RetentionDays}, now)
		held[s.ID] = g.Grants.Pauses(a.ID, s.Name, a.Owner, a.Subject)
	}
	return a, nil
}

// expire carries out a run that is written down.
func (g *Gate) expire(ctx context.Context, plan expiryPlan) (err error) {
	if !plan.Destroyed {
		if plan.Due, err = g.stillDue(ctx, plan); err != nil {
			return err
		}
		if err := g.destroyDue(ctx, plan); err != nil {
			return fmt.Errorf("destroy keys by age: %w", err)
		}
		if err := g.recordExpired(ctx, &plan); err != nil {
			return err
		}
	}
	var cells []series.Cell
	for _, d := range plan.Due {
		for _, b := range d.Buckets {
			cells = append(cells, series.Cell{Assignment: d.Assignment, Stream: d.Stream, Bucket: b})
		}
	}
	if len(cells) > 0 {
		if _, err := g.Series.Sweep(ctx, cells); err != nil {
			return err
		}
		if err := g.Places.Catalog(ctx); err != nil {
			return fmt.Errorf("purge what has expired: %w", err)
		}
	}
	return g.saveExpiry(ctx, time.Unix(0, plan.At), nil)
}

// stillDue leaves out what a hold was set on since the plan was made, or whose life
// was made longer.
func (g *Gate) stillDue(ctx context.Context, plan expiryPlan) (out []Due, err error) {
	before, held := map[holdfast.StreamID]int64{}, map[holdfast.StreamID]bool{}
	var last holdfast.AssignmentID
	for _, d := range plan.Due {
		if d.Assignment != last {
			if _, err := g.ages(ctx, d.Assignment, time.Unix(0, plan.At), before, held); err != nil {
				return nil, err
			}
			last = d.Assignment
		}
		edge := before[d.Stream]
		d.Buckets = slices.DeleteFunc(slices.Clone(d.Buckets), func(b seal.Bucket) bool { return edge == 0 || b.Ends() > edge })
		if !held[d.Stream] && len(d.Buckets) > 0 {
			out = append(out, d)
		}
	}
	return out, nil
}

// leaseSlack is longer than any lease of a journal key: nothing is sealed for a
// bucket that has been over for so long.
const leaseSlack = time.Minute

// destroyDue destroys the keys in one rotation. Only where a bucket that still takes
// readings loses a stream whose last purpose has ended, its journal key is renewed
// first; the buckets that are over get nothing more.
func (g *Gate) destroyDue(ctx context.Context, plan expiryPlan) error {
	if len(plan.Due) == 0 {
		return nil
	}
	over := time.Unix(0, g.Arrival()).Add(-leaseSlack).UnixNano()
	var d vault.Destruction
	var current []holdfast.AssignmentID
	for _, due := range plan.Due {
		n := len(d.Reissue)
		if n == 0 || d.Reissue[n-1].Assignment != due.Assignment {
			d.Reissue = append(d.Reissue, vault.Reissue{Assignment: due.Assignment, Over: over})
			n++
		}
		r := &d.Reissue[n-1]
		for _, b := range due.Buckets {
			r.Drop = append(r.Drop, vault.StreamBucket{Stream: due.Stream, Bucket: b})
			if b.Ends() > over && !slices.Contains(current, due.Assignment) {
				current = append(current, due.Assignment)
			}
		}
	}
	g.reissuing.Lock()
	defer g.reissuing.Unlock()
	if len(current) > 0 {
		if err := g.Vault.Barrier(ctx, g.living(current), true); err != nil {
			return err
		}
	}
	rw, err := g.Series.Begin(ctx)
	if err != nil {
		return err
	}
	defer rw.End(context.WithoutCancel(ctx))
	if err := rw.Roll(ctx); err != nil {
		return err
	}
	rot, err := g.Vault.Destroy(ctx, d)
	if rot.To == 0 {
		return err
	}
	if err != nil { // past the commit point: what is left is litter
		g.Logger.Warn("retention: after the rotation", "err", err)
	}
	g.holders.note(rot)
	return rw.End(ctx)
}

// recordExpired puts on each owner's record what of his has died by age.
func (g *Gate) recordExpired(ctx context.Context, plan *expiryPlan) error {
	plan.Destroyed = true
	box, err := g.sealExpiry(ctx, plan)
	if err != nil {
		return err
	}
	type stream struct {
		Stream  holdfast.StreamID `json:"stream"`
		Buckets []seal.Bucket     `json:"buckets"`
	}
	keys := 0
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		for at := 0; at < len(plan.Due); {
			d := plan.Due[at]
			var streams []stream
			for ; at < len(plan.Due) && plan.Due[at].Assignment == d.Assignment; at++ {
				streams = append(streams, stream{plan.Due[at].Stream, plan.Due[at].Buckets})
				keys += len(plan.Due[at].Buckets)
			}
			if err := g.recordOne(ctx, tx, d.Party, struct {
				Assignment holdfast.AssignmentID `json:"assignment"`
				Streams    []stream              `json:"streams"`
			}{d.Assignment, streams}); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE expiry SET plan_sealed = $1`, box)
		return err
	})
	if err == nil {
		g.metrics.expired.Add(float64(keys))
	}
	return err
}

// recordOne appends to an owner's record, to the hub's if he is gone.
func (g *Gate) recordOne(ctx context.Context, tx *sql.Tx, whose holdfast.PartyID, payload any) error {
	on := vault.Hub
	if !whose.IsZero() && g.Vault.HasOwner(vault.OfParty(whose)) {
		on = vault.OfParty(whose)
	}
	_, err := g.Ledger.Append(ctx, tx, on, "readings expired", payload)
	return err
}

func (g *Gate) expiryState(ctx context.Context) (last time.Time, plan *expiryPlan, err error) {
	var ns int64
	var box []byte
	err = g.Catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT last, plan_sealed FROM expiry`).Scan(&ns, &box)
	})
	if err != nil {
		return last, nil, fmt.Errorf("read expiry: %w", err)
	}
	if ns > 0 {
		last = time.Unix(0, ns)
	}
	if box == nil {
		return last, nil, nil
	}
	plain, err := g.Vault.OpenField(ctx, vault.Hub, "expiry", []byte{1}, "plan", box)
	if err != nil {
		return last, nil, err
	}
	plan = new(expiryPlan)
	if err := json.Unmarshal(plain, plan); err != nil {
		return last, nil, fmt.Errorf("decode expiry: %w", err)
	}
	return last, plan, nil
}

func (g *Gate) sealExpiry(ctx context.Context, plan *expiryPlan) ([]byte, error) {
	plain, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	return g.Vault.SealField(ctx, vault.Hub, "expiry", []byte{1}, "plan", plain)
}

// saveExpiry writes down when the last run ended, and the one under way.
func (g *Gate) saveExpiry(ctx context.Context, last time.Time, plan *expiryPlan) (err error) {
	var box []byte
	if plan != nil {
		if box, err = g.sealExpiry(ctx, plan); err != nil {
			return err
		}
	}
	ns := int64(0)
	if !last.IsZero() {
		ns = last.UnixNano()
	}
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE expiry SET last = $1, plan_sealed = $2`, ns, box)
		return err
	})
	if err != nil {
		return fmt.Errorf("write down expiry: %w", err)
	}
	if plan == nil {
		g.metrics.lastExpiry.Set(float64(ns) / 1e9)
	}
	return nil
}
