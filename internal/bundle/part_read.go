package bundle

import (
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/holdfast-iot/holdfast"
)

// ReadPart calls row for each reading of a file that Part wrote, in order, until
// it returns an error, which ReadPart returns. The Source stays the same while
// rows are of one stream.
//
// The file may be anybody's: where the Parquet library would panic, ReadPart ends
// with an error. A panic of row is not caught.
func ReadPart(r io.ReaderAt, size int64, row func(*Source, holdfast.Reading) error) error {
	p := reading{row: row}
	err := p.file(r, size)
	if p.failure != nil {
		return p.failure
	}
	return err
}

// reading is a part on its way in.
type reading struct {
	row     func(*Source, holdfast.Reading) error
	failure error // of row
	panics  bool  // row is running: a panic is its own
	source  *Source
	words   [colType + 1]string // of source
}

func (p *reading) file(r io.ReaderAt, size int64) (err error) {
	defer func() {
		if p.panics {
			return
		}
		if fault := recover(); fault != nil {
			err = invalid("the file is not Parquet that can be read")
		}
	}()
	if err := checkFooter(r, size); err != nil {
		return err
	}
	f, err := parquet.OpenFile(r, size, parquet.SkipBloomFilters(true), parquet.SkipPageIndex(true))
	if err != nil {
		return invalid("the file is not Parquet: %w", err)
	}
	if err := sameColumns(f.Schema()); err != nil {
		return err
	}
	if err := plausible(r, size, f.Metadata()); err != nil {
		return err
	}
	for _, g := range f.RowGroups() {
		if err := p.group(g); err != nil {
			return err
		}
	}
	return nil
}

// sameColumns refuses a file with other columns than Part's, whatever their
// encodings.
func sameColumns(s *parquet.Schema) error {
	want := schema([columns]bool{})
	have, need := s.Columns(), want.Columns()
	if len(have) != len(need) {
		return invalid("the file has %d columns, not the %d of a bundle", len(have), len(need))
	}
	for i := range need {
		if len(have[i]) != 1 || have[i][0] != need[i][0] {
			return invalid("column %d is not %s", i+1, need[i][0])
		}
		a, _ := s.Lookup(need[i]...)
		b, _ := want.Lookup(need[i]...)
		if a.Node.Type().Kind() != b.Node.Type().Kind() || a.MaxDefinitionLevel != b.MaxDefinitionLevel || a.MaxRepetitionLevel != 0 {
			return invalid("column %s is of another type", need[i][0])
		}
	}
	return nil
}

// plausible refuses what Part does not write, before it is read: other
// compressions, of which the library reads some without end, and more rows than a
// part has.
func plausible(r io.ReaderAt, size int64, m *format.FileMetaData) error {
	rows := int64(0)
	for _, g := range m.RowGroups {
		if rows += g.NumRows; g.NumRows < 0 || g.NumRows > maxRows || rows > maxRows || len(g.Columns) != columns {
			return invalid("the file has more rows than a part of a bundle")
		}
		for _, c := range g.Columns {
			if c.MetaData.Codec != format.Zstd || c.MetaData.NumValues != g.NumRows {
				return invalid("the file is not compressed as a part of a bundle")
			}
			if err := checkPages(r, size, &c.MetaData); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *reading) group(g parquet.RowGroup) error {
	rows := g.Rows()
	defer rows.Close()
	buf := make([]parquet.Row, 512)
	for {
		n, err := rows.ReadRows(buf)
		for _, row := range buf[:n] {
			if err := p.one(row); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return invalid("read rows: %w", err)
		}
	}
}

func (p *reading) one(row parquet.Row) error {
	if len(row) != columns {
		return invalid("a row has %d columns", len(row))
	}
	if err := p.share(row); err != nil {
		return err
	}
	r := holdfast.Reading{Time: row[colTime].Int64(), Mark: holdfast.Mark(row[colMarks].Uint32())}
	if !row[colSeq].IsNull() {
		r.Seq = row[colSeq].Uint64()
	}
	var err error
	if r.Value, err = value(p.source.Type, row); err != nil {
		return err
	}
	p.panics = true
	p.failure = p.row(p.source, r)
	p.panics = false
	return p.failure
}

// share makes the source of a row, unless it is the one before.
func (p *reading) share(row parquet.Row) (err error) {
	same := p.source != nil
	for col := range p.words {
		same = same && string(row[col].ByteArray()) == p.words[col]
	}
	if same {
		return nil
	}
	for col := range p.words {
		if p.words[col] = string(row[col].ByteArray()); !utf8.ValidString(p.words[col]) {
			return invalid("a name is not UTF-8")
		}
	}
	s := &Source{DeviceName: p.words[colDeviceName], Stream: p.words[colStream], Unit: p.words[colUnit]}
	if s.Device, err = holdfast.ParseID[holdfast.DeviceID](p.words[colDevice]); err != nil {
		return fmt.Errorf("device of a row: %w", err)
	}
	if s.StreamID, err = holdfast.ParseID[holdfast.StreamID](p.words[colStreamID]); err != nil {
		return fmt.Errorf("stream of a row: %w", err)
	}
	if s.Type, err = holdfast.ParseValueType(p.words[colType]); err != nil {
		return fmt.Errorf("type of a row: %w", err)
	}
	p.source = s
	return nil
}

// valueColumns are those of each type; all others of a row are null.
func valueColumns(t holdfast.ValueType) (first, last int) {
	switch t {
	case holdfast.Location:
		return colLatitude, colLongitude
	default:
		col := colNumber + int(t-holdfast.Number)
		return col, col
	}
}

func value(t holdfast.ValueType, row parquet.Row) (v holdfast.Value, err error) {
	first, last := valueColumns(t)
	for col := colNumber; col < columns; col++ {
		if used := first <= col && col <= last; used == row[col].IsNull() && (t != holdfast.Location || col != colAltitude) {
			return v, invalid("a row of type %s has a value of another, or none", t)
		}
	}
	switch t {
	case holdfast.Number:
		return holdfast.NumberValue(row[colNumber].Double()), nil
	case holdfast.Integer:
		return holdfast.IntegerValue(row[colInteger].Int64()), nil
	case holdfast.Boolean:
		return holdfast.BooleanValue(row[colBoolean].Boolean()), nil
	case holdfast.Text:
		s := string(row[colText].ByteArray())
		if !utf8.ValidString(s) {
			return v, invalid("a text is not UTF-8")
		}
		return holdfast.TextValue(s), nil
	case holdfast.Bytes:
		return holdfast.BytesValue(row[colBytes].ByteArray()), nil
	default:
		at := holdfast.Position{Latitude: row[colLatitude].Double(), Longitude: row[colLongitude].Double(), Altitude: math.NaN()}
		if !row[colAltitude].IsNull() {
			at.Altitude = row[colAltitude].Double()
		}
		return holdfast.LocationValue(at), nil
	}
}
