package access

import (
	"context"
	"database/sql"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// settleAfter is how long a new credential must wait before it may do what can't
// be undone.
const settleAfter = 7 * day

// MustBeSettled is asked before whatever can't be undone: erasing, exporting,
// handing over. A credential that somebody else's word brought about (an
// invitation after the first, a link to a login) is settled when it is 7 days old,
// or while its holder has lately shown a second factor. Whoever took an account
// over is seen before he can take or destroy what is in it; what protects an owner
// (withdrawing, restricting, revoking) never waits.
func (p Principal) MustBeSettled() error {
	if p.Settled {
		return nil
	}
	return holdfast.Errorf(holdfast.Denied, "this can't be undone, and the credential is not settled: show a second factor with it (the header Holdfast-Code, or --code), "+
		"use an older one, or wait until it is %d days old", settleAfter/day)
}

// settledBy is when a credential settles that is made at a credential's word: it
// is worth what that one is.
func settledBy(by Principal, now time.Time) int64 {
	if by.Settled {
		return 0
	}
	return now.Add(settleAfter).UnixNano()
}

// settledInvited is when an owner's credential settles that comes by invitation:
// at once if his own settled credential invited, or if the party never had one,
// so that there is nobody whom the newcomer could be mistaken for.
func settledInvited(ctx context.Context, tx *sql.Tx, party holdfast.PartyID, bySettledOwner bool, now time.Time) (int64, error) {
	if bySettledOwner {
		return 0, nil
	}
	var had int
	err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_credential WHERE party = $1 AND role = $2`, party, int(Owner)).Scan(&had)
	if err != nil || had == 0 {
		return 0, err
	}
	return now.Add(settleAfter).UnixNano(), nil
}
