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
// enough that others would have noticed. Administrators whom the hub itself made, and
// logins that an issuer vouches for, go back to nobody.
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

// ancestor is one in a line of who made whom.
type ancestor struct {
	holder holdfast.CredentialID
	since  time.Time
}

// line returns a holder, who made him, who made that one, and so on.
func (a *Access) line(ctx context.Context, holder holdfast.CredentialID) (out []ancestor, err error) {
	err = a.catalog.Read(ctx, func(tx *sql.Tx) error {
		for !holder.IsZero() && len(out) < maxLine {
			var since int64
			var by holdfast.CredentialID
			err := tx.QueryRowContext(ctx, `SELECT since, made_by FROM access_credential WHERE holder = $1 LIMIT 1`, holder).Scan(&since, &by)
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			out = append(out, ancestor{holder, time.Unix(0, since)})
			holder = by
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look who made a credential: %w", err)
	}
	return out, nil
}

// operatingOf is the operating organisation, or nobody where none is wired.
func operatingOf(ctx context.Context, a *Access) (holdfast.PartyID, error) {
	if a.operating == nil {
		return holdfast.PartyID{}, nil
	}
	return a.operating(ctx)
}
