package erasure

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// What an administrator has erased on his own word counts for a day, so that what
// needs a second one in bulk needs him in pieces, too. Fresh credentials of the same
// person are no way round it. What had a safeguard of its own, an approval or a day in
// which it could be undone, does not count; nor does what was undone.

// aloneFor is how long it counts. It is told by whole minutes, and so for up to one
// longer.
const aloneFor = 24 * time.Hour

// alone is what an erasure that its asker alone is the cause of adds to his day.
type alone struct {
	asker  holdfast.CredentialID
	person []holdfast.CredentialID // all holders that may be he, himself among them
	items  [][]byte                // assignments, or the party
	most   int
}

// items are what of a scope counts: a party without devices is one.
func items(s holdfast.Scope) (out [][]byte) {
	for _, a := range s.Assignments {
		out = append(out, a[:])
	}
	if len(out) == 0 {
		out = append(out, s.Party[:])
	}
	return out
}

// onOwnWord returns what an erasure would add to the day of whose word it is; nil if
// that would be too much. Whoever is to accept it has g.deciding.
func (g *Gate) onOwnWord(ctx context.Context, whose holdfast.CredentialID, s holdfast.Scope) (*alone, error) {
	a := &alone{asker: whose, person: []holdfast.CredentialID{whose}, items: items(s), most: g.Policy.Bulk}
	if len(a.items) > a.most {
		return nil, nil
	}
	since := aloneSince(g.Arrival())
	askers, err := g.askersSince(ctx, since)
	if err != nil {
		return nil, err
	}
	for _, x := range askers {
		if x == whose {
			continue
		}
		switch err := g.People.Another(ctx, access.Principal{Holder: whose}, x); holdfast.KindOf(err) {
		case holdfast.Denied:
			a.person = append(a.person, x)
		default:
			if err != nil {
				return nil, err
			}
		}
	}
	var n int
	err = g.Catalog.Read(ctx, func(tx *sql.Tx) (err error) {
		n, err = a.count(ctx, tx, since)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count erasures: %w", err)
	}
	if n > a.most {
		return nil, nil
	}
	return a, nil
}

func minuteOf(arrival int64) int64 { return arrival / int64(time.Minute) }

// aloneSince is the first minute that counts.
func aloneSince(arrival int64) int64 { return minuteOf(arrival) - int64(aloneFor/time.Minute) }

func (g *Gate) askersSince(ctx context.Context, since int64) (out []holdfast.CredentialID, err error) {
	err = g.Catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT DISTINCT asker FROM erasure_alone WHERE minute >= $1`, since)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id holdfast.CredentialID
			if err := rows.Scan(&id); err != nil {
				return err
			}
			out = append(out, id)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("count erasures: %w", err)
	}
	return out, nil
}

// count is how many different items the asker would have on his own word with these.
func (a *alone) count(ctx context.Context, tx *sql.Tx, since int64) (int, error) {
	all := map[string]struct{}{}
	for _, x := range a.items {
		all[string(x)] = struct{}{}
	}
	for _, who := range a.person {
		rows, err := tx.QueryContext(ctx, `SELECT DISTINCT item FROM erasure_alone WHERE minute >= $1 AND asker = $2`, since, who)
		if err != nil {
			return 0, err
		}
		for rows.Next() {
			var x []byte
			if err := rows.Scan(&x); err != nil {
				rows.Close()
				return 0, err
			}
			all[string(x)] = struct{}{}
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return 0, err
		}
	}
	return len(all), nil
}

// add writes down, in the transaction that accepts an erasure, that its asker has had
// it erased alone. nil adds nothing.
func (a *alone) add(ctx context.Context, tx *sql.Tx, e holdfast.ErasureID, arrival int64) error {
	if a == nil {
		return nil
	}
	since := aloneSince(arrival)
	n, err := a.count(ctx, tx, since)
	if err != nil {
		return err
	}
	if n > a.most {
		return holdfast.Errorf(holdfast.Conflict, "the same one asked for other erasures meanwhile: ask again")
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM erasure_alone WHERE minute < $1`, since); err != nil {
		return err
	}
	for _, x := range a.items {
		if _, err := tx.ExecContext(ctx, `INSERT INTO erasure_alone (erasure, item, asker, minute) VALUES ($1, $2, $3, $4)`, e, x, a.asker, minuteOf(arrival)); err != nil {
			return err
		}
	}
	return nil
}

// uncount takes an erasure of which nothing was carried out from its asker's day.
func uncount(ctx context.Context, tx *sql.Tx, e holdfast.ErasureID) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM erasure_alone WHERE erasure = $1`, e)
	return err
}
