package access

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

const invitationLife = 7 * 24 * time.Hour

// States of an invitation; the numbers stand in the catalog.
const (
	invitationOpen     = 1
	invitationRedeemed = 2
	invitationReplaced = 3
)

// Invitation is one in a listing. It tells no secret.
type Invitation struct {
	ID       holdfast.CredentialID // of the credential it makes
	Party    holdfast.PartyID
	By       holdfast.CredentialID
	Made     time.Time
	NotAfter time.Time
	State    string // "open", "redeemed", "replaced", "expired"
}

// InvitationMade is the ledger's payload of "invitation made".
type InvitationMade struct {
	Invitation holdfast.CredentialID `json:"invitation"`
	By         holdfast.CredentialID `json:"by"`
	Role       Role                  `json:"role"`   // of who invited
	Others     int                   `json:"others"` // the owner's live credentials: not 0 means a reset
	Until      time.Time             `json:"until"`
}

// Invite makes a one-time invitation for a party's own credential, valid for 7
// days; an open one of the party ends. An administrator invites anybody, an owner
// himself. That it was made stands on the party's record, first or later.
func (a *Access) Invite(ctx context.Context, by Principal, party holdfast.PartyID) (code string, until time.Time, err error) {
	if !by.Can(ScopeWrite) {
		return "", until, errReadOnly()
	}
	if err := by.inPerson(); err != nil {
		return "", until, err
	}
	if by.Role != Administrator && (by.Role != Owner || by.Party != party) || party.IsZero() {
		return "", until, holdfast.Errorf(holdfast.Denied, "this credential can't invite that party")
	}
	now := a.now()
	until = now.Add(invitationLife).UTC()
	secret := newSecret(invitationPrefix, newID(), a.authority.CAPin())
	hash := secret.hash()
	settled := 0
	if by.Role == Owner && by.Settled {
		settled = 1
	}
	err = a.catalog.Write(ctx, func(tx *sql.Tx) error {
		entry := InvitationMade{Invitation: secret.ID, By: by.Credential, Role: by.Role, Until: until}
		err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_credential WHERE party = $1 AND role = $2 AND revoked = 0 AND not_after > $3`,
			party, int(Owner), now.UnixNano()).Scan(&entry.Others)
		if err != nil {
			return err
		}
		if err := replaceInvitations(ctx, tx, party); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO access_invitation (id, party, secret_hash, made_by, made, not_after, settled, state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			secret.ID, party, hash[:], by.Credential, now.UnixNano(), until.UnixNano(), settled, invitationOpen)
		if err != nil {
			return err
		}
		_, err = a.ledger.Append(ctx, tx, vault.OfParty(party), "invitation made", entry)
		return err
	})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("invite party %s: %w", party, err)
	}
	return secret.Text(), until, nil
}

// Redemption is what a guest sends.
type Redemption struct {
	Code  string // the invitation
	CSR   []byte // PKCS #10, DER, for a certificate; nil for a token
	Label string // what the owner calls the credential; default "invited"
	From  string // the guest's address, for counting failures
	Login string // a token of an issuer: its subject is linked, and no other credential made; "" for none
}

// errInvitation is the one answer to whatever is wrong with an invitation.
func errInvitation() error {
	return holdfast.Errorf(holdfast.Denied, "the invitation is wrong, used, replaced or expired")
}

// Redeem makes the owner's own credential, once. It is on the owner's record, with
// how many live ones there were: whoever else holds one sees that another came.
func (a *Access) Redeem(ctx context.Context, r Redemption) (Made, error) {
	m, err := a.redeem(ctx, r, a.now())
	if holdfast.KindOf(err) == holdfast.Denied {
		return Made{}, a.failed(ctx, r.From, "invitation refused", err)
	}
	return m, err
}

func (a *Access) redeem(ctx context.Context, r Redemption, now time.Time) (Made, error) {
	secret, err := ParseInvitation(r.Code)
	if err != nil {
		return Made{}, errInvitation()
	}
	hash := secret.hash()
	var party holdfast.PartyID
	var stored []byte
	var settled bool
	err = a.catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT party, secret_hash, settled FROM access_invitation WHERE id = $1 AND state = $2 AND not_after > $3`,
			secret.ID, invitationOpen, now.UnixNano()).Scan(&party, &stored, &settled)
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Made{}, fmt.Errorf("redeem invitation: %w", err)
	}
	if subtle.ConstantTimeCompare(stored, hash[:]) != 1 {
		return Made{}, errInvitation()
	}
	if r.Login != "" {
		return a.redeemLink(ctx, r, secret.ID, party, settled, now)
	}
	if r.Label == "" {
		r.Label = "invited"
	}
	s, err := Spec{Label: r.Label, Party: party, Role: Owner}.checked()
	if err != nil {
		return Made{}, err
	}
	m, err := a.prepare(ctx, secret.ID, s, r.CSR)
	if err != nil {
		return Made{}, fmt.Errorf("redeem invitation: %w", err)
	}
	m.invited = true
	if err := a.insertInvited(ctx, m, settled, now); err != nil {
		return Made{}, fmt.Errorf("redeem invitation: %w", err)
	}
	return m.handOut(), nil
}

// insertInvited writes what an invitation was redeemed for, once.
func (a *Access) insertInvited(ctx context.Context, m *making, settled bool, now time.Time) error {
	return a.catalog.Write(ctx, func(tx *sql.Tx) error {
		u, err := tx.ExecContext(ctx, `UPDATE access_invitation SET state = $1 WHERE id = $2 AND state = $3`, invitationRedeemed, m.id, invitationOpen)
		if err != nil {
			return err
		}
		if n, err := u.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, errInvitation()) // another guest was faster
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.InvitationEnded, ID: ledger.TakenID(m.id)}); err != nil {
			return err
		}
		if m.settled, err = settledInvited(ctx, tx, m.party, settled, now); err != nil {
			return err
		}
		return a.insert(ctx, tx, m)
	})
}

// Invitations lists a party's invitations, oldest first, to the owner and to
// administrators.
func (a *Access) Invitations(ctx context.Context, by Principal, party holdfast.PartyID) ([]Invitation, error) {
	if err := maySee(by, party); err != nil {
		return nil, err
	}
	now := a.now()
	var out []Invitation
	err := a.catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id, made_by, made, not_after, state FROM access_invitation WHERE party = $1 ORDER BY made, id`, party)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			v := Invitation{Party: party}
			var made, until int64
			var state int
			if err := rows.Scan(&v.ID, &v.By, &made, &until, &state); err != nil {
				return err
			}
			v.Made, v.NotAfter = time.Unix(0, made).UTC(), time.Unix(0, until).UTC()
			switch {
			case state == invitationRedeemed:
				v.State = "redeemed"
			case state == invitationReplaced:
				v.State = "replaced"
			case now.After(v.NotAfter):
				v.State = "expired"
			default:
				v.State = "open"
			}
			out = append(out, v)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list invitations: %w", err)
	}
	return out, nil
}
