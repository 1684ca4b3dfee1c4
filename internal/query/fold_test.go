package query

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// drawn makes readings in order of time, close together and far apart, with equal
// times, around and before 1970.
func drawn(draw *rand.Rand, typ holdfast.ValueType, n int) (rows []holdfast.Reading) {
	t := draw.Int64N(4e12) - 2e12
	odd := []float64{math.NaN(), math.Inf(1), math.Copysign(0, -1), 0, 1e300, -1e-300}
	for range n {
		switch draw.IntN(6) {
		case 0:
		case 1:
			t += draw.Int64N(300e9)
		default:
			t += draw.Int64N(3e9)
		}
		var v holdfast.Value
		switch typ {
		case holdfast.Number:
			f := math.Round(draw.NormFloat64()*1000) / 10
			if draw.IntN(50) == 0 {
				f = odd[draw.IntN(len(odd))]
			}
			v = holdfast.NumberValue(f)
		case holdfast.Integer:
			v = holdfast.IntegerValue(int64(draw.Uint64()) >> draw.IntN(64))
		case holdfast.Boolean:
			v = holdfast.BooleanValue(draw.IntN(2) == 0)
		default:
			v = holdfast.TextValue(string(rune('a' + draw.IntN(26))))
		}
		rows = append(rows, holdfast.Reading{Time: t, Value: v})
	}
	return rows
}

// TestStoredMinutesChangeNothing: windows are the same bit for bit, in whatever runs
// the readings come, and whichever whole minutes come as what was stored of them.
func TestStoredMinutesChangeNothing(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 4))
	asked := []Aggregate{Count, Sum, Mean, Min, Max, First, Last}
	warsaw, err := ParseZone("Europe/Warsaw")
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		typ := []holdfast.ValueType{holdfast.Number, holdfast.Integer, holdfast.Boolean, holdfast.Text}[draw.IntN(4)]
		rows := drawn(draw, typ, 1+draw.IntN(800))
		req := Request{Every: []time.Duration{time.Second, time.Minute, 90 * time.Second, time.Hour, 0}[draw.IntN(5)], Aggregates: asked}
		if req.Every == 0 {
			req.Calendar = Calendar{Days: 1, Zone: warsaw}
		}
		p := req.plan()
		if !p.stored() {
			t.Fatal("these need no more than is stored")
		}
		want := windowsOf(p, nil, rows)
		same := func(how string, got []Window) {
			if !slices.EqualFunc(want, got, func(a, b Window) bool {
				for _, g := range asked {
					x, xok := a.Value(g)
					if y, yok := b.Value(g); !x.Same(y) || xok != yok {
						t.Logf("%s: %s of [%d, %d) is %v, want %v", how, g, a.Start, a.End, y, x)
						return false
					}
				}
				return a.Start == b.Start && a.End == b.End && a.firstAt == b.firstAt && a.lastAt == b.lastAt
			}) {
				t.Fatalf("%s: windows of %s, %v, differ", how, typ, req.Every)
			}
		}
		same("in runs", windowsOf(p, draw, rows))
		var got []Window
		f := fold{plan: p, typ: typ, emit: func(w *Window) bool { got = append(got, *w); return true }}
		for len(rows) > 0 {
			m := minuteOf(rows[0].Time)
			n := 1
			for n < len(rows) && minuteOf(rows[n].Time) == m {
				n++
			}
			if c := columnsOf(rows[:n]); p.fits(m) && draw.IntN(2) == 0 {
				s := c.Stretch(0, n)
				f.stretch(&s)
			} else {
				f.rows(c, 0, n)
			}
			rows = rows[n:]
		}
		f.end()
		same("with stored minutes", got)
	}
}

// fits reports whether the minute that begins at m lies whole in one window.
func (p *plan) fits(m int64) bool {
	_, _, last := p.ruler.around(m)
	return uint64(last)-uint64(m) >= uint64(chunk.Minute)-1
}

// TestWholeMinutes: where minutes may come as they are stored, each fits.
func TestWholeMinutes(t *testing.T) {
	since := time.Date(1973, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	for _, name := range []string{"Africa/Monrovia", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Europe/Amsterdam", "Pacific/Apia"} {
		zone, err := ParseZone(name)
		if err != nil {
			t.Fatal(err)
		}
		p := (&Request{Calendar: Calendar{Days: 1, Zone: zone}, Aggregates: []Aggregate{Mean}}).plan()
		if p.wholeMinutes(holdfast.Always) || !p.wholeMinutes(holdfast.Span{From: since, To: math.MaxInt64}) {
			t.Error(name, "may be asked by the minute at the wrong times")
		}
		for at := since; at < since+60*366*86400e9; { // the minutes around the ends of windows
			start, end, _ := p.ruler.around(at)
			if !p.fits(start) || start%chunk.Minute != 0 {
				t.Fatalf("%s: a window from %s", name, time.Unix(0, start))
			}
			at = end
		}
	}
	for every, want := range map[time.Duration]bool{time.Minute: true, time.Hour: true, time.Second: false, 90 * time.Second: false, 7 * time.Minute: true} {
		if p := (&Request{Every: every, Aggregates: []Aggregate{Mean}}).plan(); p.wholeMinutes(holdfast.Always) != want {
			t.Error(every)
		}
	}
	if p := (&Request{Every: time.Hour, Aggregates: []Aggregate{Stddev}}).plan(); p.wholeMinutes(holdfast.Always) {
		t.Error("what is stored does not say how far readings are spread")
	}
}

// TestFits: a minute is taken as a whole only where it lies in one window.
func TestFits(t *testing.T) {
	for every, want := range map[time.Duration]bool{
		time.Minute: true, time.Hour: true, 2 * time.Minute: true, time.Second: false, 90 * time.Second: false, 7 * time.Minute: true,
	} {
		p := (&Request{Every: every, Aggregates: []Aggregate{Mean}}).plan()
		if got := p.fits(60e9); got != want {
			t.Error(every, got)
		}
	}
	p := (&Request{Every: 90 * time.Second, Aggregates: []Aggregate{Mean}}).plan()
	if !p.fits(0) || !p.fits(120e9) {
		t.Error("the first and the third minute of 90 s windows lie in one")
	}
	// Amsterdam was 19 minutes and 32 seconds ahead until 1937.
	amsterdam, err := ParseZone("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	p = (&Request{Calendar: Calendar{Days: 1, Zone: amsterdam}, Aggregates: []Aggregate{Mean}}).plan()
	start, _, _ := p.ruler.around(time.Date(1920, 1, 10, 12, 0, 0, 0, time.UTC).UnixNano())
	if m := minuteOf(start); m != start && p.fits(m) {
		t.Error("a minute that midnight divides")
	}
}
