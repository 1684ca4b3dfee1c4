package query_test

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// reader takes the items of a feed one by one.
type reader struct {
	t      testing.TB
	feed   *query.Feed
	next   func() (query.Item, error, bool)
	stop   func()
	cursor string
	resets int
}

func follow(t testing.TB, h *querytest.House, f query.Follow) *reader {
	t.Helper()
	feed, err := h.Query.Follow(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, feed: feed}
	r.next, r.stop = iter.Pull2(feed.Items)
	t.Cleanup(r.close)
	return r
}

func (r *reader) close() {
	r.stop()
	if err := r.feed.Close(); err != nil && r.t.Context().Err() == nil {
		r.t.Error(err)
	}
}

// rows takes n readings.
func (r *reader) rows(n int) (all []string) {
	r.t.Helper()
	for len(all) < n {
		item, err, ok := r.next()
		if err != nil || !ok {
			r.t.Fatalf("the feed ended after %q: %v", all, err)
		}
		r.cursor = item.Cursor
		if item.Reset != "" {
			r.resets++
		}
		if item.Row != nil {
			all = append(all, say(item.Row))
		}
	}
	return all
}

func say(r *query.Row) string {
	return fmt.Sprintf("%s %d %v", r.Stream, r.Time, r.Value)
}

// quiet takes items until one comes without a reading.
func (r *reader) quiet() (all []string) {
	r.t.Helper()
	for {
		item, err, ok := r.next()
		if err != nil || !ok {
			r.t.Fatalf("the feed ended after %q: %v", all, err)
		}
		r.cursor = item.Cursor
		if item.Row == nil {
			return all
		}
		all = append(all, say(item.Row))
	}
}

// ends takes items until the feed ends with an error.
func (r *reader) ends() error {
	r.t.Helper()
	for range 1000 {
		if _, err, ok := r.next(); err != nil || !ok {
			return err
		}
	}
	r.t.Fatal("the feed does not end")
	return context.Canceled
}

func TestFollow(t *testing.T) {
	h := querytest.Build(t)
	anna := h.Party("Anna Kowalska")
	d := h.Device(custody.DeviceSpec{Label: "thermo", Owner: anna.Party})
	zero := h.Now()
	send := func(n int) string {
		h.Send(d, querytest.At("temp", zero.Add(time.Duration(n)*time.Second), holdfast.NumberValue(float64(n))))
		return fmt.Sprintf("temp %d %v", zero.Add(time.Duration(n)*time.Second).UnixNano(), holdfast.NumberValue(float64(n)))
	}
	send(0)
	r := follow(t, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, Idle: time.Second})
	for n := 1; n < 5; n++ {
		want := send(n)
		if got := r.rows(1); got[0] != want {
			t.Errorf("got %s, want %s", got[0], want)
		}
	}
	r.close()
	want := []string{send(5), send(6)}
	send(6)
	r = follow(t, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, After: r.cursor, Idle: 100 * time.Millisecond})
	if got := r.quiet(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after the cursor came %q, want %q", got, want)
	}
	r = follow(t, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}, From: zero.UnixNano(), Idle: 100 * time.Millisecond})
	if got := r.quiet(); len(got) != 7 {
		t.Errorf("from the beginning came %q", got)
	}
}
