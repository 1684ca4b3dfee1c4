package demo

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

// row is a reading as a query or a feed writes it in a line.
type row struct {
	Device string
	Stream string
	Time   string
	Seq    uint64
	Value  json.RawMessage
	Cursor string
}

func (r row) key() string {
	return fmt.Sprint(r.Device, " ", r.Stream, " ", r.Time, " ", r.Seq, " ", string(r.Value))
}

// rows reads readings from lines until one is enough, and returns whether it was.
func rows(body io.Reader, take func(row) (enough bool)) (bool, error) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return false, err
		}
		if take(r) {
			return true, nil
		}
	}
	return false, lines.Err()
}

// hangUpAfter is how many readings a follower takes on his first connection: then he
// hangs up, and goes on from his cursor.
const hangUpAfter = 200

// follower follows the speed of the couriers' vans, and notes each reading that comes.
type follower struct {
	who    *client.Client
	query  url.Values
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	got    map[string]int // how often each reading came
	all    int
	cursor string
	news   chan struct{}
}

// follow returns when the feed is open: what is sent from now on comes live.
func follow(ctx context.Context, who *client.Client, query url.Values) (*follower, error) {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{who: who, query: query, cancel: cancel, ended: make(chan error, 1), got: map[string]int{}, news: make(chan struct{}, 1)}
	body, err := f.open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	go func() { f.ended <- f.run(ctx, body) }()
	return f, nil
}

func (f *follower) open(ctx context.Context) (io.ReadCloser, error) {
	q := maps.Clone(f.query)
	q.Set("format", "ndjson")
	q.Set("from", "-1h") // what is stored comes first
	if f.cursor != "" {
		q.Set("after", f.cursor)
	}
	body, _, err := f.who.Stream(ctx, http.MethodGet, "/v1/feed", q, nil)
	return body, err
}

func (f *follower) run(ctx context.Context, body io.ReadCloser) error {
	for {
		hungUp, err := rows(body, f.take)
		body.Close()
		switch {
		case ctx.Err() != nil:
			return nil
		case !hungUp:
			return cmp.Or(err, error(holdfast.Errorf(holdfast.Unavailable, "the feed ended")))
		}
		if body, err = f.open(ctx); err != nil {
			return err
		}
	}
}

// take notes a reading, and returns whether to hang up now.
func (f *follower) take(r row) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cursor = r.Cursor
	if r.Stream == "" {
		return false // nothing new, only the cursor
	}
	f.got[r.key()]++
	f.all++
	select {
	case f.news <- struct{}{}:
	default:
	}
	return f.all == hangUpAfter
}

// followedWithin is how long the last reading may take to come.
const followedWithin = 10 * time.Second

// same waits until as many readings have come as a query gives, and checks that they
// are the same ones.
func (f *follower) same(ctx context.Context) (int, error) {
	want := map[string]int{}
	n := 0
	if err := read(ctx, f.who, f.query, func(r row) { want[r.key()]++; n++ }); err != nil {
		return 0, err
	}
	late := time.NewTimer(followedWithin)
	defer late.Stop()
	for {
		f.mu.Lock()
		all, same := f.all, maps.Equal(f.got, want)
		f.mu.Unlock()
		if all >= n {
			if n == 0 || !same {
				return 0, holdfast.Errorf(holdfast.Internal, "%d readings came, and they are not the %d that a query gives", all, n)
			}
			return n, nil
		}
		select {
		case <-f.news:
		case err := <-f.ended:
			f.ended <- err
			return 0, cmp.Or(err, ctx.Err())
		case <-late.C:
			return 0, holdfast.Errorf(holdfast.Internal, "%d readings of %d came", all, n)
		}
	}
}

func (f *follower) stop() {
	if f != nil {
		f.cancel()
		<-f.ended
	}
}

// share has the couriers let the maker have the speed of their vans, and both follow
// it: what is there already, and then what comes.
func (t *teller) share(ctx context.Context, start time.Time) (err error) {
	if t.couriers, err = t.hub.invite(ctx, t.hub.people[couriers]); err != nil {
		return err
	}
	grant := map[string]any{"recipient": operator, "purpose": string(holdfast.Operation), "streams": []string{"speed"}, "until": "+30d"}
	if err := t.couriers.Do(ctx, http.MethodPost, "/v1/grants", grant, nil); err != nil {
		return fmt.Errorf("make grant: %w", err)
	}
	// What no device has said anything of yet, a recipient can't ask for.
	parked := fmt.Sprintf(`{"t":%d,"v":0}`, start.Add(-time.Minute).Unix())
	for _, van := range []string{"van-1", "van-2"} {
		if err := t.hub.say(ctx, van, "data/speed", parked); err != nil {
			return fmt.Errorf("send first reading: %w", err)
		}
	}
	speed := url.Values{"owner": {t.hub.people[couriers]}, "stream": {"speed"}}
	if t.owner, err = follow(ctx, t.couriers, speed); err != nil {
		return fmt.Errorf("follow own vans: %w", err)
	}
	if t.maker, err = follow(ctx, t.hub.admin, speed); err != nil {
		return fmt.Errorf("follow as maker: %w", err)
	}
	return nil
}

// bothFollowed checks what came to the couriers and to the maker.
func (t *teller) bothFollowed(ctx context.Context) (string, error) {
	n, err := t.owner.same(ctx)
	if err != nil {
		return "", fmt.Errorf("the couriers: %w", err)
	}
	m, err := t.maker.same(ctx)
	if err != nil {
		return "", fmt.Errorf("the maker: %w", err)
	}
	if n != m {
		return "", holdfast.Errorf(holdfast.Internal, "the couriers got %d readings, the maker %d", n, m)
	}
	var delays []struct {
		Reader   string
		Readings int
		P50      float64 `json:"p50_ms"`
		P99      float64 `json:"p99_ms"`
	}
	if err := t.hub.admin.Do(ctx, http.MethodGet, "/v1/feed/delay", nil, &delays); err != nil {
		return "", err
	}
	text := fmt.Sprintf("each got the same %d that a query gives, no gap and none twice, though both hung up once", n)
	rush := ""
	if t.hub.rush {
		rush = ", in the rush"
	}
	for _, d := range delays {
		who := map[string]string{"owner": "couriers", "administrator": "maker"}[d.Reader]
		text += fmt.Sprintf("\n    from durable to sent, to the %s%s: half within %.1f ms, 99 %% within %.1f ms", who, rush, d.P50, d.P99)
	}
	return text, nil
}
