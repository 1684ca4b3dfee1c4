package chunk_test

import (
	"bytes"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// equal compares bit for bit: every NaN is itself, 0 and -0 differ. Missing and
// zero sequence numbers and marks say the same.
func equal(t *testing.T, got, want *chunk.Columns) {
	t.Helper()
	if got.Type != want.Type || got.Len() != want.Len() {
		t.Fatalf("got %d rows of %s, want %d of %s", got.Len(), got.Type, want.Len(), want.Type)
	}
	for i := range want.Len() {
		g, w := got.Reading(i), want.Reading(i)
		if g != w {
			t.Fatalf("row %d of %d: got %+v, want %+v", i, want.Len(), g, w)
		}
	}
}

// roundTrip encodes c, decodes it and returns the bytes.
func roundTrip(t *testing.T, c *chunk.Columns) []byte {
	t.Helper()
	const before = "kept"
	data, err := chunk.Encode([]byte(before), c)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(data, []byte(before)) {
		t.Fatal("Encode changed what stood before")
	}
	data = data[len(before):]
	var got chunk.Columns
	if err := chunk.Decode(data, &got); err != nil {
		t.Fatal(err)
	}
	equal(t, &got, c)
	return data
}

func TestSeries(t *testing.T) {
	for _, s := range allSeries {
		t.Run(s.name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3, 4, 5, 7, 10, 16, 31, 33, 60, 64, 127, 128, 129, 130, 255, 511, 513, 600, 3600, chunk.MaxRows} {
				roundTrip(t, s.make(random(uint64(n)), n))
			}
		})
	}
}

// TestSizes holds what the codec reached, so that no change loses it unseen.
func TestSizes(t *testing.T) {
	for _, want := range []struct {
		series     string
		hour, slow int // bytes of 3,600 and of 60 rows
	}{
		{"temperature", 1150, 42},
		{"temperature-jitter", 2700, 76},
		{"temperature-skips", 2800, 130},
		{"heart-rate", 1080, 42},
		{"counter", 2900, 72},
		{"state", 75, 15},
		{"state-text", 140, 35},
		{"door", 60, 15},
		{"position", 3700, 105},
		{"semicircles", 4600, 145},
		{"vibration", 12300, 270},
	} {
		for _, s := range allSeries {
			if s.name != want.series {
				continue
			}
			if n := len(roundTrip(t, s.make(random(1), 3600))); n > want.hour {
				t.Errorf("%s: 3,600 rows take %d bytes, more than %d", s.name, n, want.hour)
			}
			if n := len(roundTrip(t, s.make(random(1), 60))); n > want.slow {
				t.Errorf("%s: 60 rows take %d bytes, more than %d", s.name, n, want.slow)
			}
		}
	}
}

var (
	negativeZero = math.Copysign(0, -1)
	quietNaN     = math.Float64frombits(0xfff8_0000_dead_beef)
	loudNaN      = math.Float64frombits(0x7ff0_0000_0000_0001) // signalling
)

var nastyNumbers = map[string][]float64{
	"zero":               {0},
	"minus zero":         {negativeZero},
	"both zeros":         {0, negativeZero, 0, 0, negativeZero},
	"NaN":                {math.NaN(), math.NaN(), math.NaN()},
	"NaN payloads":       {quietNaN, loudNaN, math.NaN(), quietNaN},
	"infinities":         {math.Inf(1), math.Inf(-1), math.Inf(1)},
	"subnormal":          {math.SmallestNonzeroFloat64, -math.SmallestNonzeroFloat64, 2.2e-308, 0},
	"subnormal binary32": {math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 0},
	"largest":            {math.MaxFloat64, -math.MaxFloat64, math.MaxFloat32, -math.MaxFloat32},
	"2^51 and beyond":    {1 << 51, 1<<51 - 1, 1<<52 + 1, 1<<53 + 2, 1 << 63, -1 << 51, -1 << 63, 1e22, 1e23},
	"decimals":           {0.1, 0.2, 0.30000000000000004, 0.3, 1.005, 2.675, 1e-7, 123456.789},
	"gaps":               {20.1, math.NaN(), 20.2, math.NaN(), 20.3, math.NaN(), 20.4, math.NaN()},
	"NaN first":          {math.NaN(), math.NaN(), 20.1, 20.2, 20.3},
	"one odd":            {20.1, 20.2, 20.1, 20.3, 20.1, 20.2, 20.1, 20.3, 20.1, math.Pi, 20.1, 20.2, 20.1, 20.3, 20.1, 20.2, 20.1},
	"binary32":           {float64(float32(0.1)), float64(float32(3.3)), negativeZero, float64(float32(-7.7)), math.Inf(1)},
	"binary32 with NaN":  {float64(float32(0.1)), loudNaN, float64(float32(3.3)), float64(float32(math.Pi))},
	"binary fractions":   {0.0625, -1.5, 1.0 / (1 << 30), 3.0 / (1 << 31), 0, 1 << 19, 1.0 / (1 << 32)},
	"semicircles":        {574_000_001. * 180 / (1 << 31), -574_000_002. * 180 / (1 << 31), negativeZero, -180},
	"noise":              {math.Pi, -math.E, math.Sqrt2, math.Phi, -math.Ln2},
}

