package access

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// Suspend leaves the credentials of a party whose erasure waits nothing but to look at
// that and to take it back: what they have open ends, and who shows one is Leaving.
// Memory alone knows of it; whoever keeps the erasure says so again after a start.
func (a *Access) Suspend(ctx context.Context, party holdfast.PartyID) error {
	var all []holdfast.CredentialID
	err := a.catalog.Read(ctx, func(tx *sql.Tx) (err error) {
		all, err = credentialsOf(ctx, tx, party)
		return err
	})
	if err != nil {
		return fmt.Errorf("suspend credentials: %w", err)
	}
	a.mu.Lock()
	a.leaving[party] = struct{}{}
	clear(a.permits)
	var open []*tracked
	for _, id := range all {
		for t := range a.tracks[id] {
			open = append(open, t)
		}
	}
	a.mu.Unlock()
	cutOff(open)
	return nil
}

// Resume takes Suspend back.
func (a *Access) Resume(party holdfast.PartyID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.leaving, party)
}

func (a *Access) isLeaving(party holdfast.PartyID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, leaving := a.leaving[party]
	return leaving
}

// staying refuses who is Leaving.
func (a *Access) staying(p Principal, err error) (Principal, error) {
	if err == nil && p.Leaving {
		return Principal{}, a.refusal("leaving")
	}
	return p, err
}

// Another refuses by as the second person beside the holder who asked for something:
// DecidePermission has the rule. What the hub made on its own machine may be one
// person's, as if that were a common third.
func (a *Access) Another(ctx context.Context, by Principal, asker holdfast.CredentialID) error {
	return a.anotherPerson(ctx, by, asker, a.now())
}

// Others returns the administrators who may change anything, with a settled credential,
// and are taken for another person than asker: one credential of each, the newest.
func (a *Access) Others(ctx context.Context, asker holdfast.CredentialID) (out []holdfast.CredentialID, err error) {
	var holders, newest []holdfast.CredentialID
	err = a.catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT holder, id FROM access_credential WHERE role = $1 AND revoked = 0 AND not_after > $2 AND settled <= $2 AND (scopes & $3) <> 0 ORDER BY made DESC, id`,
			int(Administrator), a.now().UnixNano(), int(ScopeWrite))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var holder, id holdfast.CredentialID
			if err := rows.Scan(&holder, &id); err != nil {
				return err
			}
			if !slices.Contains(holders, holder) {
				holders, newest = append(holders, holder), append(newest, id)
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list administrators: %w", err)
	}
	for i, h := range holders {
		switch err := a.anotherPerson(ctx, Principal{Holder: h}, asker, a.now()); {
		case err == nil:
			out = append(out, newest[i])
		case holdfast.KindOf(err) != holdfast.Denied:
			return nil, err
		}
	}
	return out, nil
}
