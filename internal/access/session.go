package access

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Sessions lists what the caller can come in with, oldest first, ended ones apart:
// of an owner every credential of his party, of staff those of the same person.
func (a *Access) Sessions(ctx context.Context, by Principal) ([]Credential, error) {
	if err := by.inPerson(); err != nil {
		return nil, err
	}
	if by.Role == Program || !by.Can(ScopeRead) {
		return nil, holdfast.Errorf(holdfast.Denied, "this credential can't list others")
	}
	all, err := a.Credentials(ctx, by, by.Party)
	if err != nil {
		return nil, err
	}
	now := a.now()
	return slices.DeleteFunc(all, func(c Credential) bool {
		return !c.Revoked.IsZero() || !now.Before(c.NotAfter) || by.Role.staff() && c.Holder != by.Holder
	}), nil
}

// EndSession ends one of the caller's sessions.
func (a *Access) EndSession(ctx context.Context, by Principal, id holdfast.CredentialID) error {
	all, err := a.Sessions(ctx, by)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(c Credential) bool { return c.ID == id }) {
		return holdfast.Errorf(holdfast.NotFound, "there is no such session")
	}
	return a.Revoke(ctx, by, id, "ended by its holder")
}

// EndOtherSessions ends all of them but the one that asks, and the invitations that
// are open; programs' only if they are asked for, for they may serve others.
func (a *Access) EndOtherSessions(ctx context.Context, by Principal, programs bool) (ended int, err error) {
	if !by.Can(ScopeWrite) {
		return 0, errReadOnly()
	}
	if err := by.inPerson(); err != nil {
		return 0, err
	}
	if by.Role == Owner {
		err := a.catalog.Write(ctx, func(tx *sql.Tx) error {
			return replaceInvitations(ctx, tx, by.Party)
		})
		if err != nil {
			return 0, fmt.Errorf("end sessions: %w", err)
		}
	}
	all, err := a.Sessions(ctx, by)
	if err != nil {
		return 0, err
	}
	for _, c := range all {
		if c.ID == by.Credential || c.Role == Program && !programs {
			continue
		}
		if err := a.Revoke(ctx, by, c.ID, "ended with all others by its holder"); err != nil && holdfast.KindOf(err) != holdfast.Conflict {
			return ended, err
		}
		ended++
	}
	return ended, nil
}

// mayEnd reports whether by may end c: an administrator any, everybody his own. An
// auditor's own are those of the same person.
func (p Principal) mayEnd(c *credential) bool {
	switch p.Role {
	case Administrator:
		return true
	case Owner:
		return p.Party == c.party && !c.role.staff()
	case Auditor:
		return p.Holder == c.holder
	}
	return false
}

// ended writes the end of a credential.
func (a *Access) ended(ctx context.Context, tx *sql.Tx, by Principal, c *credential, reason string, now time.Time) error {
	if _, err := tx.ExecContext(ctx, `UPDATE access_credential SET revoked = $1 WHERE id = $2`, now.UnixNano(), c.id); err != nil {
		return err
	}
	if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.CredentialRevoked, ID: ledger.TakenID(c.id)}); err != nil {
		return err
	}
	_, err := a.ledger.Append(ctx, tx, vault.OfParty(c.party), "credential revoked",
		CredentialRevoked{Credential: c.id, By: by.Credential, Reason: reason, At: now.UTC()})
	return err
}
