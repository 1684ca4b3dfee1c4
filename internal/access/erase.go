package access

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/holdfast-iot/holdfast"
)

// Erase removes what an erased party came in with (credentials, links, invitations,
// second factors) and the permissions of staff about it, and refuses them from now
// on; an erasure that leaves the party leaves them too. It needs no
// key of the party, and may run again.
func (a *Access) Erase(ctx context.Context, s holdfast.Scope) error {
	if !s.Whole {
		return nil
	}
	var gone []holdfast.CredentialID
	err := a.catalog.Write(ctx, func(tx *sql.Tx) (err error) {
		if gone, err = credentialsOf(ctx, tx, s.Party); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM access_credential WHERE party = $1`, s.Party); err != nil {
			return err
		}
		for _, q := range []string{
			`DELETE FROM access_invitation WHERE party = $1`,
			`DELETE FROM access_permission WHERE whose = $1`,
			`DELETE FROM access_recovery WHERE holder IN (SELECT holder FROM access_factor WHERE party = $1)`,
			`DELETE FROM access_factor WHERE party = $1`,
		} {
			if _, err := tx.ExecContext(ctx, q, s.Party); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("erase credentials: %w", err)
	}
	a.refuse(gone...)
	return nil
}

func credentialsOf(ctx context.Context, tx *sql.Tx, party holdfast.PartyID) (out []holdfast.CredentialID, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id FROM access_credential WHERE party = $1`, party)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id holdfast.CredentialID
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, rows.Err()
}
