package api

import (
	"net/http"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bundle"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// parquetRows writes one Parquet file, of the columns that an export has.
type parquetRows struct {
	part *bundle.Part
	of   *query.Source
	as   *bundle.Source // of
}

func newParquetRows(out *sink) *parquetRows { return &parquetRows{part: bundle.NewPart(out)} }

func (p *parquetRows) headers(h http.Header) {
	h.Set("Content-Type", parquetType)
	h.Set("Content-Disposition", `attachment; filename="readings.parquet"`)
}

func (p *parquetRows) begin() error { return nil }

func (p *parquetRows) row(r query.Row) error {
	if p.part.Full() {
		return holdfast.Errorf(holdfast.TooLarge, "one Parquet file takes %d readings of this kind: ask for less time, or take an export", p.part.Rows())
	}
	if p.of != r.Source {
		p.of = r.Source
		p.as = &bundle.Source{Device: r.Device, DeviceName: r.DeviceName, StreamID: r.StreamID, Stream: r.Stream, Unit: r.Unit, Type: r.Source.Type}
	}
	return p.part.Append(p.as, r.Reading)
}

func (p *parquetRows) end(string) error { return p.part.Close() }

// broken has no place for words: a file without its footer is no Parquet.
func (p *parquetRows) broken(*Problem) {}

const parquetType = "application/vnd.apache.parquet"
