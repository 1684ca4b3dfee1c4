package query_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// underWay is an erasure that is being carried out: it touches everything, so that
// nothing comes as it is stored, and hides what lies in its span.
type underWay struct{ hidden holdfast.Span }

func (e underWay) Hides(_ holdfast.AssignmentID, _ holdfast.StreamID, at int64) bool {
	return e.hidden.Contains(at)
}
func (underWay) Touches(holdfast.AssignmentID, holdfast.StreamID, holdfast.Span) bool { return true }
func (underWay) Begun() uint64                                                        { return 0 }
func (underWay) BegunSince(uint64, holdfast.AssignmentID, holdfast.StreamID, holdfast.Span) bool {
	return false
}

// windows asks for all aggregates that are stored of minutes.
func windows(t *testing.T, h *querytest.House, q *query.Query, req query.Request) (all []string) {
	t.Helper()
	req.Who = h.Admin
	req.Aggregates = []query.Aggregate{query.Count, query.Sum, query.Mean, query.Min, query.Max, query.First, query.Last}
	res, err := q.Read(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for row, err := range res.Rows {
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(row.DeviceName, " ", row.Stream, " ", row.Window.Start)
		for _, a := range req.Aggregates {
			v, ok := row.Window.Value(a)
			text += fmt.Sprintf(" %s=%d/%x/%d/%t/%t", a, v.Type(), math.Float64bits(v.Number()), v.Integer(), v.Boolean(), ok)
		}
		all = append(all, text)
	}
	return all
}

// TestStoredMinutesAnswerAsTheReadingsDo: bit for bit, through the whole way out.
func TestStoredMinutesAnswerAsTheReadingsDo(t *testing.T) {
	h := querytest.Build(t)
	dev := h.Device(custody.DeviceSpec{Label: "press"})
	const rows = 3 * 3600
	for i := 0; i < rows; {
		var batch []holdfast.Sample
		for range 2000 {
			at := time.Duration(i)*time.Second + time.Duration(i*i%7-3)*time.Millisecond
			batch = append(batch, number("load", at, math.Round(2000+500*math.Sin(float64(i)/50)*float64(i%13))/100))
			batch = append(batch, holdfast.Sample{Stream: "pieces", Timed: true, Time: noon.Add(at).UnixNano(), Value: holdfast.IntegerValue(int64(i * i))})
			i++
		}
		h.Send(dev, batch...)
	}
	h.Roll()
	h.Send(dev, number("load", 50*time.Minute, 4)) // late: it is in the tail, within a chunk
	ask := query.Request{Selection: query.Selection{Device: dev.ID}}
	for _, every := range []time.Duration{time.Second * 30, time.Minute, 7 * time.Minute, time.Hour} {
		for _, to := range []time.Duration{time.Hour, 2*time.Hour + 17*time.Second} {
			ask.Every, ask.Span = every, holdfast.Span{From: noon.UnixNano(), To: noon.Add(to).UnixNano()}
			clear := query.New(h.Custody, h.Register, h.Series, query.Options{Now: h.Now, Erasures: underWay{holdfast.Span{From: 1, To: 0}}})
			want, got := windows(t, h, clear, ask), windows(t, h, h.Query, ask)
			if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
				t.Errorf("%s of %s: %d windows (-read +stored):\n%s", every, to, len(want), diff)
			}
			// What is being erased shows in no window, stored or not.
			half := holdfast.Span{From: noon.Add(20 * time.Minute).UnixNano(), To: math.MaxInt64}
			hiding := query.New(h.Custody, h.Register, h.Series, query.Options{Now: h.Now, Erasures: underWay{half}})
			ask.Span.To = half.From - 1
			want = windows(t, h, h.Query, ask)
			ask.Span.To = noon.Add(to).UnixNano()
			if diff := cmp.Diff(want, windows(t, h, hiding, ask)); diff != "" {
				t.Errorf("%s of %s: what is hidden shows (-without +hidden):\n%s", every, to, diff)
			}
		}
	}
}
