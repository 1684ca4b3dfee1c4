package api

import (
	"bytes"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bundle"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// What a Parquet answer says is read back bit for bit, streams of two types in
// one file.
func TestParquetRows(t *testing.T) {
	pulse := &query.Source{Device: holdfast.NewID[holdfast.DeviceID](), DeviceName: "band", Stream: "pulse", Unit: "beat/min", Type: holdfast.Number,
		StreamID: holdfast.NewID[holdfast.StreamID]()}
	worn := &query.Source{Device: pulse.Device, DeviceName: "band", Stream: "worn", Type: holdfast.Boolean, StreamID: holdfast.NewID[holdfast.StreamID]()}
	sent := []query.Row{
		{Source: pulse, Reading: holdfast.Reading{Time: -5, Seq: 1, Value: holdfast.NumberValue(math.Copysign(0, -1))}},
		{Source: pulse, Reading: holdfast.Reading{Time: 7, Value: holdfast.NumberValue(math.NaN()), Mark: holdfast.Stamped}},
		{Source: worn, Reading: holdfast.Reading{Time: 8, Value: holdfast.BooleanValue(true)}},
	}
	rec := httptest.NewRecorder()
	out := newSink(rec, httptest.NewRequest(http.MethodGet, "/", nil), time.Minute)
	p := newParquetRows(out)
	p.headers(rec.Header())
	for _, r := range sent {
		if err := p.row(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.end(""); err != nil {
		t.Fatal(err)
	}
	if err := out.end(); err != nil {
		t.Fatal(err)
	}
	file := rec.Body.Bytes()
	i := 0
	err := bundle.ReadPart(bytes.NewReader(file), int64(len(file)), func(s *bundle.Source, r holdfast.Reading) error {
		want := sent[i]
		i++
		if s.StreamID != want.StreamID || s.Stream != want.Stream || s.Unit != want.Unit || r != want.Reading {
			t.Errorf("row %d: %s", i, cmp.Diff(want.Stream, s.Stream))
		}
		return nil
	})
	if err != nil || i != len(sent) {
		t.Errorf("%d rows, %v", i, err)
	}
}
