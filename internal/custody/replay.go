package custody

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// closeDevice ends a device, its claim code and what was offered of it.
func closeDevice(ctx context.Context, tx *sql.Tx, d holdfast.DeviceID) error {
	for _, q := range []string{
		`DELETE FROM claim_code WHERE device = $1`,
		`UPDATE transfer SET state = 'withdrawn' WHERE device = $1 AND state = 'offered'`,
		`UPDATE release_notice SET state = 'withdrawn' WHERE device = $1 AND state = 'open'`,
		// The name within the gateway is free for the next device.
		`UPDATE device SET state = 'closed', child_hash = NULL WHERE id = $1 AND state <> 'erased'`,
	} {
		if _, err := tx.ExecContext(ctx, q, d); err != nil {
			return err
		}
	}
	return nil
}

// Replay carries a take-back out again in a catalog that was put back to an earlier
// state. What that one does not know is passed over: no device and no membership is
// made. Periods are ReplayPeriod's. It may run again.
func (c *Custody) Replay(ctx context.Context, tx *sql.Tx, t ledger.TakeBack) error {
	do := func(query string, args ...any) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	}
	switch t.Kind {
	case ledger.DeviceClosed:
		return closeDevice(ctx, tx, holdfast.DeviceID(t.ID))
	case ledger.AssignmentChange:
		return do(`UPDATE assignment SET state = $1, info_sealed = $2 WHERE id = $3 AND state IN ('active', 'unclaimed')`, t.State, t.Box, t.ID)
	case ledger.ClaimCodeEnded:
		return do(`DELETE FROM claim_code WHERE device = $1`, t.ID)
	case ledger.TransferChange:
		return do(`UPDATE transfer SET state = $1, info_sealed = $2 WHERE id = $3`, t.State, t.Box, t.ID)
	case ledger.MembershipEnded:
		return do(`UPDATE membership SET state = $1, info_sealed = $2 WHERE id = $3`, t.State, t.Box, t.ID)
	case ledger.NoticeChange:
		return do(`UPDATE release_notice SET state = $1, info_sealed = $2 WHERE id = $3`, t.State, t.Box, t.ID)
	case ledger.JointChange:
		return do(`UPDATE joint_erasure SET state = $1 WHERE id = $2 AND state = 'waiting'`, t.State, t.ID)
	case ledger.GatewayGone:
		return do(`UPDATE device SET gateway = NULL, child_hash = NULL WHERE id = $1 AND gateway = $2`, t.ID, t.Of)
	}
	return holdfast.Errorf(holdfast.Conflict, "a take-back of kind %s is of a newer holdfast: start that one", t.Kind)
}

// ReplayErased closes what an erasure has covered, in a catalog that was put back to
// before it: the party leaves, and with an assignment that went whole its device is
// nobody's to use.
func (c *Custody) ReplayErased(ctx context.Context, tx *sql.Tx, s holdfast.Scope) error {
	if !s.Whole {
		return nil
	}
	_, err := tx.ExecContext(ctx, `UPDATE party SET state = $1 WHERE id = $2 AND state = 'active'`, Leaving, s.Party)
	return err
}
