package series

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// kept is what is known of the order in which readings arrived: from which position
// on, and where rolls ended since.
type kept struct {
	mu    sync.RWMutex
	epoch uint64
	roll  int64       // chunks of this roll and those before have no arrivals that count
	from  journal.Pos // arrivals are known from here on
	ends  map[int64]journal.Pos
}

// Kept returns the epoch of positions, which a restored hub begins anew, and the
// position from which on arrivals are known.
func (s *Series) Kept() (epoch uint64, from journal.Pos) {
	s.kept.mu.RLock()
	defer s.kept.mu.RUnlock()
	return s.kept.epoch, s.kept.from
}

// counts reports whether a chunk has arrivals that count.
func (k *kept) counts(r *chunkRow) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return r.arrivals > 0 && r.roll() > k.roll
}

// ordered reports whether a chunk may hold readings that arrived at from or later.
func (s *Series) ordered(r *chunkRow, from journal.Pos) bool {
	k := &s.kept
	k.mu.RLock()
	defer k.mu.RUnlock()
	if r.arrivals == 0 || r.roll() <= k.roll {
		return false
	}
	end, known := k.ends[r.roll()]
	return !known || end > from
}

func (k *kept) rolled(number int64, end journal.Pos) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends[number] = end
}

// loadKept reads what is kept.
func (s *Series) loadKept(ctx context.Context) error {
	k := &s.kept
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends = map[int64]journal.Pos{}
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		var epoch, position int64
		if err := tx.QueryRowContext(ctx, `SELECT epoch, roll, position FROM arrival`).Scan(&epoch, &k.roll, &position); err != nil {
			return err
		}
		k.epoch, k.from = uint64(epoch), journal.Pos(position)
		rows, err := tx.QueryContext(ctx, `SELECT roll, position FROM arrival_roll`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var roll, end int64
			if err := rows.Scan(&roll, &end); err != nil {
				return err
			}
			k.ends[roll] = journal.Pos(end)
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("read from where arrivals are known: %w", err)
	}
	return nil
}

func recordRoll(ctx context.Context, tx *sql.Tx, number int64, end journal.Pos, at time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO arrival_roll (roll, position, at) VALUES ($1, $2, $3)`, number, int64(end), at.UnixNano())
	return err
}

// beginEpoch is for another journal: positions of the one before mean nothing any
// more.
func beginEpoch(ctx context.Context, tx *sql.Tx, roll int64, start journal.Pos) error {
	var b [8]byte
	rand.Read(b[:])
	if _, err := tx.ExecContext(ctx, `UPDATE arrival SET epoch = $1, roll = $2, position = $3`, int64(binary.BigEndian.Uint64(b[:])), roll, int64(start)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM arrival_roll`)
	return err
}

// stripBatch is how many chunks lose their arrivals in one transaction.
const stripBatch = 5000

