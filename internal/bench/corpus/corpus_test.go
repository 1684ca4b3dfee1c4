package corpus

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/lineproto"
)

func small() Corpus {
	return Corpus{Seed: 7, Devices: 3, Kinds: Mixed(), From: time.UnixMilli(1772366400000), Every: time.Second, Steps: 5000, Gaps: true}
}

// TestLines reads the lines back with the hub's own reader: they say what the
// points do, and the sums add up.
func TestLines(t *testing.T) {
	c := small()
	load := c.Load(Texts, 1000)
	var points []Point
	for p := range c.Points() {
		points = append(points, *p)
	}
	if load.Points != len(points) {
		t.Fatalf("the load has %d points, the corpus %d", load.Points, len(points))
	}
	if whole := c.Devices * len(c.Kinds) * c.Steps; len(points) >= whole || len(points) < whole*9/10 {
		t.Errorf("of %d readings %d are left by the gaps", whole, len(points))
	}
	sums := map[Kind]Sum{}
	n := 0
	for _, body := range load.Bodies {
		for got, err := range lineproto.Decode(body, lineproto.Millisecond) {
			if err != nil {
				t.Fatal(err)
			}
			want := points[n]
			n++
			device, _ := got.Tag("device")
			stream, err := got.Stream(&got.Fields[0])
			if err != nil || stream != want.Kind.Stream() || string(device) != Name(want.Device) || got.Time != want.Millis*1e6 {
				t.Fatalf("line %d is of %s, %s at %d: %v", n, device, stream, got.Time, err)
			}
			v := got.Fields[0].Value
			value := v.Number()
			if want.Kind == State {
				value = float64(slices.Index(Words(), v.Text()))
			}
			if value != want.Value {
				t.Fatalf("line %d says %v instead of %v", n, value, want.Value)
			}
			sums[want.Kind] = Sum{sums[want.Kind].Count + 1, sums[want.Kind].Total + value}
		}
	}
	for k, want := range load.Sums {
		if got := sums[k]; got != want || !want.Close(float64(got.Count), got.Mean()) || want.Close(float64(got.Count)+1, got.Mean()) {
			t.Errorf("%s: %+v instead of %+v", k, got, want)
		}
	}
}

// TestForms has the same readings in each form, each time it is made.
func TestForms(t *testing.T) {
	c := small()
	numbers, again := c.Load(Numbers, 999), c.Load(Numbers, 999)
	for i, body := range numbers.Bodies {
		if !bytes.Equal(body, again.Bodies[i]) {
			t.Fatalf("body %d differs the second time", i)
		}
		if bytes.ContainsRune(body, '"') {
			t.Fatalf("body %d holds a text", i)
		}
	}
	rows := c.Load(Rows, 999)
	if len(rows.Rows) != len(numbers.Bodies) {
		t.Fatalf("%d batches of rows, %d of lines", len(rows.Rows), len(numbers.Bodies))
	}
	for i, batch := range rows.Rows {
		var lines []byte
		for j := range batch {
			lines = batch[j].AppendLine(lines, false)
		}
		if !bytes.Equal(lines, numbers.Bodies[i]) {
			t.Fatalf("batch %d is not the lines", i)
		}
	}
}

func TestNames(t *testing.T) {
	for _, k := range Mixed() {
		if err := holdfast.CheckName("stream", k.Stream()); err != nil || !strings.HasPrefix(k.Stream(), Measurement) {
			t.Errorf("%s: %v", k.Stream(), err)
		}
	}
	if Name(0) == Name(1) || Name(9999) != "unit-9999" {
		t.Errorf("names are %s, %s, %s", Name(0), Name(1), Name(9999))
	}
}
