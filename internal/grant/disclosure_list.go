package grant

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Wanted says which disclosures of an owner's are asked for. Its zero value is all
// of them.
type Wanted struct {
	Recipient    holdfast.PartyID
	Purpose      holdfast.Purpose
	Grant        holdfast.GrantID
	Permission   holdfast.PermissionID
	From, Before time.Time // when they were opened; zero: no bound
}

func (w Wanted) fits(d Disclosure) bool {
	return (w.Recipient.IsZero() || d.Recipient == w.Recipient) &&
		(w.Purpose == "" || d.Purpose == w.Purpose) &&
		(w.Grant.IsZero() || d.Grant == w.Grant) &&
		(w.Permission.IsZero() || d.Permission == w.Permission) &&
		!d.Opened.Before(w.From) && (w.Before.IsZero() || d.Opened.Before(w.Before))
}

// byTally reports whether tallies can tell which disclosures to look at.
func (w Wanted) byTally() bool {
	return !w.Recipient.IsZero() || w.Purpose != "" || !w.Grant.IsZero() || !w.Permission.IsZero()
}

func (w Wanted) hours() (from, to int64) {
	from, to = math.MinInt64, math.MaxInt64
	if !w.From.IsZero() {
		from = hourOf(w.From)
	}
	if !w.Before.IsZero() {
		to = hourOf(w.Before)
	}
	return from, to
}

// lookedAt is how many disclosures a page opens at most, for one that holds few:
// the hours that stand beside them in the clear are coarser than what is asked.
const lookedAt = 4000

// DisclosurePage returns up to limit disclosures of an owner's data, the newest
// first, behind the one numbered after (0: from the newest). next is where the
// page behind it begins, 0 if there is none. A page may hold fewer than limit, even
// none, and yet have a next one.
func (r *Register) DisclosurePage(ctx context.Context, owner holdfast.PartyID, w Wanted, after uint64, limit int) (page []Disclosure, next uint64, err error) {
	walks := []walk{{from: math.MinInt64, to: math.MaxInt64}}
	if w.byTally() {
		if walks, err = r.walksOf(ctx, owner, w); err != nil || len(walks) == 0 {
			return nil, 0, err
		}
	}
	at := place{hour: math.MaxInt64, n: math.MaxInt64}
	if after > 0 {
		if at, err = r.placeOf(ctx, owner, after); err != nil {
			return nil, 0, err
		}
	}
	for looked := 0; looked < lookedAt && len(page) < limit; {
		var rows []disclosureRow
		var opened []Disclosure
		err := r.steadily(func() (err error) {
			if rows, err = r.disclosureRows(ctx, owner, walks, w, at, limit-len(page)); err != nil {
				return err
			}
			opened, err = r.openDisclosures(ctx, owner, rows)
			return err
		})
		if err != nil || len(rows) == 0 {
			return page, 0, err
		}
		for _, d := range opened {
			if w.fits(d) {
				page = append(page, d)
			}
		}
		looked += len(rows)
		at = rows[len(rows)-1].place
	}
	more, err := r.disclosureRows(ctx, owner, walks, w, at, 1)
	if err != nil || len(more) == 0 {
		return page, 0, err
	}
	return page, uint64(at.n), nil
}

// pageOfAll is how many disclosures AllDisclosures has in memory.
const pageOfAll = 1000

// AllDisclosures gives what left of an owner's data, the newest first.
func (r *Register) AllDisclosures(ctx context.Context, owner holdfast.PartyID) iter.Seq2[Disclosure, error] {
	return func(yield func(Disclosure, error) bool) {
		for after := uint64(0); ; {
			page, next, err := r.DisclosurePage(ctx, owner, Wanted{}, after, pageOfAll)
			if err != nil {
				yield(Disclosure{}, err)
				return
			}
			for _, d := range page {
				if !yield(d, nil) {
					return
				}
			}
			if after = next; next == 0 {
				return
			}
		}
	}
}

