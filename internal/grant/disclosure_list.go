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
	tallies := [][]byte{nil}
	if w.byTally() {
		if tallies, err = r.talliesOf(ctx, owner, w); err != nil || len(tallies) == 0 {
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
			if rows, err = r.disclosureRows(ctx, owner, tallies, w, at, limit-len(page)); err != nil {
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
	more, err := r.disclosureRows(ctx, owner, tallies, w, at, 1)
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

// talliesOf returns the ids of those whose disclosures may be wanted.
func (r *Register) talliesOf(ctx context.Context, owner holdfast.PartyID, w Wanted) ([][]byte, error) {
	all, err := r.readTallies(ctx, owner)
	if err != nil {
		return nil, err
	}
	var ids [][]byte
	for k := range all {
		if w.fits(Disclosure{Recipient: k.recipient, Purpose: k.purpose, Grant: k.grant, Permission: k.permission, Opened: w.From}) {
			id, err := r.tallyID(ctx, k)
			if err != nil {
				return nil, err
			}
			ids = append(ids, id[:])
		}
	}
	return ids, nil
}

// disclosureRows reads the rows behind a place, of every tally as many as could
// be the next ones.
func (r *Register) disclosureRows(ctx context.Context, owner holdfast.PartyID, tallies [][]byte, w Wanted, at place, limit int) (rows []disclosureRow, err error) {
	from, to := w.hours()
	err = r.db.Read(ctx, func(tx *sql.Tx) error {
		rows = rows[:0]
		for _, tally := range tallies {
			// Two ranges, not a comparison of pairs: each is one walk of the index.
			for _, part := range []struct{ from, to, below int64 }{{max(from, at.hour), min(to, at.hour), at.n}, {from, min(to, at.hour-1), math.MaxInt64}} {
				if part.from > part.to {
					continue
				}
				if err := r.walk(ctx, tx, &rows, owner, tally, part.from, part.to, part.below, limit); err != nil {
					return err
				}
			}
		}
		return nil
	})
	slices.SortFunc(rows, func(a, b disclosureRow) int { return cmp.Or(cmp.Compare(b.hour, a.hour), cmp.Compare(b.n, a.n)) })
	return rows[:min(limit, len(rows))], err
}

func (r *Register) walk(ctx context.Context, tx *sql.Tx, rows *[]disclosureRow, owner holdfast.PartyID, tally []byte, from, to, below int64, limit int) error {
	query := `SELECT hour, n, id, state, info_sealed FROM disclosure WHERE owner = $1 AND hour BETWEEN $2 AND $3 AND n < $4 ORDER BY hour DESC, n DESC LIMIT $5`
	args := []any{owner, from, to, below, limit}
	if tally != nil {
		query = `SELECT hour, n, id, state, info_sealed FROM disclosure WHERE owner = $1 AND tally = $6 AND hour BETWEEN $2 AND $3 AND n < $4 ORDER BY hour DESC, n DESC LIMIT $5`
		args = append(args, tally)
	}
	q, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer q.Close()
	for q.Next() {
		var w disclosureRow
		if err := q.Scan(&w.hour, &w.n, &w.id, &w.state, &w.box); err != nil {
			return err
		}
		*rows = append(*rows, w)
	}
	return q.Err()
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
		case gone(err):
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