func TestNumbers(t *testing.T) {
	for name, v := range nastyNumbers {
		t.Run(name, func(t *testing.T) {
			for _, repeat := range []int{1, 2, 100} {
				w := make([]float64, 0, len(v)*repeat)
				for range repeat {
					w = append(w, v...)
				}
				roundTrip(t, numbers(len(w), func(i int) float64 { return w[i] }))
			}
		})
	}
}

var nastyIntegers = map[string][]int64{
	"extremes":       {math.MinInt64, math.MaxInt64, math.MinInt64, 0, math.MaxInt64, -1, 1},
	"least only":     {math.MinInt64, math.MinInt64},
	"two extremes":   {math.MaxInt64, math.MinInt64},
	"2^63 apart":     {math.MinInt64, 0},
	"2^62":           {1 << 62, -1 << 62, 1<<62 - 1, 0, -1<<62 - 1},
	"large divisor":  {0, 1 << 62, 0, 1 << 61},
	"decimal steps":  {5_000_000, 10_000_000, -15_000_000, 0, 1_000_000_000_000_000_000},
	"steady":         {-7, 0, 7, 14, 21, 28},
	"falling":        {1 << 40, 1 << 39, 1 << 38, 1 << 37, 1 << 36},
	"parabola":       {0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121, 144},
	"first differs":  {9, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5},
	"jump":           {1, 2, 3, 4, 1 << 50, 1<<50 + 1, 1<<50 + 2, 1<<50 + 3},
	"large and even": {1<<60 + 8, 1<<60 + 24, -1<<60 + 16, 1<<60 + 88},
}

