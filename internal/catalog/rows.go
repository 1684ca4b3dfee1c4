package catalog

import (
	"context"
	"database/sql"
)

// Rows returns what a query yields, in one snapshot, each row as scan makes it. What
// the rows seal is opened afterwards: no key is looked up inside a transaction.
func Rows[T any](ctx context.Context, db *DB, scan func(row *sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	var all []T
	err := db.Read(ctx, func(tx *sql.Tx) error {
		q, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer q.Close()
		for q.Next() {
			one, err := scan(q)
			if err != nil {
				return err
			}
			all = append(all, one)
		}
		return q.Err()
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}