// dropArrivals lets go of the arrivals of what was rolled before a time. Those of a
// merged chunk go with those of its newest readings. The caller holds the lock.
func (s *Series) dropArrivals(ctx context.Context, before time.Time) error {
	var roll, end int64
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT coalesce(max(roll), 0), coalesce(max(position), 0) FROM arrival_roll WHERE at < $1`, before.UnixNano()).Scan(&roll, &end)
	})
	if err != nil {
		return fmt.Errorf("find old arrivals: %w", err)
	}
	if roll > 0 {
		// Memory first: who finds no arrivals in a chunk must know why.
		s.kept.mu.Lock()
		s.kept.roll, s.kept.from = max(s.kept.roll, roll), max(s.kept.from, journal.Pos(end))
		s.kept.mu.Unlock()
		err = s.db.Write(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, `UPDATE arrival SET roll = $1, position = $2`, roll, end); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, `DELETE FROM arrival_roll WHERE roll <= $1`, roll)
			return err
		})
		if err != nil {
			return fmt.Errorf("drop old arrivals: %w", err)
		}
	}
	for {
		n, err := s.stripSome(ctx)
		if err != nil {
			return fmt.Errorf("drop arrivals of chunks: %w", err)
		}
		if n < stripBatch {
			return s.step("stripped")
		}
	}
}

// stripSome takes arrivals that don't count from some chunks.
func (s *Series) stripSome(ctx context.Context) (int, error) {
	s.kept.mu.RLock()
	before := (s.kept.roll + 1) << partBits
	s.kept.mu.RUnlock()
	var old []chunkRow
	err := s.db.Read(ctx, func(tx *sql.Tx) error {
		for r, err := range chunkRows(ctx, tx, `c.arrivals > 0 AND c.rolled < $1`, before) {
			if err != nil {
				return err
			}
			if old = append(old, r); len(old) == stripBatch {
				return nil
			}
		}
		return nil
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error { return stripChunks(ctx, tx, old) })
	s.positions.forget(old)
	s.readers.retire(old)
	return len(old), err
}

func stripChunks(ctx context.Context, tx *sql.Tx, old []chunkRow) error {
	dead := map[int64]*deadSegment{}
	for i := range old {
		r := &old[i]
		_, err := tx.ExecContext(ctx, `UPDATE chunk SET arrivals = 0
			WHERE assignment = $1 AND stream = $2 AND bucket = $3 AND rolled = $4 AND pending = $5`, r.Assignment, r.Stream, r.Bucket, r.rolled, asInt(r.pending))
		if err != nil {
			return err
		}
		d := dead[r.segment]
		if d == nil {
			d = &deadSegment{}
			dead[r.segment] = d
		}
		d.add(r.at+int64(r.size)+int64(r.summary), int64(r.arrivals))
		d.chunks--
	}
	for id, d := range dead {
		if err := d.record(ctx, tx, id); err != nil {
			return err
		}
	}
	return nil
}

// sealArrivals leaves the sealed arrivals of the columns in p.arrivals, nothing if none
// is known.
func (p *packer) sealArrivals(r *chunkRow) (err error) {
	p.arrivals = p.arrivals[:0]
	if len(p.at) == 0 || slices.Max(p.at) == 0 {
		return nil
	}
	p.plain = appendArrivals(p.plain[:0], p.at)
	p.arrivals, err = p.cipher.Seal(p.arrivals, p.plain, r.arrivalPlace(r.extent.rows))
	return err
}

func (r *chunkRow) arrivalPlace(rows uint32) seal.Place {
	return seal.ArrivalPlace(r.Assignment, r.Stream, r.Bucket, r.id, rows)
}

// arrivals opens where a chunk's readings stood in the journal; nil if none of it is
// known.
func (u *unsealer) arrivals(ctx context.Context, o openChunk) ([]journal.Pos, error) {
	r := o.row
	if !u.s.kept.counts(r) {
		return nil, nil
	}
	if err := u.open(ctx, o, r.at+int64(r.size)+int64(r.summary), r.arrivals, r.arrivalPlace(r.extent.rows)); err != nil {
		return nil, err
	}
	at, err := parseArrivals(u.plain, int(r.extent.rows))
	if err != nil {
		return nil, r.damaged(err)
	}
	return at, nil
}

// arrivalsVersion is the first byte of the arrivals of a chunk.
const arrivalsVersion = 1

// appendArrivals writes positions: for each run of one position the way from the
// one before, in steps of 2^shift, and how long it is where that is not 1.
func appendArrivals(dst []byte, at []journal.Pos) []byte {
	var all journal.Pos
	for _, p := range at {
		all |= p
	}
	shift := 0
	for shift < 32 && all&(1<<shift) == 0 {
		shift++
	}
	dst = append(dst, arrivalsVersion, byte(shift))
	last := int64(0)
	for i := 0; i < len(at); {
		n := 1
		for i+n < len(at) && at[i+n] == at[i] {
			n++
		}
		p := int64(at[i] >> shift)
		way := uint64((p-last)<<1) ^ uint64((p-last)>>63)
		last = p
		if n == 1 {
			dst = binary.AppendUvarint(dst, way<<1)
		} else {
			dst = binary.AppendUvarint(dst, way<<1|1)
			dst = binary.AppendUvarint(dst, uint64(n))
		}
		i += n
	}
	return dst
}

var errArrivals = holdfast.Errorf(holdfast.Invalid, "the arrivals of a chunk are damaged or of a newer version")

// parseArrivals reads the positions of so many rows.
func parseArrivals(b []byte, rows int) ([]journal.Pos, error) {
	if len(b) < 2 || b[0] != arrivalsVersion || b[1] > 32 {
		return nil, errArrivals
	}
	shift := b[1]
	b = b[2:]
	at := make([]journal.Pos, 0, rows)
	last := int64(0)
	for len(b) > 0 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errArrivals
		}
		b = b[n:]
		run := uint64(1)
		if v&1 == 1 {
			if run, n = binary.Uvarint(b); n <= 0 {
				return nil, errArrivals
			}
			b = b[n:]
		}
		way := v >> 1
		last += int64(way>>1) ^ -int64(way&1)
		if run > uint64(rows-len(at)) {
			return nil, errArrivals
		}
		for range run {
			at = append(at, journal.Pos(last)<<shift)
		}
	}
	if len(at) != rows {
		return nil, errArrivals
	}
	return at, nil
}
