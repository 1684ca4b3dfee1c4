package series

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

var update = flag.Bool("update", false, "write golden files")

// golden compares got with testdata/name, whose lines are hexadecimal.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSpace(string(text)); hex.EncodeToString(got) != want {
		t.Errorf("%s:\n got %x\nwant %s", name, got, want)
	}
}

const testArrival = 1_795_353_628_123_456_789 // 2026-11-22

func testStream(n byte) holdfast.StreamID { return holdfast.StreamID{0: 's', 15: n} }

func testHeader() Header {
	return Header{
		Type: Readings, Writer: [16]byte{0: 'w'}, Counter: 258, Assignment: holdfast.AssignmentID{0: 'a'},
		Bucket: 202611, Key: seal.KeyID{0: 'k'}, Arrival: testArrival,
	}
}

// everyValue has each type, and each value that a codec is likely to lose.
func everyValue() []holdfast.Value {
	vs := []holdfast.Value{
		holdfast.IntegerValue(0), holdfast.IntegerValue(math.MinInt64), holdfast.IntegerValue(math.MaxInt64),
		holdfast.BooleanValue(true), holdfast.BooleanValue(false),
		holdfast.TextValue(""), holdfast.TextValue("Größe \x00 ok"), holdfast.BytesValue([]byte{0, 255}), holdfast.BytesValue(nil),
		holdfast.LocationValue(holdfast.Position{Latitude: 48.1, Longitude: -11.5, Altitude: math.NaN()}),
		holdfast.LocationValue(holdfast.Position{Latitude: -90, Longitude: 180, Altitude: 8848}),
	}
	for _, f := range []float64{
		0, math.Copysign(0, -1), 23.4, 1e-6, -0.000001, 1e300, 5e-324, 1.0 / 3, 1 << 53, 1<<48 - 1, 1 << 48,
		math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(0x7ff0000000000001), math.Float64frombits(0xfff8dead00000000),
	} {
		vs = append(vs, holdfast.NumberValue(f))
	}
	return vs
}

var everyTime = []int64{testArrival, 0, -1, 1, math.MinInt64, math.MaxInt64, testArrival - 1, testArrival + 5*60e9, -1e9, 946684800e9}

func roundTrip(t *testing.T, h Header, c Content) []byte {
	t.Helper()
	plain := AppendContent(nil, h, &c)
	var got Content
	if err := DecodeContent(plain, h, &got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Session, c.Session) || !slices.Equal(got.Received, c.Received) || !slices.Equal(got.Released, c.Released) {
		t.Errorf("packet ids: got %v, want %v", got, c)
	}
	if len(got.Rows) != len(c.Rows) {
		t.Fatalf("%d rows, want %d", len(got.Rows), len(c.Rows))
	}
	for i, r := range c.Rows {
		if g := got.Rows[i]; g != r {
			t.Fatalf("row %d: got %v, want %v", i, g, r)
		}
	}
	return plain
}

func TestContentKeepsEveryValueAndTime(t *testing.T) {
	var rows []Row
	for i, v := range everyValue() {
		for j, at := range everyTime {
			rows = append(rows, Row{testStream(byte(i % 3)), holdfast.Reading{
				Time: at, Seq: uint64(j) * math.MaxUint64 / 3, Value: v, Mark: holdfast.Mark(i / 4),
			}})
		}
	}
	roundTrip(t, testHeader(), Content{Rows: rows})
	for _, r := range rows { // alone, so that no row leans on another
		roundTrip(t, testHeader(), Content{Rows: []Row{r}})
	}
	h := testHeader()
	h.Type = Release
	roundTrip(t, h, Content{Session: []byte("session"), Released: []uint16{1, 65535}})
	roundTrip(t, h, Content{Session: bytes.Repeat([]byte("s"), MaxSession), Received: []uint16{7}})
}