// TestIntegers tries every table as integers and as times.
func TestIntegers(t *testing.T) {
	for name, v := range nastyIntegers {
		t.Run(name, func(t *testing.T) {
			for _, repeat := range []int{1, 2, 150} {
				w := make([]int64, 0, len(v)*repeat)
				for range repeat {
					w = append(w, v...)
				}
				roundTrip(t, integers(len(w), func(i int) int64 { return w[i] }))
				c := integers(len(w), func(i int) int64 { return int64(i) })
				c.Times = w
				roundTrip(t, c)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	at := func(s string) int64 {
		x, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return x.UnixNano()
	}
	for name, times := range map[string][]int64{
		"1970":            {0, 0, 1, second},
		"before 1970":     {at("1969-12-31T23:59:59.999999999Z"), at("1970-01-01T00:00:00Z")},
		"bounds":          {holdfast.MinTime.UnixNano(), holdfast.MaxTime.UnixNano()},
		"duplicates":      {start, start, start, start + 1, start + 1},
		"one":             {start},
		"with gap":        {start, start + second, start + 2*second, start + 86400*second, start + 86401*second, start + 86402*second, start + 86403*second, start + 86404*second, start + 86405*second},
		"minutes":         {start, start + 60*second, start + 120*second, start + 240*second},
		"1970, then sane": {1 * second, 2 * second, start, start + second, start + 2*second},
		"skips at once":   skippingFrom(start, 0),
		"skips, below 0":  skippingFrom(-start, 7),
		"skips for years": skippingFrom(start, 1<<20),
		"out of order":    {start + 9, start, start + 5},
	} {
		t.Run(name, func(t *testing.T) {
			c := integers(len(times), func(i int) int64 { return int64(i) })
			c.Times = times
			roundTrip(t, c)
		})
	}
}

// skippingFrom is a jittering clock of milliseconds with a few gaps, one of the given
// number of seconds.
func skippingFrom(from, gap int64) []int64 {
	t := make([]int64, 300)
	at := from
	for i := range t {
		at += second
		switch i % 90 {
		case 0:
			at += gap * second
		case 40:
			at += 3 * second
		}
		t[i] = at + scatter(i, 11)*1e6
	}
	return t
}

func TestBooleans(t *testing.T) {
	for name, n := range map[string]int{"one": 1, "eight": 8, "nine": 9, "many": 1000} {
		for kind, f := range map[string]func(i int) bool{
			"false": func(int) bool { return false },
			"true":  func(int) bool { return true },
			"turns": func(i int) bool { return i%2 == 0 },
			"last":  func(i int) bool { return i == n-1 },
			"first": func(i int) bool { return i == 0 },
			"mixed": func(i int) bool { return i*i%7 < 3 },
			"rare":  func(i int) bool { return i%97 == 5 },
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				c := &chunk.Columns{Type: holdfast.Boolean, Times: exactTimes(n)}
				for i := range n {
					c.Booleans = append(c.Booleans, f(i))
				}
				roundTrip(t, c)
			})
		}
	}
}

func TestTexts(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", holdfast.MaxValueBytes/16)
	noise := make([]byte, holdfast.MaxValueBytes)
	for i := range noise {
		noise[i] = byte(random(uint64(i)).Uint64())
	}
	for name, v := range map[string][]string{
		"empty":        {""},
		"empties":      {"", "", "", "", ""},
		"one":          {"ok"},
		"some empty":   {"", "a", "", "b", "", "", "c"},
		"dictionary":   {"on", "off", "on", "on", "off", "on", "", "on"},
		"Unicode":      {"grün", "赤", "\U0001F6B2", "e\u0301"},
		"not UTF-8":    {"\xff\xfe", "a\x00b", "\x80"},
		"256 KiB":      {long},
		"4 of 256 KiB": {long, long, long, long},
		"noise":        {string(noise), "short", string(noise[:1000])},
		"compressible": {strings.Repeat("a", 100_000), strings.Repeat("b", 100_000)},
		"distinct":     strings.Split("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu", " "),
	} {
		t.Run(name, func(t *testing.T) {
			c := &chunk.Columns{Type: holdfast.Text, Times: exactTimes(len(v)), Texts: v}
			roundTrip(t, c)
			b := &chunk.Columns{Type: holdfast.Bytes, Times: c.Times}
			for _, s := range v {
				b.Blobs = append(b.Blobs, []byte(s))
			}
			roundTrip(t, b)
		})
	}
}

func TestPositions(t *testing.T) {
	c := &chunk.Columns{Type: holdfast.Location, Times: exactTimes(5), Positions: []holdfast.Position{
		{Latitude: 48.1371234, Longitude: 11.575382, Altitude: math.NaN()},
		{Latitude: -90, Longitude: 180, Altitude: -430.5},
		{Latitude: negativeZero, Longitude: -180, Altitude: loudNaN},
		{Latitude: math.Inf(1), Longitude: math.SmallestNonzeroFloat64, Altitude: 8848.86},
		{Latitude: 0, Longitude: 0, Altitude: 0},
	}}
	roundTrip(t, c)

	// A height that nobody knows costs one byte.
	known := positions(random(1), 100)
	flat := len(roundTrip(t, known))
	for i := range known.Positions {
		known.Positions[i].Altitude = 0
	}
	if n := len(roundTrip(t, known)); flat != n-2 {
		t.Errorf("without altitude %d bytes, with a constant one %d", flat, n)
	}
}

func TestSequencesAndMarks(t *testing.T) {
	c := &chunk.Columns{Type: holdfast.Integer}
	readings := []holdfast.Reading{
		{Time: 1, Value: holdfast.IntegerValue(1)},
		{Time: 2, Value: holdfast.IntegerValue(2)},
		{Time: 3, Value: holdfast.IntegerValue(3), Seq: math.MaxUint64},
		{Time: 4, Value: holdfast.IntegerValue(4), Mark: holdfast.Stamped | holdfast.TLS12},
		{Time: 5, Value: holdfast.IntegerValue(5), Seq: 1, Mark: 0xff},
		{Time: 6, Value: holdfast.IntegerValue(6)},
	}
	for i, r := range readings {
		if err := c.Append(r); err != nil {
			t.Fatal(err)
		}
		if i == 1 && (c.Seqs != nil || c.Marks != nil) {
			t.Error("columns of zeros are there")
		}
	}
	for i, r := range readings {
		if got := c.Reading(i); got != r {
			t.Errorf("row %d: got %+v, want %+v", i, got, r)
		}
	}
	roundTrip(t, c)

	// Counting costs next to nothing, silence nothing at all.
	plain, counted, silent := states(random(1), 100), states(random(1), 100), states(random(1), 100)
	counted.Seqs, counted.Marks = make([]uint64, 100), make([]holdfast.Mark, 100)
	silent.Seqs, silent.Marks = make([]uint64, 100), make([]holdfast.Mark, 100)
	for i := range 100 {
		counted.Seqs[i] = uint64(1000 + i)
		counted.Marks[i] = holdfast.TLS12
	}
	none, some := len(roundTrip(t, plain)), len(roundTrip(t, counted))
	if some > none+6 {
		t.Errorf("%d bytes with sequence numbers, %d without", some, none)
	}
	if n := len(roundTrip(t, silent)); n != none {
		t.Errorf("%d bytes with zeros, %d without", n, none)
	}
}

func TestRefusals(t *testing.T) {
	ok := temperature(random(1), 10)
	for name, test := range map[string]struct {
		change func(c *chunk.Columns)
		kind   holdfast.Kind
	}{
		"no rows":        {func(c *chunk.Columns) { c.Times, c.Numbers = nil, nil }, holdfast.Invalid},
		"no type":        {func(c *chunk.Columns) { c.Type = 0 }, holdfast.Invalid},
		"unknown type":   {func(c *chunk.Columns) { c.Type = 7 }, holdfast.Invalid},
		"other type":     {func(c *chunk.Columns) { c.Type = holdfast.Text }, holdfast.Invalid},
		"values missing": {func(c *chunk.Columns) { c.Numbers = c.Numbers[:9] }, holdfast.Invalid},
		"short seqs":     {func(c *chunk.Columns) { c.Seqs = make([]uint64, 9) }, holdfast.Invalid},
		"long marks":     {func(c *chunk.Columns) { c.Marks = make([]holdfast.Mark, 11) }, holdfast.Invalid},
		"too many rows":  {func(c *chunk.Columns) { *c = *temperature(random(1), chunk.MaxRows+1) }, holdfast.TooLarge},
		"too much content": {func(c *chunk.Columns) {
			*c = chunk.Columns{Type: holdfast.Text, Times: []int64{1}, Texts: []string{strings.Repeat("x", chunk.MaxBytes+1)}}
		}, holdfast.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			c := *ok
			test.change(&c)
			data, err := chunk.Encode([]byte("kept"), &c)
			if holdfast.KindOf(err) != test.kind || err == nil {
				t.Errorf("got error %v, want kind %s", err, test.kind)
			}
			if string(data) != "kept" {
				t.Errorf("got %q", data)
			}
		})
	}
	c := chunk.Columns{Type: holdfast.Number}
	for _, v := range []holdfast.Value{{}, holdfast.IntegerValue(1), holdfast.TextValue("1")} {
		if err := c.Append(holdfast.Reading{Value: v}); holdfast.KindOf(err) != holdfast.Invalid || c.Len() != 0 {
			t.Errorf("append %s to numbers: %v", v.Type(), err)
		}
	}
}

func TestNewerVersion(t *testing.T) {
	data := roundTrip(t, temperature(random(1), 10))
	data[0]++
	c := *temperature(random(1), 10)
	err := chunk.Decode(data, &c)
	if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "newer") {
		t.Errorf("got %v", err)
	}
	if c.Len() != 0 {
		t.Error("rows are left after an error")
	}
}

