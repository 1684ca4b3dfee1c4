package series

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"iter"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// chunkRow is a row of the table chunk.
type chunkRow struct {
	Cell
	rolled   int64
	pending  bool
	id       [16]byte
	key      seal.KeyID
	segment  int64
	blob     holdfast.BlobID // the segment's, not in the row
	at       int64
	size     int
	summary  int    // size of the summary's box behind the chunk's, 0 if there is none
	arrivals int    // size of the arrivals' box behind these, 0 if there is none
	box      []byte // the sealed extent
	extent   extent // what is in box, if opened
	opened   bool
}

// partBits of rolled number the chunks that one roll, or the merge of it, made of
// a cell.
const partBits = 20

// bytes is what the chunk, its summary and its arrivals take in the segment.
func (r *chunkRow) bytes() int64 { return int64(r.size) + int64(r.summary) + int64(r.arrivals) }

func (r *chunkRow) roll() int64 { return r.rolled >> partBits }

const chunkColumns = `c.assignment, c.stream, c.bucket, c.rolled, c.pending, c.id, c.key_id, c.segment, s.blob, c.at, c.size, c.summary, c.arrivals, c.extent_sealed`

// compareRows is the order of the table.
func compareRows(a, b chunkRow) int {
	return cmp.Or(bytes.Compare(a.Assignment[:], b.Assignment[:]), bytes.Compare(a.Stream[:], b.Stream[:]),
		cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.rolled, b.rolled), cmp.Compare(asInt(a.pending), asInt(b.pending)))
}

// chunkRows reads the rows that a condition on c selects, in the order of the
// table: by cell, within it by arrival.
func chunkRows(ctx context.Context, tx *sql.Tx, where string, args ...any) iter.Seq2[chunkRow, error] {
	return func(yield func(chunkRow, error) bool) {
		rows, err := tx.QueryContext(ctx, `SELECT `+chunkColumns+` FROM chunk c JOIN segment s ON s.id = c.segment WHERE `+where+
			` ORDER BY c.assignment, c.stream, c.bucket, c.rolled, c.pending`, args...)
		if err != nil {
			yield(chunkRow{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var r chunkRow
			var id []byte
			if err := rows.Scan(&r.Assignment, &r.Stream, &r.Bucket, &r.rolled, &r.pending, &id, &r.key, &r.segment, &r.blob, &r.at, &r.size, &r.summary, &r.arrivals, &r.box); err != nil {
				yield(chunkRow{}, err)
				return
			}
			copy(r.id[:], id)
			if !yield(r, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(chunkRow{}, err)
		}
	}
}

func collect[T any](seq iter.Seq2[T, error]) (out []T, err error) {
	for v, err := range seq {
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

const (
	ofStream = `c.assignment = $1 AND c.stream = $2`
	ofCell   = ofStream + ` AND c.bucket = $3`
)

func (s *Series) cellRows(ctx context.Context, c Cell) (rows []chunkRow, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err = collect(chunkRows(ctx, tx, ofCell, c.Assignment, c.Stream, c.Bucket))
		return err
	})
	return rows, err
}

// rolled returns the position up to which the journal is in chunks and the number
// of the last roll.
func rolled(ctx context.Context, tx *sql.Tx) (pos journal.Pos, roll int64, err error) {
	var p int64
	err = tx.QueryRowContext(ctx, `SELECT position, roll FROM rolled`).Scan(&p, &roll)
	if err != nil {
		return 0, 0, fmt.Errorf("read rolled position: %w", err)
	}
	return journal.Pos(p), roll, nil
}

func setRolled(ctx context.Context, tx *sql.Tx, pos journal.Pos, roll int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE rolled SET position = $1, roll = $2`, int64(pos), roll)
	return err
}

// insertChunks adds rows; their segments count them with countIn.
func insertChunks(ctx context.Context, tx *sql.Tx, rows []chunkRow) error {
	stmt, err := tx.PrepareContext(ctx, `INSERT INTO chunk
		(assignment, stream, bucket, rolled, pending, id, key_id, segment, at, size, summary, arrivals, extent_sealed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`)
	if err != nil {
		return err
	}
	defer stmt.Close()
	for i := range rows {
		r := &rows[i]
		if _, err := stmt.ExecContext(ctx, r.Assignment, r.Stream, r.Bucket, r.rolled, asInt(r.pending), r.id[:], r.key,
			r.segment, r.at, r.size, r.summary, r.arrivals, r.box); err != nil {
			return fmt.Errorf("insert chunk: %w", err)
		}
	}
	return nil
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// deleteChunks removes rows and leaves their ranges to be zeroed; a segment
// without rows is left to be deleted whole.
func deleteChunks(ctx context.Context, tx *sql.Tx, rows []chunkRow) error {
	stmt, err := tx.PrepareContext(ctx, `DELETE FROM chunk
		WHERE assignment = $1 AND stream = $2 AND bucket = $3 AND rolled = $4 AND pending = $5`)
	if err != nil {
		return err
	}
	defer stmt.Close()
	dead := map[int64]*deadSegment{}
	for i := range rows {
		r := &rows[i]
		res, err := stmt.ExecContext(ctx, r.Assignment, r.Stream, r.Bucket, r.rolled, asInt(r.pending))
		if err != nil {
			return fmt.Errorf("delete chunk: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			continue // gone already
		}
		d := dead[r.segment]
		if d == nil {
			d = &deadSegment{owners: map[holdfast.AssignmentID]bool{}}
			dead[r.segment] = d
		}
		d.add(r.at, r.bytes())
		d.owners[r.Assignment] = true
	}
	for id, d := range dead {
		if err := d.record(ctx, tx, id); err != nil {
			return fmt.Errorf("record dead ranges: %w", err)
		}
	}
	return nil
}

// deadSegment is what one transaction takes from one segment.
type deadSegment struct {
	chunks int
	bytes  int64
	ranges []deadRange
	owners map[holdfast.AssignmentID]bool
}

type deadRange struct{ at, size int64 }

// add joins ranges that touch: an owner's chunks lie together.
func (d *deadSegment) add(at, size int64) {
	d.chunks++
	d.bytes += size
	if n := len(d.ranges); n > 0 && d.ranges[n-1].at+d.ranges[n-1].size == at {
		d.ranges[n-1].size += size
		return
	}
	d.ranges = append(d.ranges, deadRange{at, size})
}

func (d *deadSegment) record(ctx context.Context, tx *sql.Tx, id int64) error {
	if _, err := tx.ExecContext(ctx, `UPDATE segment SET live = live - $1, live_bytes = live_bytes - $2 WHERE id = $3`, d.chunks, d.bytes, id); err != nil {
		return err
	}
	for a := range d.owners {
		if _, err := tx.ExecContext(ctx, `INSERT INTO dead_owner (segment, assignment) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, a[:]); err != nil {
			return err
		}
	}
	var live int64
	if err := tx.QueryRowContext(ctx, `SELECT live FROM segment WHERE id = $1`, id).Scan(&live); err != nil {
		return err
	}
	if live == 0 {
		_, err := tx.ExecContext(ctx, `DELETE FROM dead_range WHERE segment = $1`, id)
		return err
	}
	for _, r := range d.ranges {
		if _, err := tx.ExecContext(ctx, `INSERT INTO dead_range (segment, at, size) VALUES ($1, $2, $3)`, id, r.at, r.size); err != nil {
			return err
		}
	}
	return nil
}
