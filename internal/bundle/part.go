package bundle

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding"

	"github.com/holdfast-iot/holdfast"
)

// Source is what the rows of a stream share.
type Source struct {
	Device     holdfast.DeviceID
	DeviceName string
	StreamID   holdfast.StreamID
	Stream     string
	Unit       string
	Type       holdfast.ValueType
}

// The columns of a Parquet file of readings, in order. Which of the last eight
// holds the value follows from the type; the others are null. seq is null where
// the device gives none, altitude where it is not known (the standard NaN).
const (
	colDevice = iota
	colDeviceName
	colStreamID
	colStream
	colUnit
	colType
	colTime
	colSeq
	colMarks
	colNumber
	colInteger
	colBoolean
	colText
	colBytes
	colLatitude
	colLongitude
	colAltitude
	columns
)

// schema is the layout with an encoding for each of the columns that hold
// numbers.
func schema(split [columns]bool) *parquet.Schema {
	words := func(n parquet.Node) parquet.Node { return parquet.Encoded(n, &parquet.RLEDictionary) }
	floats := func(col int) parquet.Node {
		var e encoding.Encoding = &parquet.RLEDictionary
		if split[col] {
			e = &parquet.ByteStreamSplit
		}
		return parquet.Optional(parquet.Encoded(parquet.Leaf(parquet.DoubleType), e))
	}
	integers := parquet.Encoded(parquet.Int(64), &parquet.DeltaBinaryPacked)
	if !split[colInteger] {
		integers = words(parquet.Int(64))
	}
	nodes := [columns]parquet.Node{
		colDevice:     words(parquet.String()),
		colDeviceName: words(parquet.String()),
		colStreamID:   words(parquet.String()),
		colStream:     words(parquet.String()),
		colUnit:       parquet.Optional(words(parquet.String())),
		colType:       words(parquet.String()),
		colTime:       parquet.Encoded(parquet.Timestamp(parquet.Nanosecond), &parquet.DeltaBinaryPacked),
		colSeq:        parquet.Optional(parquet.Encoded(parquet.Uint(64), &parquet.DeltaBinaryPacked)),
		colMarks:      words(parquet.Uint(8)),
		colNumber:     floats(colNumber),
		colInteger:    parquet.Optional(integers),
		colBoolean:    parquet.Optional(parquet.Leaf(parquet.BooleanType)),
		colText:       parquet.Optional(parquet.Encoded(parquet.String(), &parquet.DeltaLengthByteArray)),
		colBytes:      parquet.Optional(parquet.Encoded(parquet.Leaf(parquet.ByteArrayType), &parquet.DeltaLengthByteArray)),
		colLatitude:   floats(colLatitude),
		colLongitude:  floats(colLongitude),
		colAltitude:   floats(colAltitude),
	}
	group := parquet.Group{}
	for i, f := range fields() {
		group[f.Name] = nodes[i]
	}
	return parquet.NewSchema("observations", table{group})
}

// table is a group whose columns have an order: a parquet.Group sorts by name.
type table struct{ parquet.Group }

func (t table) Fields() []parquet.Field {
	at := map[string]int{}
	for i, f := range fields() {
		at[f.Name] = i
	}
	all := t.Group.Fields()
	slices.SortFunc(all, func(a, b parquet.Field) int { return cmp.Compare(at[a.Name()], at[b.Name()]) })
	return all
}

// Limits of a part. A group of rows is compressed at its end, so a part is at most
// partBytes and one group more.
const (
	batchRows  = 4096
	groupRows  = 1 << 19
	groupBytes = 12 << 20 // of content before compression
	partBytes  = 48 << 20
	partRows   = 15 << 20
	maxRows    = partRows + groupRows + batchRows
	// MaxPart is what a part stays under.
	MaxPart = 64 << 20
)

