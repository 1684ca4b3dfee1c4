package access

import (
	"context"
	"database/sql"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// replaceInvitations ends the open invitations of a party.
func replaceInvitations(ctx context.Context, tx *sql.Tx, party holdfast.PartyID) error {
	u, err := tx.ExecContext(ctx, `UPDATE access_invitation SET state = $1 WHERE party = $2 AND state = $3`, invitationReplaced, party, invitationOpen)
	if err != nil {
		return err
	}
	if n, err := u.RowsAffected(); err != nil || n == 0 {
		return err
	}
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.InvitationEnded, Of: ledger.TakenID(party)})
}

// Replay carries a take-back out again in a catalog that was put back to an earlier
// state. What that one does not know is passed over. It may run again.
func (a *Access) Replay(ctx context.Context, tx *sql.Tx, t ledger.TakeBack) (err error) {
	switch t.Kind {
	case ledger.CredentialRevoked:
		_, err = tx.ExecContext(ctx, `UPDATE access_credential SET revoked = $1 WHERE id = $2 AND revoked = 0`, t.At.UnixNano(), t.ID)
	case ledger.InvitationEnded: // of a party, those of before: none that was made since is here
		_, err = tx.ExecContext(ctx, `UPDATE access_invitation SET state = $1 WHERE (id = $2 OR party = $3) AND state = $4`, invitationReplaced, t.ID, t.Of, invitationOpen)
	case ledger.PermissionEnded:
		state := slices.Index(permissionStates[:], t.State)
		if state <= 0 {
			return holdfast.Errorf(holdfast.Invalid, "take-back %d can't be read", t.Number)
		}
		_, err = tx.ExecContext(ctx, `UPDATE access_permission SET state = $1, about_sealed = $2 WHERE id = $3`, state, t.Box, t.ID)
	case ledger.FactorEnded:
		if _, err = tx.ExecContext(ctx, `DELETE FROM access_factor WHERE holder = $1`, t.ID); err == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM access_recovery WHERE holder = $1`, t.ID)
		}
	case ledger.RecoveryUsed:
		_, err = tx.ExecContext(ctx, `DELETE FROM access_recovery WHERE holder = $1 AND code_hash = $2`, t.ID, t.Hash)
	default:
		return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
	}
	return err
}
