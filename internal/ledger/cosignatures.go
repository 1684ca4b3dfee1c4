package ledger

import (
	"context"
	"database/sql"

	"github.com/holdfast-iot/holdfast/internal/checkpoint"
)

// withCosignatures returns a checkpoint's note with the lines of witnesses.
func withCosignatures(ctx context.Context, tx *sql.Tx, c checkpoint.Checkpoint) ([]byte, error) {
	out := append([]byte(nil), c.Note...)
	rows, err := tx.QueryContext(ctx, `SELECT line FROM ledger_cosignature WHERE size = $1 ORDER BY witness`, int64(c.Size))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		out = append(out, line...)
	}
	return out, rows.Err()
}
