package grant

import (
	"context"
	"database/sql"
	"math"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Bar keeps out what an erasure destroyed: redelivery, spools, imports and
// mirrors can't bring it back while the bar stands.
type Bar struct {
	Party      holdfast.PartyID // on whose record it goes; zero: the hub's. Not kept otherwise
	Assignment holdfast.AssignmentID
	Stream     holdfast.StreamID // zero: every stream
	Span       holdfast.Span     // times of the readings
	// ArrivedBefore, ns since 1970, is when the erasure was accepted: readings
	// taken later may come in. math.MaxInt64 bars later ones too, as for an
	// assignment that is gone for good.
	ArrivedBefore int64
	Expires       time.Time // zero: 400 days from now
}

// BarDays is how long a bar stands: longer than any device's spool and any
// backup's life.
const BarDays = 400

// bars reports whether b keeps a reading out. A reading counts as one from before
// the erasure if it arrived before it or carries a time before it: what is sent
// again arrives later, but says when it was taken. One that says a time at which the
// bar will have ended is not of now either: a wrong clock gave it that time when it
// was erased.
func (b *Bar) bars(s holdfast.StreamID, at, arrived int64) bool {
	return (b.Stream.IsZero() || b.Stream == s) && b.Span.Contains(at) && (arrived < b.ArrivedBefore || at < b.ArrivedBefore || at >= b.Expires.UnixNano())
}

// SetBar sets a bar in the transaction of the erasure that leaves it. It counts
// from this moment: when the transaction fails, call ReloadBars.
func (r *Register) SetBar(ctx context.Context, tx *sql.Tx, b Bar) error {
	if b.Assignment.IsZero() {
		return holdfast.Errorf(holdfast.Invalid, "a bar has an assignment")
	}
	if b.Expires.IsZero() {
		b.Expires = r.now().AddDate(0, 0, BarDays).UTC()
	}
	if err := insertBar(ctx, tx, b); err != nil {
		return err
	}
	record := vault.Hub
	if !b.Party.IsZero() {
		record = vault.OfParty(b.Party)
	}
	if _, err := r.ledger.Append(ctx, tx, record, "bar set", struct {
		Assignment    holdfast.AssignmentID `json:"assignment"`
		Stream        holdfast.StreamID     `json:"stream"`
		From          int64                 `json:"from"`
		To            int64                 `json:"to"`
		ArrivedBefore int64                 `json:"arrived_before"`
		Expires       int64                 `json:"expires"`
	}{b.Assignment, b.Stream, b.Span.From, b.Span.To, b.ArrivedBefore, b.Expires.UnixNano()}); err != nil {
		return err
	}
	r.barsMu.Lock()
	defer r.barsMu.Unlock()
	r.bars[b.Assignment] = append(slices.Clone(r.bars[b.Assignment]), b)
	return nil
}

// BarPast keeps out of a device in new hands what was taken before it was: the unit,
// its gateway or a broker may hold readings of others yet.
func (r *Register) BarPast(ctx context.Context, tx *sql.Tx, owner holdfast.PartyID, a holdfast.AssignmentID, began, expires time.Time) error {
	past := holdfast.Span{From: math.MinInt64, To: began.UnixNano() - 1}
	wrong := holdfast.Span{From: expires.UnixNano(), To: math.MaxInt64} // by a clock that ran ahead
	for _, span := range []holdfast.Span{past, wrong} {
		if err := r.SetBar(ctx, tx, Bar{Party: owner, Assignment: a, Span: span, ArrivedBefore: math.MaxInt64, Expires: expires}); err != nil {
			return err
		}
	}
	return nil
}

func insertBar(ctx context.Context, tx *sql.Tx, b Bar) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO bar (assignment, stream, span_from, span_to, arrived_before, expires) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (assignment, stream, span_from, span_to) DO UPDATE SET arrived_before = excluded.arrived_before, expires = excluded.expires`,
		b.Assignment, b.Stream[:], b.Span.From, b.Span.To, b.ArrivedBefore, b.Expires.UnixNano())
	return err
}

// Bars are those of one assignment. They never change.
type Bars []Bar

// Bar reports whether a reading of a stream, taken at a time and arrived at
// another (ns since 1970), must not come in.
func (all Bars) Bar(s holdfast.StreamID, at, arrived int64) bool {
	for i := range all {
		if b := &all[i]; b.bars(s, at, arrived) && arrived < b.Expires.UnixNano() {
			return true
		}
	}
	return false
}

// BarPast is Bar for a reading of a device whose own bars these are, which goes to one
// of its periods: what was before the device is nobody's.
func (all Bars) BarPast(at, arrived int64) bool {
	return slices.ContainsFunc(all, func(b Bar) bool {
		return b.ArrivedBefore == math.MaxInt64 && b.bars(holdfast.StreamID{}, at, arrived) && arrived < b.Expires.UnixNano()
	})
}

// Bars returns the bars of an assignment as they are now. It reads memory only.
func (r *Register) Bars(a holdfast.AssignmentID) Bars {
	r.barsMu.RLock()
	defer r.barsMu.RUnlock()
	return r.bars[a]
}

// ReloadBars takes the bars in memory from the catalog. An erasure calls it after
// a transaction with SetBar has failed. It takes the turn of a writer, so that no
// other's SetBar is in memory and not in the catalog yet.
func (r *Register) ReloadBars(ctx context.Context) error {
	return r.db.Write(ctx, func(tx *sql.Tx) error { return r.loadBars(ctx, tx) })
}

func (r *Register) loadBars(ctx context.Context, tx *sql.Tx) error {
	bars := make(map[holdfast.AssignmentID]Bars)
	q, err := tx.QueryContext(ctx, `SELECT assignment, stream, span_from, span_to, arrived_before, expires FROM bar`)
	if err != nil {
		return err
	}
	defer q.Close()
	for q.Next() {
		var b Bar
		var expires int64
		if err := q.Scan(&b.Assignment, &b.Stream, &b.Span.From, &b.Span.To, &b.ArrivedBefore, &expires); err != nil {
			return err
		}
		b.Expires = time.Unix(0, expires).UTC()
		bars[b.Assignment] = append(bars[b.Assignment], b)
	}
	if err := q.Err(); err != nil {
		return err
	}
	r.barsMu.Lock()
	defer r.barsMu.Unlock()
	r.bars = bars
	return nil
}

// expireBars deletes the bars whose time is over. It leaves memory alone but for
// those: another's SetBar may be on its way into the catalog.
func (r *Register) expireBars(ctx context.Context) error {
	now := r.now()
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM bar WHERE expires <= $1`, now.UnixNano())
		return err
	})
	if err != nil {
		return err
	}
	r.barsMu.Lock()
	defer r.barsMu.Unlock()
	for a, some := range r.bars {
		if left := slices.DeleteFunc(slices.Clone(some), func(b Bar) bool { return !b.Expires.After(now) }); len(left) > 0 {
			r.bars[a] = left
		} else {
			delete(r.bars, a)
		}
	}
	return nil
}