// Part writes one Parquet file of readings. What the columns of numbers are
// encoded as is chosen by the first 4,096 rows: where values come again and again
// a dictionary, else their bytes split into planes, both under zstd.
type Part struct {
	out     io.Writer
	w       *parquet.GenericWriter[any]
	to      []*parquet.ColumnWriter
	source  *Source
	batch   [columns][]parquet.Value
	shared  [columns]parquet.Value   // of all rows of the batch, where the batch has none
	repeats [columns][]parquet.Value // of shared
	n       int                      // rows in the batch
	full    bool
	rows    int64 // of the part
	grouped int64 // of the group
	content int64 // bytes of the group
	waiting []waiting
}

// waiting is a batch from before the encodings were chosen.
type waiting struct {
	cols [columns][]parquet.Value
	n    int
}

// NewPart begins a part that is written to w.
func NewPart(w io.Writer) *Part { return &Part{out: w} }

// Rows returns how many rows the part has.
func (p *Part) Rows() int64 { return p.rows }

// Full reports that the next row belongs to another part.
func (p *Part) Full() bool { return p.full }

// Append adds a row. Rows of one source should follow one another, and s must
// stay the same while they do.
func (p *Part) Append(s *Source, r holdfast.Reading) error {
	if r.Value.Type() != s.Type {
		return invalid("a reading of stream %s is not of its type", s.StreamID)
	}
	if s != p.source || p.n == batchRows {
		if err := p.flushBatch(); err != nil {
			return err
		}
		p.begin(s)
	}
	add := func(col int, v parquet.Value) { p.batch[col] = append(p.batch[col], v) }
	add(colTime, parquet.Int64Value(r.Time).Level(0, 0, colTime))
	if r.Seq != 0 {
		add(colSeq, parquet.Int64Value(int64(r.Seq)).Level(0, 1, colSeq))
	} else {
		add(colSeq, parquet.NullValue().Level(0, 0, colSeq))
	}
	add(colMarks, parquet.Int32Value(int32(r.Mark)).Level(0, 0, colMarks))
	v := r.Value
	switch v.Type() {
	case holdfast.Number:
		add(colNumber, parquet.DoubleValue(v.Number()).Level(0, 1, colNumber))
	case holdfast.Integer:
		add(colInteger, parquet.Int64Value(v.Integer()).Level(0, 1, colInteger))
	case holdfast.Boolean:
		add(colBoolean, parquet.BooleanValue(v.Boolean()).Level(0, 1, colBoolean))
	case holdfast.Text:
		add(colText, parquet.ByteArrayValue([]byte(v.Text())).Level(0, 1, colText))
	case holdfast.Bytes:
		add(colBytes, parquet.ByteArrayValue(v.Bytes()).Level(0, 1, colBytes))
	case holdfast.Location:
		at := v.Position()
		add(colLatitude, parquet.DoubleValue(at.Latitude).Level(0, 1, colLatitude))
		add(colLongitude, parquet.DoubleValue(at.Longitude).Level(0, 1, colLongitude))
		if math.Float64bits(at.Altitude) == math.Float64bits(math.NaN()) {
			add(colAltitude, parquet.NullValue().Level(0, 0, colAltitude))
		} else {
			add(colAltitude, parquet.DoubleValue(at.Altitude).Level(0, 1, colAltitude))
		}
	}
	p.n++
	p.rows++
	p.content += int64(16 + v.Size())
	if p.content >= groupBytes {
		return p.flushGroup()
	}
	return nil
}

// begin starts a batch of rows of s; what they share is made once.
func (p *Part) begin(s *Source) {
	if s == p.source {
		return
	}
	p.source = s
	words := [...]string{
		colDevice: s.Device.String(), colDeviceName: s.DeviceName, colStreamID: s.StreamID.String(), colStream: s.Stream,
		colUnit: s.Unit, colType: s.Type.String(),
	}
	for col, word := range words {
		v := parquet.ByteArrayValue([]byte(word)).Level(0, 0, col)
		switch {
		case col == colUnit && word == "":
			v = parquet.NullValue().Level(0, 0, col)
		case col == colUnit:
			v = v.Level(0, 1, col)
		}
		p.shared[col], p.repeats[col] = v, p.repeats[col][:0]
	}
	for col := colNumber; col < columns; col++ {
		p.shared[col] = parquet.NullValue().Level(0, 0, col)
	}
}

