package series

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// segmentMagic opens every segment: a word and the version. Boxes follow back to
// back; only the catalog knows where each begins.
const segmentMagic = "hfseg\x00\x00\x01"

// States of a segment.
const (
	segmentAnnounced = 0
	segmentInUse     = 1
)

// output writes chunks into new segments. Nothing of it is visible before commit.
type output struct {
	s        *Series
	buf      []byte
	segments []outSegment // the last one is in buf until it is put
	open     bool
	rows     []chunkRow
	bytes    int64
}

type outSegment struct {
	id   int64
	blob holdfast.BlobID
	size int
	live int
}

// add places a chunk's box, its summary's and its arrivals' behind it, and remembers
// the row.
func (o *output) add(ctx context.Context, r chunkRow, box, summary, arrivals []byte) error {
	if o.open && len(o.buf)+len(box)+len(summary)+len(arrivals) > o.s.segmentSize {
		if err := o.put(ctx); err != nil {
			return err
		}
	}
	if !o.open {
		if err := o.begin(ctx); err != nil {
			return err
		}
	}
	seg := &o.segments[len(o.segments)-1]
	r.segment, r.blob, r.at, r.size, r.summary, r.arrivals = seg.id, seg.blob, int64(len(o.buf)), len(box), len(summary), len(arrivals)
	o.buf = append(append(append(o.buf, box...), summary...), arrivals...)
	seg.live++
	o.rows = append(o.rows, r)
	return nil
}

// begin announces a segment, so that its blob is known whatever happens next.
func (o *output) begin(ctx context.Context) error {
	seg := outSegment{blob: newBlobID()}
	err := o.s.db.Write(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `INSERT INTO segment (blob, state, bytes, live, live_bytes) VALUES ($1, $2, 0, 0, 0) RETURNING id`,
			seg.blob, segmentAnnounced).Scan(&seg.id)
	})
	if err != nil {
		return fmt.Errorf("announce segment: %w", err)
	}
	o.segments = append(o.segments, seg)
	o.buf = append(o.buf[:0], segmentMagic...)
	o.open = true
	return o.s.step("announced")
}

// put makes the segment in buf durable.
func (o *output) put(ctx context.Context) error {
	if !o.open {
		return nil
	}
	seg := &o.segments[len(o.segments)-1]
	seg.size = len(o.buf)
	if err := o.s.blobs.Put(ctx, seg.blob, o.buf); err != nil {
		return fmt.Errorf("write segment %s: %w", seg.blob, err)
	}
	o.bytes += int64(seg.size)
	o.open = false
	return o.s.step("put")
}

// commit names the rows in the caller's transaction. put comes before it.
func (o *output) commit(ctx context.Context, tx *sql.Tx) error {
	for _, seg := range o.segments {
		if _, err := tx.ExecContext(ctx, `UPDATE segment SET state = $1, bytes = $2, live = $3, live_bytes = $4 WHERE id = $5`,
			segmentInUse, seg.size, seg.live, seg.size-len(segmentMagic), seg.id); err != nil {
			return fmt.Errorf("name segment: %w", err)
		}
	}
	return insertChunks(ctx, tx, o.rows)
}

// reset makes room for the next batch, keeping the memory.
func (o *output) reset() {
	o.segments, o.rows, o.open, o.bytes = o.segments[:0], o.rows[:0], false, 0
}

func newBlobID() (id holdfast.BlobID) {
	rand.Read(id[:])
	return id
}

// packer makes chunks of one cell's readings, which come in the order of the cell:
// by time, then by arrival, without repeats.
type packer struct {
	out     *output
	cell    Cell
	cipher  *seal.Cipher
	roll    int64 // the chunks stand in the order of this roll
	part    int64
	pending bool
	arrival holdfast.Span

	columns  chunk.Columns
	at       []journal.Pos // where each of columns stood in the journal, 0: before all that are known
	encoder  chunk.Encoder
	content  int // bytes of text in columns
	plain    []byte
	box      []byte
	minutes  chunk.Minutes
	summary  []byte
	arrivals []byte
}

// begin turns to another cell.
func (p *packer) begin(cell Cell, c *seal.Cipher, roll int64, arrival holdfast.Span) {
	p.cell, p.cipher, p.roll, p.part, p.arrival = cell, c, roll, 0, arrival
	p.columns.Reset(0)
	p.at = p.at[:0]
	p.content = 0
}