func TestContentOfDrawnRows(t *testing.T) {
	seed := testseed.Of(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	values := everyValue()
	for range 300 {
		unit := timeUnits[rng.IntN(4)]
		at := int64(rng.Uint64()) / unit
		var rows []Row
		for range rng.IntN(60) {
			at += rng.Int64N(3) * rng.Int64N(5)
			r := holdfast.Reading{Time: at * unit, Value: values[rng.IntN(len(values))]}
			if at > math.MaxInt64/unit || at < math.MinInt64/unit {
				r.Time = at
			}
			if rng.IntN(2) == 0 {
				r.Seq = uint64(at)
			}
			if rng.IntN(4) == 0 {
				r.Time, r.Mark = testArrival, holdfast.Stamped
			}
			rows = append(rows, Row{testStream(byte(rng.IntN(5))), r})
		}
		roundTrip(t, testHeader(), Content{Rows: rows})
	}
}

// twenty is what one read of a busy connection brings: a stream's readings, a
// second apart but for the device's clock.
func twenty() []Row {
	rows := make([]Row, 20)
	for i := range rows {
		at := int64(testArrival-20e9)/1e6*1e6 + int64(i)*1e9 + int64(i*7%6-3)*1e6
		rows[i] = Row{testStream(1), holdfast.Reading{Time: at, Value: holdfast.NumberValue(21.5 + float64(i%7)/10)}}
	}
	return rows
}

func TestContentOfManyStreams(t *testing.T) {
	rng := newRNG(t)
	for _, streams := range []int{1, 31, 32, 33, 34, 500} {
		var rows []Row
		for i := range 3000 {
			n := i % streams // a pack's order, then any
			if i > 1500 {
				n = rng.IntN(streams)
			}
			id := testStream(byte(n))
			id[1] = byte(n >> 8)
			rows = append(rows, Row{id, holdfast.Reading{Time: testArrival + int64(i), Value: holdfast.IntegerValue(int64(i))}})
		}
		plain := roundTrip(t, testHeader(), Content{Rows: rows})
		if got := int(plain[9])<<8 | int(plain[10]); got != streams {
			t.Errorf("a table of %d streams, want %d", got, streams)
		}
	}
}

func TestContentIsSmall(t *testing.T) {
	size := func(rows []Row) int { return len(AppendContent(nil, testHeader(), &Content{Rows: rows})) }
	if n := float64(size(twenty())) / 20; n >= 12 {
		t.Errorf("%.1f bytes per reading of 20", n)
	} else {
		t.Logf("%.1f bytes per reading of 20", n)
	}
	rough := twenty()
	for i := range rough { // values that no decimal holds
		rough[i].Value = holdfast.NumberValue(math.Sqrt(float64(i + 2)))
	}
	if n := float64(size(rough)) / 20; n >= 13 {
		t.Errorf("%.1f bytes per rough reading of 20", n)
	}
	for at, what := range map[int64]string{testArrival: "stamped", testArrival - 60e9 - 1: "a minute old"} {
		r := Row{testStream(1), holdfast.Reading{Time: at, Value: holdfast.NumberValue(1.0 / 3)}}
		if n := size([]Row{r}); n >= 45 {
			t.Errorf("one reading %s: %d bytes", what, n)
		}
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	content := &Content{Session: []byte("s"), Received: []uint16{1}, Rows: twenty()}
	dst := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		dst = AppendContent(AppendHeader(dst[:0], testHeader()), testHeader(), content)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRecordBytes(t *testing.T) {
	golden(t, "header.hex", AppendHeader(nil, testHeader()))
	rows := []Row{
		{testStream(1), holdfast.Reading{Time: testArrival, Mark: holdfast.Stamped, Value: holdfast.NumberValue(23.4)}},
		{testStream(1), holdfast.Reading{Time: testArrival - 1e9, Seq: 7, Value: holdfast.NumberValue(1.0 / 3)}},
		{testStream(1), holdfast.Reading{Time: testArrival + 1e9, Seq: 8, Value: holdfast.NumberValue(-2)}},
		{testStream(2), holdfast.Reading{Time: testArrival + 1e9, Value: holdfast.IntegerValue(-2)}},
		{testStream(2), holdfast.Reading{Time: testArrival + 3e9, Value: holdfast.IntegerValue(1 << 40)}},
		{testStream(1), holdfast.Reading{Time: -1, Mark: holdfast.TLS12, Value: holdfast.NumberValue(math.NaN())}},
		{testStream(3), holdfast.Reading{Time: 0, Mark: holdfast.TLS12, Value: holdfast.BooleanValue(true)}},
		{testStream(3), holdfast.Reading{Time: 0, Value: holdfast.BooleanValue(false)}},
		{testStream(4), holdfast.Reading{Time: 1, Value: holdfast.TextValue("on")}},
		{testStream(5), holdfast.Reading{Time: 2, Value: holdfast.BytesValue([]byte{0xff})}},
		{testStream(6), holdfast.Reading{Time: 3, Value: holdfast.LocationValue(holdfast.Position{Latitude: 48, Longitude: 11, Altitude: 500})}},
	}
	golden(t, "readings.hex", AppendContent(nil, testHeader(), &Content{Rows: rows}))
	golden(t, "readings-20.hex", AppendContent(nil, testHeader(), &Content{Rows: twenty()}))
	golden(t, "readings-qos2.hex", AppendContent(nil, testHeader(), &Content{Session: []byte("s"), Received: []uint16{1, 515}, Rows: rows[:1]}))
	h := testHeader()
	h.Type = Release
	golden(t, "release.hex", AppendContent(nil, h, &Content{Session: []byte("s"), Released: []uint16{1, 515}}))
}

func TestRecordOpensOnlyInItsPlace(t *testing.T) {
	c := seal.NewCipher(seal.NewKey())
	h := testHeader()
	record, _, _ := AppendRecord(nil, nil, h, &Content{Rows: twenty()}, c)
	open := func(record []byte) error {
		h, box, err := ParseHeader(record)
		if err != nil {
			return err
		}
		var content Content
		_, err = OpenRecord(nil, h, box, c, &content)
		return err
	}
	if err := open(record); err != nil {
		t.Fatal(err)
	}
	// bucket and key id say which key to ask for; every other byte is protected.
	for i := range record {
		if i >= 42 && i < 62 {
			continue
		}
		bad := bytes.Clone(record)
		bad[i] ^= 1
		if open(bad) == nil {
			t.Errorf("opened with byte %d changed", i)
		}
	}
	if _, _, err := ParseHeader(append([]byte{2}, record[1:]...)); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a newer version: %v", err)
	}
}

func FuzzDecodeContent(f *testing.F) {
	h := testHeader()
	f.Add(AppendContent(nil, h, &Content{Rows: twenty()}))
	for _, v := range everyValue() {
		f.Add(AppendContent(nil, h, &Content{Session: []byte("s"), Received: []uint16{1}, Rows: []Row{{testStream(1), holdfast.Reading{Time: 5, Value: v}}}}))
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		var c, again Content
		if err := DecodeContent(plain, h, &c); err != nil {
			if holdfast.KindOf(err) != holdfast.Invalid {
				t.Fatal(err)
			}
			return
		}
		if len(c.Rows) > len(plain) {
			t.Fatalf("%d rows of %d bytes", len(c.Rows), len(plain))
		}
		if err := DecodeContent(AppendContent(nil, h, &c), h, &again); err != nil || fmt.Sprint(c) != fmt.Sprint(again) {
			t.Fatalf("%v: %v, again %v", err, c, again)
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	f.Add(AppendHeader(nil, testHeader()))
	f.Add(append(AppendHeader(nil, testHeader()), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, box, err := ParseHeader(data)
		if err == nil && !bytes.Equal(append(AppendHeader(nil, h), box...), data) {
			t.Fatal("a header has two spellings")
		}
	})
}

func BenchmarkAppendContent(b *testing.B) {
	c := &Content{Rows: twenty()}
	var dst []byte
	for b.Loop() {
		dst = AppendContent(dst[:0], testHeader(), c)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*20), "ns/reading")
}

func BenchmarkDecodeContent(b *testing.B) {
	h := testHeader()
	plain := AppendContent(nil, h, &Content{Rows: twenty()})
	var c Content
	for b.Loop() {
		if err := DecodeContent(plain, h, &c); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*20), "ns/reading")
}
