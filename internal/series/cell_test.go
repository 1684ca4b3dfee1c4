package series

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// drawCell draws readings of one cell in order of arrival.
func drawCell(r *rand.Rand) []holdfast.Reading {
	types := []holdfast.ValueType{holdfast.Number, holdfast.Integer, holdfast.Boolean, holdfast.Location, holdfast.Text}
	first, mixed, equal := types[r.IntN(len(types))], r.IntN(6) == 0, r.IntN(3) == 0
	rows := make([]holdfast.Reading, 1+r.IntN(300))
	for i := range rows {
		t := first
		if mixed && r.IntN(20) == 0 {
			t = types[r.IntN(len(types))]
		}
		x := &rows[i]
		x.Time = int64(i)*1e6 + r.Int64N(20)*3e5*int64(i%2) + int64(i)
		if equal {
			x.Time = r.Int64N(100)
		}
		if r.IntN(4) == 0 {
			x.Seq = r.Uint64N(5)
		}
		if r.IntN(9) == 0 {
			x.Mark = holdfast.Clock
		}
		switch t {
		case holdfast.Number:
			x.Value = holdfast.NumberValue([]float64{21.5, math.Copysign(0, -1), math.NaN(), math.Inf(1), r.NormFloat64()}[r.IntN(5)])
		case holdfast.Integer:
			x.Value = holdfast.IntegerValue([]int64{0, math.MinInt64, math.MaxInt64, r.Int64()}[r.IntN(4)])
		case holdfast.Boolean:
			x.Value = holdfast.BooleanValue(r.IntN(2) == 0)
		case holdfast.Location:
			x.Value = holdfast.LocationValue(holdfast.Position{Latitude: r.Float64(), Longitude: r.Float64(), Altitude: math.NaN()})
		case holdfast.Text:
			x.Value = holdfast.TextValue([]string{"", "open", "closed"}[r.IntN(3)])
		}
	}
	return rows
}

// Columns in order are the rows in order, or say that they can't tell.
func TestCellOrder(t *testing.T) {
	seed := testseed.Of(t)
	r := rand.New(rand.NewPCG(seed, 0))
	var s sorter
	var c sliceCell
	var inColumns int
	for range 2000 {
		rows := drawCell(r)
		for i := range rows {
			if err := c.add(&rows[i], journal.Pos(i)); err != nil {
				t.Fatal(err)
			}
		}
		want := slices.Clone(rows)
		sortByTime(want)
		distinct := true
		for i := 1; i < len(want); i++ {
			distinct = distinct && want[i].Time != want[i-1].Time
		}
		var got []holdfast.Reading
		if c.columns.Len() > 0 {
			ordered, at, ok := s.order(&c.columns, c.at)
			if ok != distinct {
				t.Fatalf("seed %d: order says %t of readings with distinct times: %t", seed, ok, distinct)
			}
			if ok {
				inColumns++
				for i := range ordered.Len() {
					got = append(got, ordered.Reading(i))
					if rows[at[i]] != got[i] {
						t.Fatalf("seed %d: row %d in order of time did not come as number %d", seed, i, at[i])
					}
				}
			} else {
				c.toRows()
			}
		}
		if got == nil {
			for _, x := range c.sorted() {
				got = append(got, c.rows[x.row])
				if rows[c.at[x.row]] != c.rows[x.row] {
					t.Fatalf("seed %d: row %d did not come as number %d", seed, x.row, c.at[x.row])
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %s", seed, cmp.Diff(want, got, cmp.AllowUnexported(holdfast.Value{})))
		}
		c.wipe()
	}
	if inColumns < 300 {
		t.Errorf("only %d of 2000 cells went through columns", inColumns)
	}
}

// A packer makes the same chunks of columns as of their rows.
func TestPackColumns(t *testing.T) {
	r := newRig(t, Options{})
	c := seal.NewCipher(seal.NewKey())
	for _, step := range []int64{1e9, 1e8, 3e7, 60e9} {
		for _, n := range []int{1, 100, chunk.MaxRows - 1, chunk.MaxRows, chunk.MaxRows + 1, 2*chunk.MaxRows + 77, 3 * chunk.MaxRows} {
			var whole chunk.Columns
			whole.Reset(holdfast.Integer)
			a, b := packer{out: &output{s: r.Series}}, packer{out: &output{s: r.Series}}
			a.begin(Cell{}, c, 1, holdfast.Span{})
			b.begin(Cell{}, c, 1, holdfast.Span{})
			for i := range n {
				x := holdfast.Reading{Time: 1e18 + int64(i)*step, Value: holdfast.IntegerValue(int64(i))}
				if err := whole.Append(x); err != nil {
					t.Fatal(err)
				}
				if err := a.add(t.Context(), x, journal.Pos(i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := b.addColumns(t.Context(), &whole, make([]journal.Pos, n)); err != nil {
				t.Fatal(err)
			}
			extents := func(p *packer) (all []extent) {
				for _, row := range p.out.rows {
					all = append(all, row.extent)
				}
				return all
			}
			if got, want := extents(&b), extents(&a); !slices.Equal(got, want) {
				t.Errorf("%d readings each %d ns: %v, one by one %v", n, step, got, want)
			}
		}
	}
}