// TestDamage cuts and changes chunks everywhere. A change may go unseen here, for
// the seal around a chunk sees it; it must not panic, and a cut is always seen.
func TestDamage(t *testing.T) {
	var c chunk.Columns
	for _, s := range allSeries {
		data := roundTrip(t, s.make(random(1), 200))
		for n := range data {
			if err := chunk.Decode(data[:n], &c); holdfast.KindOf(err) != holdfast.Invalid || err == nil {
				t.Fatalf("%s cut to %d bytes: %v", s.name, n, err)
			}
		}
		if err := chunk.Decode(append(data[:len(data):len(data)], 0), &c); holdfast.KindOf(err) != holdfast.Invalid || err == nil {
			t.Fatalf("%s with a byte more: %v", s.name, err)
		}
		for i := range data {
			for _, flip := range []byte{0x01, 0x04, 0x10, 0x80, 0xff} {
				data[i] ^= flip
				if err := chunk.Decode(data, &c); err != nil && c.Len() != 0 {
					t.Fatalf("%s changed at %d: rows are left after %v", s.name, i, err)
				}
				data[i] ^= flip
			}
		}
	}
}

// TestMemory gives a fresh Decoder what claims to be much larger than it is.
func TestMemory(t *testing.T) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := w.EncodeAll(make([]byte, 64<<20), nil)[4:]
	wide := []byte{0x00, 0xff, 0x01, 0x00, 0x00} // a window of 3.75 TiB, an empty last block
	text := func(frame []byte) []byte {
		const rows, size = 1, 100
		data := []byte{1, byte(holdfast.Text), rows, 0, 0, 0, 0, 2 * size & 0x7f, 1}
		data[7] |= 0x80
		n := len(frame)<<2 | 3
		data = append(data, byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14))
		return append(data, frame...)
	}
	for name, data := range map[string][]byte{
		"zstd bomb":   text(bomb),
		"zstd window": text(wide),
		"many rows":   {1, byte(holdfast.Integer), 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0},
		"one entry in 8,192 rows": append(append([]byte{1, byte(holdfast.Text), 0x80, 0x40, 0, 0, 1, 1, 0, 0x80, 0x80, 0x20},
			0x85, 0x03), 0, 0), // 256 KiB of 'a', 2 GiB in all rows
		"dictionary": {1, byte(holdfast.Text), 0x80, 0x40, 0, 0, 1, 0x80, 0x40, 0, 0x80, 0x80, 0x80, 0x01},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			var d chunk.Decoder
			var c chunk.Columns
			err := d.Decode(data, &c)
			runtime.ReadMemStats(&after)
			if err == nil || holdfast.KindOf(err) != holdfast.Invalid {
				t.Errorf("got %v", err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
				t.Errorf("%d bytes allocated for %d", n, len(data))
			} else {
				t.Logf("%d bytes allocated: %v", n, err)
			}
		})
	}
}