// add takes in a reading that stood in the journal at pos.
func (p *packer) add(ctx context.Context, r holdfast.Reading, pos journal.Pos) error {
	size := r.Value.Size()
	if n := p.columns.Len(); n > 0 && (n == chunk.MaxRows || p.content+size > chunk.MaxBytes || r.Value.Type() != p.columns.Type || ripe(p.columns.Times, r.Time)) {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	if p.columns.Len() == 0 {
		p.columns.Reset(r.Value.Type())
	}
	switch p.columns.Type {
	case holdfast.Text, holdfast.Bytes:
		p.content += size
	}
	p.at = append(p.at, pos)
	return p.columns.Append(r)
}

// ripe reports whether a chunk of times that is almost full should end before a reading at
// t, which begins a minute: a summary says nothing of a minute that two chunks
// share.
func ripe(times []int64, t int64) bool {
	n := len(times)
	return n >= ripeRows && dense(n, times[0], t) && chunk.MinuteOf(t) > times[n-1]
}

const ripeRows = chunk.MaxRows * 7 / 8

// A summary pays where a minute holds summaryDense readings or more, and in a chunk
// that takes long to decode.
const (
	summaryDense = 16
	summaryRows  = 1024
)

// dense reports whether n readings from first to last are many for the time.
func dense(n int, first, last int64) bool {
	return (uint64(last)-uint64(first))/uint64(chunk.Minute) < uint64(n/summaryDense)
}

// summarize leaves the sealed summary of the columns in p.summary, nothing if they
// have none.
func (p *packer) summarize(r *chunkRow) (err error) {
	p.summary = p.summary[:0]
	n := p.columns.Len()
	if n < summaryRows || !dense(n, p.columns.Times[0], p.columns.Times[n-1]) || !p.minutes.Of(&p.columns) {
		return nil
	}
	p.plain = p.encoder.EncodeMinutes(p.plain[:0], &p.minutes)
	p.summary, err = p.cipher.Seal(p.summary, p.plain, r.summaryPlace())
	return err
}

// addColumns makes the chunks of a cell whose readings stand in c, all that there
// are and of one type of fixed size: the same chunks as add and flush make of
// them one by one.
func (p *packer) addColumns(ctx context.Context, c *chunk.Columns, at []journal.Pos) error {
	own, ownAt := p.columns, p.at
	defer func() { p.columns, p.at = own, ownAt }()
	for from := 0; from < c.Len(); {
		to := min(from+ripeRows, c.Len())
		for to < c.Len() && to < from+chunk.MaxRows && !ripe(c.Times[from:to], c.Times[to]) {
			to++
		}
		p.columns, p.at = c.Slice(from, to), at[from:to:to]
		if err := p.flush(ctx); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// flush ends the chunk under way; it comes after the last add of a cell.
func (p *packer) flush(ctx context.Context) error {
	n := p.columns.Len()
	if n == 0 {
		return nil
	}
	if p.part >= 1<<partBits {
		return holdfast.Errorf(holdfast.Internal, "stream %s has too many chunks in bucket %d", p.cell.Stream, p.cell.Bucket)
	}
	r := chunkRow{Cell: p.cell, rolled: p.roll<<partBits | p.part, pending: p.pending, key: p.cipher.ID()}
	p.part++
	rand.Read(r.id[:])
	var err error
	if p.plain, err = p.encoder.Encode(p.plain[:0], &p.columns); err != nil {
		return fmt.Errorf("encode chunk: %w", err)
	}
	if p.box, err = p.cipher.Seal(p.box[:0], p.plain, r.chunkPlace(uint32(n))); err != nil {
		return fmt.Errorf("seal chunk: %w", err)
	}
	e := extent{rows: uint32(n), times: holdfast.Span{From: p.columns.Times[0], To: p.columns.Times[n-1]}, arrival: p.arrival}
	var buf [extentSize]byte
	r.extent, r.opened = e, true
	if r.box, err = p.cipher.Seal(nil, appendExtent(buf[:0], e), r.extentPlace()); err == nil {
		err = p.summarize(&r)
	}
	if err == nil {
		err = p.sealArrivals(&r)
	}
	if err != nil {
		return fmt.Errorf("seal chunk: %w", err)
	}
	p.columns.Reset(p.columns.Type)
	p.at = p.at[:0]
	p.content = 0
	return p.out.add(ctx, r, p.box, p.summary, p.arrivals)
}

// repeats tells, of readings in order of time, which say again what was there
// before. What it remembers is bounded by the readings of one stream at one
// nanosecond.
type repeats struct {
	few  []holdfast.Reading
	many map[repeatKey]struct{}
}

type repeatKey struct {
	seq   uint64
	value holdfast.Value
}

const fewRepeats = 16

func (d *repeats) reset() { d.few, d.many = d.few[:0], nil }

// at reports whether readings at t are remembered.
func (d *repeats) at(t int64) bool { return len(d.few) > 0 && d.few[0].Time == t }

func (d *repeats) is(r holdfast.Reading) bool {
	if len(d.few) > 0 && d.few[0].Time != r.Time {
		d.reset()
	}
	if r.Mark&holdfast.Stamped != 0 {
		return false
	}
	if d.many == nil {
		for i := range d.few {
			if r.Repeats(d.few[i]) {
				return true
			}
		}
		if d.few = append(d.few, r); len(d.few) > fewRepeats {
			d.many = make(map[repeatKey]struct{}, 2*fewRepeats)
			for _, q := range d.few {
				d.many[repeatKey{q.Seq, q.Value}] = struct{}{}
			}
			d.few = d.few[:1]
		}
		return false
	}
	k := repeatKey{r.Seq, r.Value}
	_, there := d.many[k]
	d.many[k] = struct{}{}
	return there
}