// Disclosures returns what left of an owner's data, the latest read first.
func (r *Register) Disclosures(ctx context.Context, owner holdfast.PartyID) ([]Disclosure, error) {
	var all []Disclosure
	for d, err := range r.AllDisclosures(ctx, owner) {
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	slices.SortStableFunc(all, func(a, b Disclosure) int { return b.Last.Compare(a.Last) })
	return all, nil
}

// place is where a disclosure stands among an owner's.
type place struct{ hour, n int64 }

type disclosureRow struct {
	place
	id    holdfast.DisclosureID
	state string
	box   []byte
}

func (r *Register) placeOf(ctx context.Context, owner holdfast.PartyID, n uint64) (place, error) {
	at := place{n: int64(min(n, math.MaxInt64))}
	err := r.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT hour FROM disclosure WHERE owner = $1 AND n = $2`, owner, at.n).Scan(&at.hour)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return at, holdfast.Errorf(holdfast.Conflict, "the item where the page begins is gone: ask again from the start")
	}
	return at, err
}

// walk is a part of an owner's disclosures that one index has in order: all, or
// those of a tally.
type walk struct {
	tally    []byte // nil: all
	from, to int64  // hours in which there are any
}

// walksOf returns those of the tallies whose disclosures may be wanted, the one
// with the latest first.
func (r *Register) walksOf(ctx context.Context, owner holdfast.PartyID, w Wanted) ([]walk, error) {
	all, err := r.readTallies(ctx, owner)
	if err != nil {
		return nil, err
	}
	var walks []walk
	for k, i := range all {
		if w.fits(Disclosure{Recipient: k.recipient, Purpose: k.purpose, Grant: k.grant, Permission: k.permission, Opened: w.From}) {
			id, err := r.tallyID(ctx, k)
			if err != nil {
				return nil, err
			}
			walks = append(walks, walk{tally: id[:], from: hourOf(holdfast.Instant(i.Opened)), to: hourOf(holdfast.Instant(i.Last))})
		}
	}
	slices.SortFunc(walks, func(a, b walk) int { return cmp.Compare(b.to, a.to) })
	return walks, nil
}

const (
	walkAll   = `SELECT hour, n FROM disclosure WHERE owner = $1 AND (hour, n) < ($2, $3) AND hour >= $4 ORDER BY hour DESC, n DESC LIMIT $5`
	walkTally = `SELECT hour, n FROM disclosure WHERE owner = $1 AND tally = $6 AND (hour, n) < ($2, $3) AND hour >= $4 ORDER BY hour DESC, n DESC LIMIT $5`
)

// disclosureRows reads up to limit rows behind a place. Of many walks it takes the
// places first: once there are enough, a walk need go no further back than they do.
func (r *Register) disclosureRows(ctx context.Context, owner holdfast.PartyID, walks []walk, w Wanted, at place, limit int) (rows []disclosureRow, err error) {
	from, to := w.hours()
	if to < at.hour {
		at = place{hour: to, n: math.MaxInt64}
	}
	err = r.db.Read(ctx, func(tx *sql.Tx) error {
		var places []place
		oldest := from
		for _, walk := range walks {
			if walk.to < oldest || walk.from > at.hour {
				continue
			}
			query, args := walkAll, []any{owner, at.hour, at.n, oldest, limit}
			if walk.tally != nil {
				query, args = walkTally, append(args, walk.tally)
			}
			if places, err = appendPlaces(ctx, tx, places, query, args); err != nil {
				return err
			}
			if len(places) >= limit {
				slices.SortFunc(places, place.newerFirst)
				places = places[:limit]
				oldest = max(from, places[limit-1].hour)
			}
		}
		slices.SortFunc(places, place.newerFirst)
		rows, err = rowsAt(ctx, tx, owner, places)
		return err
	})
	return rows, err
}

func (p place) newerFirst(q place) int {
	return cmp.Or(cmp.Compare(q.hour, p.hour), cmp.Compare(q.n, p.n))
}

func appendPlaces(ctx context.Context, tx *sql.Tx, places []place, query string, args []any) ([]place, error) {
	q, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	for q.Next() {
		var p place
		if err := q.Scan(&p.hour, &p.n); err != nil {
			return nil, err
		}
		places = append(places, p)
	}
	return places, q.Err()
}

func rowsAt(ctx context.Context, tx *sql.Tx, owner holdfast.PartyID, places []place) ([]disclosureRow, error) {
	rows := make([]disclosureRow, len(places))
	if len(places) == 0 {
		return rows, nil
	}
	get, err := tx.PrepareContext(ctx, `SELECT id, state, info_sealed FROM disclosure WHERE owner = $1 AND n = $2`)
	if err != nil {
		return nil, err
	}
	defer get.Close()
	for i, p := range places {
		rows[i].place = p
		if err := get.QueryRowContext(ctx, owner, p.n).Scan(&rows[i].id, &rows[i].state, &rows[i].box); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// openDisclosures opens rows; of what is under way it takes the amount from memory.
func (r *Register) openDisclosures(ctx context.Context, owner holdfast.PartyID, rows []disclosureRow) ([]Disclosure, error) {
	all := make([]Disclosure, 0, len(rows))
	for _, w := range rows {
		if d, ok := r.underWay(w.id); ok {
			all = append(all, d)
			continue
		}
		var i disclosureInfo
		switch err := r.open(ctx, vault.OfParty(owner), "disclosure", w.id[:], w.box, &i); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, i.disclosure(w.id, owner, w.state))
	}
	return all, nil
}

// underWay returns a disclosure of this process with the amount as it is now.
func (r *Register) underWay(id holdfast.DisclosureID) (Disclosure, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.byID[id]
	if o == nil {
		return Disclosure{}, false
	}
	d := o.Disclosure
	d.Complete = o.readers == 0
	return d, true
}
