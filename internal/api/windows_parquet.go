package api

import (
	"net/http"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// parquetWindows writes one Parquet file of windows: the columns that CSV has. What
// an aggregate's column holds follows from the types of all streams together:
// integers where all are, texts where one has no numbers, else numbers.
type parquetWindows struct {
	out    *sink
	result *query.Result
	keys   []string
	kinds  []holdfast.ValueType // of the aggregates
	w      *parquet.GenericWriter[any]
	line   parquet.Row
	group  int // rows since the last group's end
	csv    csvRows
}

// windowGroup is how many rows are compressed at a time.
const windowGroup = 1 << 16

func newParquetWindows(out *sink, result *query.Result) *parquetWindows {
	p := &parquetWindows{out: out, result: result, keys: csvKeys(result.By)}
	columns := []named{}
	for _, k := range p.keys {
		columns = append(columns, named{k, parquet.Encoded(parquet.String(), &parquet.RLEDictionary)})
	}
	times := parquet.Encoded(parquet.Timestamp(parquet.Nanosecond), &parquet.DeltaBinaryPacked)
	columns = append(columns, named{"start", times}, named{"end", times}, named{"readings", parquet.Encoded(parquet.Uint(64), &parquet.DeltaBinaryPacked)})
	for _, a := range result.Aggregates {
		kind := windowKind(result, a)
		p.kinds = append(p.kinds, kind)
		node := parquet.Leaf(parquet.DoubleType)
		switch kind {
		case holdfast.Integer:
			node = parquet.Int(64)
		case holdfast.Text:
			node = parquet.String()
		}
		columns = append(columns, named{a.String(), parquet.Optional(node)})
	}
	p.w = parquet.NewGenericWriter[any](out, parquet.NewSchema("windows", inOrder(columns)), parquet.Compression(&zstd.Codec{}))
	return p
}

// windowKind is what the column of an aggregate holds. The sum of integers may be
// beyond an integer, and is then the nearest number: its column is of numbers. So is
// one that may be filled.
func windowKind(result *query.Result, a query.Aggregate) holdfast.ValueType {
	switch a {
	case query.Count:
		return holdfast.Integer
	case query.Min, query.Max, query.First, query.Last:
		all := holdfast.Integer
		if result.Fill == query.FillLinear || result.Fill == query.FillConstant {
			all = holdfast.Number
		}
		for _, s := range result.Sources {
			switch s.Type {
			case holdfast.Integer:
			case holdfast.Number, holdfast.Boolean:
				if all == holdfast.Integer {
					all = holdfast.Number
				}
			default:
				if a == query.First || a == query.Last {
					all = holdfast.Text
				}
			}
		}
		return all
	}
	return holdfast.Number
}

func (p *parquetWindows) headers(h http.Header) {
	h.Set("Content-Type", parquetType)
	h.Set("Content-Disposition", `attachment; filename="windows.parquet"`)
}

func (p *parquetWindows) begin() error { return nil }

func (p *parquetWindows) row(r query.Row) error {
	row := p.line[:0]
	for _, k := range p.keys {
		row = append(row, parquet.ByteArrayValue([]byte(keyOf(r.Source, k))).Level(0, 0, len(row)))
	}
	w := r.Window
	for _, n := range [...]int64{w.Start, w.End, int64(w.Count)} {
		row = append(row, parquet.Int64Value(n).Level(0, 0, len(row)))
	}
	for i, a := range p.result.Aggregates {
		v, ok := w.Value(a)
		if !ok {
			row = append(row, parquet.NullValue().Level(0, 0, len(row)))
			continue
		}
		row = append(row, p.value(p.kinds[i], v).Level(0, 1, len(row)))
	}
	p.line = row
	if _, err := p.w.WriteRows([]parquet.Row{row}); err != nil {
		return err
	}
	if p.group++; p.group == windowGroup {
		p.group = 0
		return p.w.Flush()
	}
	return nil
}

func (p *parquetWindows) value(kind holdfast.ValueType, v holdfast.Value) parquet.Value {
	switch {
	case kind == holdfast.Text:
		return parquet.ByteArrayValue(p.csv.value(nil, v))
	case kind == holdfast.Integer:
		return parquet.Int64Value(v.Integer())
	case v.Type() == holdfast.Number:
		return parquet.DoubleValue(v.Number())
	}
	return parquet.DoubleValue(float64(v.Integer())) // true is 1
}

func (p *parquetWindows) end(string) error { return p.w.Close() }

// broken has no place for words: a file without its footer is no Parquet.
func (p *parquetWindows) broken(*Problem) {}

// named is a column of a file whose columns have an order: a parquet.Group sorts by
// name.
type named struct {
	name string
	node parquet.Node
}

type ordered struct {
	parquet.Group
	columns []named
}

func inOrder(columns []named) parquet.Node {
	g := parquet.Group{}
	for _, c := range columns {
		g[c.name] = c.node
	}
	return ordered{g, columns}
}

func (o ordered) Fields() []parquet.Field {
	of := map[string]parquet.Field{}
	for _, f := range o.Group.Fields() {
		of[f.Name()] = f
	}
	var all []parquet.Field
	for _, c := range o.columns {
		all = append(all, of[c.name])
	}
	return all
}
