package series

import (
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// What is withheld of a month is seen by no scan, whether it lies in a chunk or in the
// journal still, and is weighed all the same.
func TestAMonthIsWithheldInTheJournalToo(t *testing.T) {
	r := newRig(t, Options{})
	const month = 31 * 86400e9
	o := of{alice, testStream(1)}
	first, next := int64(testArrival), int64(testArrival)+month
	gone := seal.BucketOf(first, false).Month()
	r.send(o.a, o.s, first, number(first-3e9, 1), number(first-2e9, 2))
	for _, rolled := range []bool{false, true} {
		if rolled {
			r.roll()
		} else {
			r.send(o.a, o.s, next, number(next, 3))
		}
		for _, c := range []struct {
			hides     func(Cell) bool
			rows, all uint64
		}{
			{func(Cell) bool { return false }, 3, 2},
			{func(c Cell) bool { return c.Bucket.Month() == gone }, 1, 2},
			{func(c Cell) bool { return c.Bucket.Month() == gone && c.Stream != o.s }, 3, 2},
		} {
			r.Withhold(c.hides)
			if rows := r.scan(o, holdfast.Always); uint64(len(rows)) != c.rows {
				t.Errorf("rolled %v: %d rows are seen, not %d", rolled, len(rows), c.rows)
			}
			if x, err := r.Extent(t.Context(), o.a, o.s, 0); err != nil || x.Rows != c.rows {
				t.Errorf("rolled %v: an extent of %d rows, not %d: %v", rolled, x.Rows, c.rows, err)
			}
			w, err := r.Weigh(t.Context(), o.a, o.s, holdfast.Always, gone)
			if err != nil || w.Rows != c.all || w.First != first-3e9 || w.Last != first-2e9 {
				t.Errorf("rolled %v: the month is weighed as %+v, %v", rolled, w, err)
			}
		}
		r.Withhold(func(Cell) bool { return false })
	}
}
