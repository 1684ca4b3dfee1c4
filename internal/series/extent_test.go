package series

import (
	"os"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

func TestExtentBytes(t *testing.T) {
	golden(t, "extent.hex", appendExtent(nil, extent{
		rows: 8192, times: holdfast.Span{From: -1, To: testArrival}, arrival: holdfast.Span{From: testArrival, To: testArrival + 1e9},
	}))
}

func FuzzParseExtent(f *testing.F) {
	f.Add(appendExtent(nil, extent{rows: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := parseExtent(b); err == nil && string(appendExtent(nil, e)) != string(b) {
			t.Fatal("an extent has two spellings")
		} else if err != nil && holdfast.KindOf(err) != holdfast.Invalid {
			t.Fatal(err)
		}
	})
}

// TestSegmentLayout reads a segment by docs/format/segment.md, not by this package.
func TestSegmentLayout(t *testing.T) {
	r := newRig(t, Options{})
	for n := range byte(3) {
		r.send(alice, testStream(n), testArrival, number(int64(n), 1))
	}
	r.roll()
	at, beside := int64(8), 0
	for n := range byte(3) { // one assignment's chunks, by stream
		cell := Cell{alice, testStream(n), 202611}
		rows, err := r.cellRows(t.Context(), cell)
		r.must(err)
		if len(rows) != 1 || rows[0].at != at {
			t.Fatalf("stream %d: %d rows, at %d, want %d", n, len(rows), rows[0].at, at)
		}
		data, err := os.ReadFile(r.segmentPath(rows[0].blob))
		r.must(err)
		if string(data[:8]) != "hfseg\x00\x00\x01" {
			t.Errorf("magic %q", data[:8])
		}
		c, err := r.keys.StreamCipher(t.Context(), alice, 202611, cell.Stream)
		r.must(err)
		box := data[at : at+int64(rows[0].size)]
		if _, err := c.Open(nil, box, seal.ChunkPlace(alice, cell.Stream, 202611, rows[0].id, 1)); err != nil {
			t.Error(err)
		}
		if _, err := c.Open(nil, rows[0].box, seal.SummaryPlace(alice, cell.Stream, 202611, rows[0].id, 0)); err != nil {
			t.Error(err)
		}
		at += int64(rows[0].size + rows[0].summary)
		if size := int64(rows[0].arrivals); size > 0 {
			if _, err := c.Open(nil, data[at:at+size], seal.ArrivalPlace(alice, cell.Stream, 202611, rows[0].id, 1)); err != nil {
				t.Error(err)
			}
			at, beside = at+size, beside+1
		}
		if n == 2 && at != int64(len(data)) {
			t.Errorf("%d bytes, want %d", len(data), at)
		}
	}
	if beside == 0 {
		t.Error("no chunk has arrivals")
	}
}
