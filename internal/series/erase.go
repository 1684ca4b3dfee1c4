package series

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// Erased is what an erasure removed here.
type Erased struct {
	Chunks int
	Bytes  int64 // zeroed, and given back where the file system can
}

// Erase removes the chunks of a scope, zeroes them, and forgets what memory knows
// of them. It comes after the destruction of the keys and is hygiene, not
// destruction; it may be called again until it succeeds. A segment of which the disk
// fails keeps only those from success who have something dead in it.
//
// Of whole assignments everything goes. Of streams, or a span, an assignment goes
// on: what goes is what is under destroyed keys and, if the scope has no span,
// what arrived by scope.Before (all, if that is 0). The readings of a span's edges
// are Rewrite.Reseal's, which comes first.
//
// Scans under way fail with Unavailable if they come to what is gone.
func (s *Series) Erase(ctx context.Context, scope holdfast.Scope) (done Erased, err error) {
	for _, a := range scope.Assignments { // rolls and merges get their turn in between
		if err := s.lock(ctx); err != nil {
			return done, err
		}
		err := s.eraseNext(ctx, a, scope, &done)
		s.unlock()
		if err != nil {
			return done, err
		}
	}
	if err := s.lock(ctx); err != nil {
		return done, err
	}
	defer s.unlock()
	err = s.reap(ctx)
	if err == nil {
		err = s.gone(ctx, scope.Assignments)
	}
	if err != nil {
		return done, fmt.Errorf("erase chunks: %w", err)
	}
	return done, nil
}

// eraseBatch is how many rows one transaction deletes.
const eraseBatch = 500

// Erase is Series.Erase for the holder of rw.
func (rw *Rewrite) Erase(ctx context.Context, scope holdfast.Scope) (Erased, error) {
	return rw.s.erase(ctx, scope)
}

func (s *Series) erase(ctx context.Context, scope holdfast.Scope) (done Erased, err error) {
	for _, a := range scope.Assignments {
		if err := s.eraseNext(ctx, a, scope, &done); err != nil {
			return done, err
		}
	}
	err = s.reap(ctx)
	if err == nil {
		err = s.gone(ctx, scope.Assignments)
	}
	if err != nil {
		return done, fmt.Errorf("erase chunks: %w", err)
	}
	return done, nil
}

// eraseNext adds what is removed of a to done.
func (s *Series) eraseNext(ctx context.Context, a holdfast.AssignmentID, scope holdfast.Scope, done *Erased) error {
	e, err := s.eraseOf(ctx, a, scope)
	done.Chunks += e.Chunks
	done.Bytes += e.Bytes
	if err != nil {
		return fmt.Errorf("erase chunks of assignment %s: %w", a, err)
	}
	return nil
}

func (s *Series) eraseOf(ctx context.Context, a holdfast.AssignmentID, scope holdfast.Scope) (done Erased, err error) {
	var rows []chunkRow
	err = s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		rows, err = scopeRows(ctx, tx, a, scope.Streams)
		return err
	})
	if err != nil {
		return done, err
	}
	gone := rows
	if scope.Month != 0 {
		gone, err = s.deadOf(ctx, rows, scope.Month)
		if err != nil {
			return done, err
		}
	} else if whole := len(scope.Streams) == 0 && !scope.Partial(); whole {
		s.tail.forget(a)
		s.live.forget(a)
		s.overtake(func(n streamName) bool { return n.assignment == a })
	} else if gone, err = s.dying(ctx, rows, scope); err != nil {
		return done, err
	}
	for some := range slices.Chunk(gone, eraseBatch) { // others write in between
		if err = s.db.Write(ctx, func(tx *sql.Tx) error { return deleteChunks(ctx, tx, some) }); err != nil {
			break
		}
	}
	s.forget(gone)
	if err != nil {
		return done, err
	}
	s.readers.release(gone)
	done.Chunks = len(gone)
	for i := range gone {
		done.Bytes += gone[i].bytes()
	}
	return done, s.step("erased")
}

// dying picks the rows that an erasure in part removes.
func (s *Series) dying(ctx context.Context, rows []chunkRow, scope holdfast.Scope) (gone []chunkRow, err error) {
	for i := range rows {
		r := &rows[i]
		c, err := s.cellCipher(ctx, r.Cell)
		switch {
		case err != nil:
			return nil, err
		case r.key != keyOf(c):
			if !r.pending { // what is pending is a rewrite's
				gone = append(gone, *r)
			}
			continue
		case scope.Partial():
			continue
		}
		if scope.Before != 0 {
			e, err := r.openExtent(c)
			if err != nil {
				return nil, err
			}
			if e.arrival.To > scope.Before {
				continue
			}
		}
		gone = append(gone, *r)
	}
	return gone, nil
}

// deadOf picks of a month's rows those whose key was destroyed.
func (s *Series) deadOf(ctx context.Context, rows []chunkRow, month int) (gone []chunkRow, err error) {
	for cell := range cells(rows) {
		if cell[0].Bucket.Month() != month {
			continue
		}
		c, err := s.cellCipher(ctx, cell[0].Cell)
		if err != nil {
			return nil, err
		}
		for i := range cell {
			if cell[i].key != keyOf(c) && !cell[i].pending {
				gone = append(gone, cell[i])
			}
		}
	}
	return gone, nil
}

// forget lets go of what memory has of the streams of rows that were erased or
// sealed again. Scans of them that are under way fail.
func (s *Series) forget(rows []chunkRow) {
	if len(rows) == 0 {
		return
	}
	s.positions.forget(rows)
	gone := map[streamName]bool{}
	for i := range rows {
		gone[rows[i].stream()] = true
	}
	s.overtake(func(n streamName) bool { return gone[n] })
}

func (s *Series) overtake(which func(streamName) bool) {
	s.cache.forget(which)
	s.readers.overtake(which)
}

// Forget overwrites what memory keeps of the decoded readings of a scope. Erase does
// so too; this comes when an erasure is asked for, while its keys still live.
func (s *Series) Forget(_ context.Context, scope holdfast.Scope) error {
	for _, a := range scope.Assignments {
		s.live.forget(a)
	}
	s.cache.forget(func(n streamName) bool {
		return slices.Contains(scope.Assignments, n.assignment) && (len(scope.Streams) == 0 || slices.Contains(scope.Streams, n.stream))
	})
	return nil
}