// TestLargest allocates no more than Decode promises for the largest chunk.
func TestLargest(t *testing.T) {
	c := &chunk.Columns{Type: holdfast.Text, Seqs: make([]uint64, chunk.MaxRows), Marks: make([]holdfast.Mark, chunk.MaxRows)}
	r := random(1)
	b := make([]byte, chunk.MaxBytes/chunk.MaxRows)
	for i := range chunk.MaxRows {
		for j := range b {
			b[j] = "abcdefgh"[r.IntN(8)]
		}
		c.Times = append(c.Times, int64(r.Uint64()))
		c.Texts = append(c.Texts, string(b))
		c.Seqs[i], c.Marks[i] = r.Uint64(), holdfast.Mark(r.Uint64())
	}
	data := roundTrip(t, c)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var d chunk.Decoder
	var got chunk.Columns
	if err := d.Decode(data, &got); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	columns := uint64(41*chunk.MaxRows + chunk.MaxBytes)
	working := uint64(2<<20 + chunk.MaxBytes + len(data))
	if n := after.TotalAlloc - before.TotalAlloc; n > columns+working {
		t.Errorf("%d bytes allocated, at most %d promised", n, columns+working)
	} else {
		t.Logf("%d bytes allocated for a chunk of %d", n, len(data))
	}
}

// TestConcurrent uses the pooled functions from several goroutines.
func TestConcurrent(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := random(uint64(g))
			for range 20 {
				c := draw(r)
				data, err := chunk.Encode(nil, c)
				if err != nil {
					t.Error(err)
					return
				}
				var got chunk.Columns
				if err := chunk.Decode(data, &got); err != nil {
					t.Error(err)
					return
				}
				for i := range c.Len() {
					if got.Reading(i) != c.Reading(i) {
						t.Errorf("row %d differs", i)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
