package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Credential is one in a listing. It tells no secret.
type Credential struct {
	ID       holdfast.CredentialID
	Holder   holdfast.CredentialID // the first credential of the same holder
	Kind     Kind
	Party    holdfast.PartyID
	Role     Role
	Label    string // "" to who may not see it
	Purposes []holdfast.Purpose
	Grants   []holdfast.GrantID
	Issuer   string // of a link; "" to who may not see it
	Scopes   Scopes
	Made     time.Time
	NotAfter time.Time
	Revoked  time.Time // zero while it is not
	Settled  time.Time // from when it may do what can't be undone; zero: from the start
	LastUsed time.Time // midnight UTC of the day, zero for never
}

// Credentials lists a party's credentials, oldest first: to an administrator any
// party's (all parties' if party is zero), to an owner his own. What an owner
// calls his own credentials is shown to him alone.
func (a *Access) Credentials(ctx context.Context, by Principal, party holdfast.PartyID) ([]Credential, error) {
	if err := maySee(by, party); err != nil {
		return nil, err
	}
	var rows []*credential
	err := a.catalog.Read(ctx, func(tx *sql.Tx) error {
		q := `SELECT ` + credentialColumns + ` FROM access_credential WHERE party = $1 ORDER BY made, id`
		args := []any{party}
		if party.IsZero() {
			q, args = `SELECT `+credentialColumns+` FROM access_credential ORDER BY made, id`, nil
		}
		r, err := tx.QueryContext(ctx, q, args...)
		if err != nil {
			return err
		}
		defer r.Close()
		for r.Next() {
			c, err := scanCredential(r)
			if err != nil {
				return err
			}
			rows = append(rows, c)
		}
		return r.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list credentials: %w", err)
	}
	out := make([]Credential, 0, len(rows))
	for _, c := range rows {
		err := a.open(ctx, c)
		if holdfast.KindOf(err) == holdfast.NotFound {
			continue // of a party that is erased; its row goes too
		}
		if err != nil {
			return nil, fmt.Errorf("list credentials: %w", err)
		}
		out = append(out, a.listed(c, by))
	}
	return out, nil
}

func (a *Access) listed(c *credential, by Principal) Credential {
	a.mu.Lock()
	last := max(c.lastDay, a.used[c.id])
	a.mu.Unlock()
	l := Credential{ID: c.id, Holder: c.holder, Kind: c.kind, Party: c.party, Role: c.role, Label: c.about.Label, Purposes: c.about.Purposes,
		Grants: c.about.Grants, Issuer: c.about.Issuer, Scopes: c.scopes, Made: time.Unix(0, c.made).UTC(), NotAfter: time.Unix(0, c.notAfter).UTC()}
	if c.role == Owner && by.Party != c.party {
		l.Label, l.Issuer = "", ""
	}
	if c.settled != 0 {
		l.Settled = time.Unix(0, c.settled).UTC()
	}
	if c.revoked != 0 {
		l.Revoked = time.Unix(0, c.revoked).UTC()
	}
	if last != 0 {
		l.LastUsed = time.Unix(0, last*int64(day)).UTC()
	}
	return l
}

func maySee(by Principal, party holdfast.PartyID) error {
	if by.Can(ScopeRead) && (by.Role.staff() || by.Role == Owner && by.Party == party) {
		return nil
	}
	return holdfast.Errorf(holdfast.Denied, "this credential can't list those of that party")
}

// CredentialRevoked is the ledger's payload of "credential revoked".
type CredentialRevoked struct {
	Credential holdfast.CredentialID `json:"credential"`
	By         holdfast.CredentialID `json:"by"`
	Reason     string                `json:"reason"`
	At         time.Time             `json:"at"`
}

// Revoke ends a credential: an administrator any, an owner his own party's. It is
// on the party's record, and holds from the next request on. The last live
// administrator who may change anything stays, for nobody could let another one in.
func (a *Access) Revoke(ctx context.Context, by Principal, id holdfast.CredentialID, reason string) error {
	if !by.Can(ScopeWrite) {
		return errReadOnly()
	}
	if err := by.inPerson(); err != nil {
		return err
	}
	now := a.now()
	err := a.catalog.Write(ctx, func(tx *sql.Tx) error {
		c, err := scanCredential(tx.QueryRowContext(ctx, `SELECT `+credentialColumns+` FROM access_credential WHERE id = $1`, id))
		if errors.Is(err, sql.ErrNoRows) || err == nil && !by.mayEnd(c) {
			return holdfast.Errorf(holdfast.NotFound, "no credential %s", id)
		}
		if err != nil {
			return err
		}
		if c.revoked != 0 {
			return holdfast.Errorf(holdfast.Conflict, "credential %s is revoked already", id)
		}
		if c.role == Administrator && c.scopes&ScopeWrite != 0 {
			var others int
			err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_credential WHERE role = $1 AND id <> $2 AND kind <> 3 AND revoked = 0 AND not_after > $3 AND (scopes & $4) <> 0`,
				int(Administrator), id, now.UnixNano(), int(ScopeWrite)).Scan(&others)
			if err != nil {
				return err
			}
			if others == 0 {
				return holdfast.Errorf(holdfast.Conflict, "this is the last administrator: add another one first")
			}
		}
		return a.ended(ctx, tx, by, c, reason, now)
	})
	if err != nil {
		return fmt.Errorf("revoke credential %s: %w", id, err)
	}
	a.refuse(id)
	return nil
}

// Ending is a credential that was used lately and ends soon.
type Ending struct {
	ID       holdfast.CredentialID
	Role     Role
	NotAfter time.Time
}

// Ending returns the certificates and tokens that end before a time and were used
// within the days before now, first those that end first, and how many
// administrators who may change anything will be left then. For the hub itself: it
// tells no label.
func (a *Access) Ending(ctx context.Context, before time.Time, days int) (ending []Ending, administrators int, err error) {
	now := a.now()
	since := now.Unix()/int64(day/time.Second) - int64(days)
	err = a.catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id, role, not_after, last_day, made FROM access_credential
			WHERE kind <> 3 AND revoked = 0 AND not_after > $1 AND not_after < $2 ORDER BY not_after, id`, now.UnixNano(), before.UnixNano())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e Ending
			var role int
			var to, last, made int64
			if err := rows.Scan(&e.ID, &role, &to, &last, &made); err != nil {
				return err
			}
			a.mu.Lock()
			last = max(last, a.used[e.ID])
			a.mu.Unlock()
			life := time.Duration(to - made)
			if last < since || life < 7*day { // one made for a day ends as it was meant to
				continue
			}
			e.Role, e.NotAfter = Role(role), time.Unix(0, to).UTC()
			ending = append(ending, e)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_credential WHERE role = $1 AND kind <> 3 AND revoked = 0 AND not_after > $2 AND (scopes & $3) <> 0`,
			int(Administrator), before.UnixNano(), int(ScopeWrite)).Scan(&administrators)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list credentials that end: %w", err)
	}
	return ending, administrators, nil
}

// Waiting returns how many permissions were asked for and not decided, and since
// when the oldest of them waits.
func (a *Access) Waiting(ctx context.Context) (n int, since time.Time, err error) {
	all, err := a.permissions(ctx, `state = $1`, permissionAsked)
	if err != nil {
		return 0, since, err
	}
	for _, p := range all {
		if !a.now().Before(p.about.Until) {
			continue
		}
		if n++; since.IsZero() || p.about.Asked.Before(since) {
			since = p.about.Asked
		}
	}
	return n, since, nil
}
