package grant

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast"
)

// Grantors returns the parties that have made a grant to a recipient that was not
// ended: those whose data may be his to read. It opens nothing, so that it takes as
// long whatever the grants say.
func (r *Register) Grantors(ctx context.Context, recipient holdfast.PartyID) ([]holdfast.PartyID, error) {
	var all []holdfast.PartyID
	err := r.db.Read(ctx, func(tx *sql.Tx) error {
		all = all[:0]
		q, err := tx.QueryContext(ctx, `SELECT DISTINCT grantor FROM data_grant WHERE recipient = $1 AND state = 'active'`, recipient)
		if err != nil {
			return err
		}
		defer q.Close()
		for q.Next() {
			var p holdfast.PartyID
			if err := q.Scan(&p); err != nil {
				return err
			}
			all = append(all, p)
		}
		return q.Err()
	})
	return all, err
}
