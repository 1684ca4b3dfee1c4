package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// maxLine bounds how far back it is looked who made whom.
const maxLine = 64

// anotherPerson refuses by as the second person beside asker. One holder is one
// person. Two holders whose credentials go back to a common one may be one person
// who made himself both; they are taken for two when all that came between is old
// enough that others would have noticed. Administrators whom the hub itself made, in
// init and in each restore, go back to the machine: whoever has it may have them all.
// Logins that an issuer vouches for go back to nobody.
func (a *Access) anotherPerson(ctx context.Context, by Principal, asker holdfast.CredentialID, now time.Time) error {
	refusal := holdfast.Errorf(holdfast.Denied, "a second person approves: this credential is the asker's, or one came from the other or both from a third within the last %d days. "+
		"Another one of the staff, or the owner himself, can approve", strangers/day)
	if by.Holder.IsZero() || by.Holder == asker {
		return refusal
	}
	mine, err := a.line(ctx, by.Holder)
	if err != nil {
		return err
	}
	his, err := a.line(ctx, asker)
	if err != nil {
		return err
	}
	if len(mine) == 0 || len(his) == 0 || len(mine) == maxLine || len(his) == maxLine {
		return refusal
	}
	for i, m := range mine {
		for j, h := range his {
			if m.holder != h.holder {
				continue
			}
			for _, between := range append(mine[:i:i], his[:j]...) {
				if now.Sub(between.since) < strangers {
					return refusal
				}
			}
			return nil
		}
	}
	return nil
}

// ancestor is one in a line of who made whom; without a holder, the machine.
type ancestor struct {
	holder holdfast.CredentialID
	since  time.Time
}

// line returns a holder, who made him, who made that one, and so on.
func (a *Access) line(ctx context.Context, holder holdfast.CredentialID) (out []ancestor, err error) {
	err = a.catalog.Read(ctx, func(tx *sql.Tx) error {
		for !holder.IsZero() && len(out) < maxLine {
			var since int64
			var role Role
			var kind Kind
			var by holdfast.CredentialID
			err := tx.QueryRowContext(ctx, `SELECT since, made_by, role, kind FROM access_credential WHERE holder = $1 LIMIT 1`, holder).Scan(&since, &by, &role, &kind)
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			out = append(out, ancestor{holder, time.Unix(0, since)})
			if by.IsZero() && role == Administrator && kind != Link {
				out = append(out, ancestor{})
			}
			holder = by
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look who made a credential: %w", err)
	}
	return out, nil
}

// Inviter returns the administrator who may be the person behind an owner's holder,
// zero if nobody is: the one who invited him, or invited whom he goes back to, within
// the time after which a second credential is taken for a second person. The one who
// invites may redeem it himself.
func (a *Access) Inviter(ctx context.Context, holder holdfast.CredentialID) (by holdfast.CredentialID, err error) {
	now := a.now()
	err = a.catalog.Read(ctx, func(tx *sql.Tx) error {
		for range maxLine {
			m, err := whoMade(ctx, tx, holder)
			switch {
			case err != nil:
				return err
			case m.role == Administrator && m.invited && now.Sub(m.since) < strangers:
				by = m.holder
				return nil
			case m.role != Owner:
				return nil
			}
			holder = m.holder
		}
		by = holder // nobody can say
		return nil
	})
	if err != nil {
		return by, fmt.Errorf("look who invited a credential: %w", err)
	}
	return by, nil
}

// maker is who made a holder's first credential, or invited to it.
type maker struct {
	holder  holdfast.CredentialID
	role    Role // 0: nobody is known
	invited bool
	since   time.Time // when it was made
}

func whoMade(ctx context.Context, tx *sql.Tx, holder holdfast.CredentialID) (m maker, err error) {
	var since int64
	var credential holdfast.CredentialID
	err = tx.QueryRowContext(ctx, `SELECT since, made_by FROM access_credential WHERE holder = $1 LIMIT 1`, holder).Scan(&since, &credential)
	if err == nil && credential.IsZero() {
		m.invited = true
		err = tx.QueryRowContext(ctx, `SELECT made_by FROM access_invitation WHERE id = $1`, holder).Scan(&credential)
	}
	if err == nil {
		err = tx.QueryRowContext(ctx, `SELECT holder, role FROM access_credential WHERE id = $1`, credential).Scan(&m.holder, &m.role)
	}
	m.since = time.Unix(0, since)
	if errors.Is(err, sql.ErrNoRows) {
		return m, nil
	}
	return m, err
}

// operatingOf is the operating organisation, or nobody where none is wired.
func operatingOf(ctx context.Context, a *Access) (holdfast.PartyID, error) {
	if a.operating == nil {
		return holdfast.PartyID{}, nil
	}
	return a.operating(ctx)
}