// column returns the batch's values of a column.
func (p *Part) column(col int) []parquet.Value {
	if len(p.batch[col]) > 0 {
		return p.batch[col]
	}
	if p.w == nil { // it will wait, while repeats goes on to the next source
		return slices.Repeat(p.shared[col:col+1], p.n)
	}
	for len(p.repeats[col]) < p.n {
		p.repeats[col] = append(p.repeats[col], p.shared[col])
	}
	return p.repeats[col][:p.n]
}

// flushBatch gives the rows of the batch to the columns.
func (p *Part) flushBatch() error {
	if p.n == 0 {
		return nil
	}
	var cols [columns][]parquet.Value
	for col := range cols {
		cols[col] = p.column(col)
	}
	n := p.n
	p.n = 0
	if p.w == nil {
		p.batch = [columns][]parquet.Value{}
		p.waiting = append(p.waiting, waiting{cols, n})
		if p.rows < batchRows {
			return nil
		}
		return p.open()
	}
	err := p.write(cols, n)
	for col := range p.batch {
		p.batch[col] = p.batch[col][:0]
	}
	return err
}

func (p *Part) write(cols [columns][]parquet.Value, n int) error {
	for col, values := range cols {
		if _, err := p.to[col].WriteRowValues(values); err != nil {
			return fmt.Errorf("write column %s: %w", fields()[col].Name, err)
		}
	}
	if p.grouped += int64(n); p.grouped >= groupRows {
		return p.endGroup()
	}
	return nil
}

// open chooses the encodings by the rows that wait, and writes them.
func (p *Part) open() error {
	var split [columns]bool
	for _, col := range []int{colNumber, colInteger, colLatitude, colLongitude, colAltitude} {
		seen, values := map[uint64]struct{}{}, 0
		for _, b := range p.waiting {
			for _, v := range b.cols[col] {
				if !v.IsNull() {
					seen[v.Uint64()] = struct{}{}
					values++
				}
			}
		}
		split[col] = len(seen)*4 > values
	}
	p.w = parquet.NewGenericWriter[any](p.out, schema(split),
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}),
		parquet.CreatedBy("holdfast", "bundle", "1"),
		parquet.SkipPageBounds("device_name"), parquet.SkipPageBounds("stream_id"), // what readers filter by keeps its bounds
		parquet.SkipPageBounds("unit"), parquet.SkipPageBounds("type"), parquet.SkipPageBounds("marks"),
		parquet.SkipPageStatistics("text"), parquet.SkipPageStatistics("bytes"), parquet.SkipPageBounds("text"), parquet.SkipPageBounds("bytes"), // they would stand in the page's head, whole
		parquet.DictionaryMaxBytes(1<<20),
		parquet.PageBufferSize(1<<20),
	)
	p.to = p.w.ColumnWriters()
	for _, b := range p.waiting {
		if err := p.write(b.cols, b.n); err != nil {
			return err
		}
	}
	p.waiting = nil
	return nil
}

func (p *Part) flushGroup() error {
	if err := p.flushBatch(); err != nil {
		return err
	}
	if p.w == nil {
		if err := p.open(); err != nil {
			return err
		}
	}
	return p.endGroup()
}

func (p *Part) endGroup() error {
	p.grouped, p.content = 0, 0
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("write rows: %w", err)
	}
	p.full = p.w.Size() >= partBytes || p.rows >= partRows
	return nil
}

// Close writes what is left. A part without rows is a valid file.
func (p *Part) Close() error {
	if err := p.flushGroup(); err != nil {
		return err
	}
	if err := p.w.Close(); err != nil {
		return fmt.Errorf("end file of readings: %w", err)
	}
	return nil
}
