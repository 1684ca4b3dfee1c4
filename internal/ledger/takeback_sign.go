package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// freshFor is how long a last batch stands before it is signed again for its time
// alone, which says up to when nothing more was taken back.
const freshFor = time.Hour

// SignTakeBacks signs what was taken back since the last batch, for a generation of
// the keyring: the one in force, or the one about to be. With nothing new, the last
// batch is signed again if it says an earlier generation or is an hour old.
func (l *Ledger) SignTakeBacks(ctx context.Context, generation uint64) error {
	for {
		var more bool
		err := l.db.Write(ctx, func(tx *sql.Tx) (err error) {
			more, err = l.signBatch(ctx, tx, generation)
			return err
		})
		if err != nil {
			return fmt.Errorf("sign take-backs: %w", err)
		}
		if !more {
			return nil
		}
	}
}

// TakeBacksDue reports whether SignTakeBacks has something to sign. It only reads.
func (l *Ledger) TakeBacksDue(ctx context.Context, generation uint64) (due bool, err error) {
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		last, err := newestBatch(ctx, tx)
		if err != nil {
			return err
		}
		var all int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM take_back`).Scan(&all); err != nil {
			return err
		}
		due = last == nil || uint64(all) > last.Last || last.stale(generation)
		return nil
	})
	return due, err
}

func (b *TakeBackBatch) stale(generation uint64) bool {
	return b.Generation < generation || time.Since(b.At) > freshFor
}

// signBatch signs one batch: the last one with what has come since, or, if that is
// full or of another name, the next.
func (l *Ledger) signBatch(ctx context.Context, tx *sql.Tx, generation uint64) (more bool, err error) {
	last, err := newestBatch(ctx, tx)
	if err != nil {
		return false, err
	}
	b := TakeBackBatch{First: 1}
	if last != nil {
		b = *last
		if last.full() || len(last.lines) > 0 && last.Origin != l.Origin() {
			b = TakeBackBatch{First: last.Last + 1, Before: last.chain(), Generation: last.Generation}
		}
	}
	had := len(b.lines)
	fresh, more, err := readLines(ctx, tx, b.First+uint64(had), batchSize-had)
	if err != nil {
		return false, err
	}
	if last != nil && len(fresh) == 0 && !last.stale(generation) {
		return false, nil
	}
	size := b.size()
	for i, line := range fresh {
		if size >= batchBytes {
			fresh, more = fresh[:i], true
			break
		}
		size += len(line)
	}
	b.lines = append(b.lines, fresh...)
	b.Origin, b.Last = l.Origin(), b.First+uint64(len(b.lines))-1
	b.Generation, b.At = max(b.Generation, generation), time.Now().UTC().Truncate(time.Second)
	signed, err := note.Sign(&note.Note{Text: b.text()}, l.signer)
	if err != nil {
		return false, err
	}
	return more, putBatch(ctx, tx, &b, string(signed))
}

func putBatch(ctx context.Context, tx *sql.Tx, b *TakeBackBatch, signed string) error {
	sum := sha256.Sum256([]byte(signed))
	_, err := tx.ExecContext(ctx, `INSERT INTO take_back_batch (first, last, note, sum) VALUES ($1, $2, $3, $4)
		ON CONFLICT (first) DO UPDATE SET last = excluded.last, note = excluded.note, sum = excluded.sum
		WHERE excluded.last >= take_back_batch.last`, int64(b.First), int64(b.Last), signed, sum[:])
	return err
}

// newestBatch returns the last batch, nil if there is none.
func newestBatch(ctx context.Context, tx *sql.Tx) (*TakeBackBatch, error) {
	var signed string
	err := tx.QueryRowContext(ctx, `SELECT note FROM take_back_batch ORDER BY first DESC LIMIT 1`).Scan(&signed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	b, err := readBatch(unsigned(signed))
	return &b, err
}

// readLines reads the take-backs from a number on.
func readLines(ctx context.Context, tx *sql.Tx, from uint64, most int) (lines []string, more bool, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT number, line FROM take_back WHERE number >= $1 ORDER BY number LIMIT $2`, int64(from), most+1)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		var line string
		if err := rows.Scan(&n, &line); err != nil {
			return nil, false, err
		}
		if len(lines) == most {
			return lines, true, rows.Err()
		}
		if uint64(n) != from+uint64(len(lines)) {
			return nil, false, holdfast.Errorf(holdfast.Internal, "take-back %d is missing in the catalog", from+uint64(len(lines)))
		}
		lines = append(lines, line)
	}
	return lines, false, rows.Err()
}

// TakeBackFiles returns the names of the batches as files of a keyring's copy, with the SHA-256
// of each.
func (l *Ledger) TakeBackFiles(ctx context.Context) (map[string][sha256.Size]byte, error) {
	return TakeBackFiles(ctx, l.db)
}

// TakeBackFiles is [Ledger.TakeBackFiles] of a catalog whose keys nobody has opened.
func TakeBackFiles(ctx context.Context, db *catalog.DB) (map[string][sha256.Size]byte, error) {
	out := map[string][sha256.Size]byte{}
	err := db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT first, sum FROM take_back_batch`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var first int64
			var sum []byte
			if err := rows.Scan(&first, &sum); err != nil {
				return err
			}
			if len(sum) != sha256.Size {
				return holdfast.Errorf(holdfast.Internal, "the row of a batch of take-backs is damaged")
			}
			out[batchName(uint64(first))] = [sha256.Size]byte(sum)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list take-backs: %w", err)
	}
	return out, nil
}

// TakeBackFile returns one of TakeBackFiles.
func (l *Ledger) TakeBackFile(ctx context.Context, name string) (signed []byte, err error) {
	return TakeBackFile(ctx, l.db, name)
}

// TakeBackFile returns one of [TakeBackFiles].
func TakeBackFile(ctx context.Context, db *catalog.DB, name string) (signed []byte, err error) {
	var first int64
	if _, err := fmt.Sscanf(name, takeBackPrefix+"%d", &first); err != nil || batchName(uint64(first)) != name {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no such batch of take-backs")
	}
	err = db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT note FROM take_back_batch WHERE first = $1`, first).Scan(&signed)
	})
	if err != nil {
		return nil, fmt.Errorf("read take-backs: %w", err)
	}
	return signed, nil
}
