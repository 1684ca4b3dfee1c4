package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"

	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// TakeBacksDiffer compares the batches of take-backs beside a copy of the keyring with
// those that the hub has signed, byte by byte: what is the same has its signature and
// its place in the chain. It names the files that the copy lacks and those that it has
// otherwise, be they altered, behind, or none of this hub's. It needs no key.
func TakeBacksDiffer(ctx context.Context, db *catalog.DB, files map[string][]byte) (missing, different []string, err error) {
	known := map[string]bool{}
	err = db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT first, note FROM take_back_batch ORDER BY first`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var first int64
			var signed []byte
			if err := rows.Scan(&first, &signed); err != nil {
				return err
			}
			name := batchName(uint64(first))
			known[name] = true
			if have, ok := files[name]; !ok {
				missing = append(missing, name)
			} else if !bytes.Equal(have, signed) {
				different = append(different, name)
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, nil, fmt.Errorf("compare take-backs: %w", err)
	}
	for name := range files {
		if !known[name] {
			different = append(different, name)
		}
	}
	return missing, different, nil
}
