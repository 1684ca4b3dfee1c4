package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// feedInput asks for a feed: the selection of readingsInput, and where to begin.
type feedInput struct {
	Device  string `query:"device" doc:"A label or an id; * for all devices of the owner."`
	Stream  string `query:"stream" doc:"A name; without a device, the streams of that name of all devices of the owner."`
	Owner   string `query:"owner" doc:"A name or an id: all of that party; default the caller's own."`
	After   string `query:"after" maxLength:"1024" doc:"The cursor of what was had last: it goes on behind that."`
	From    string `query:"from" doc:"First what is stored with times from here on: RFC 3339, a date, or -2h; default from now on. With after it is not looked at."`
	Purpose string `query:"purpose" doc:"Why; may be left out by who holds one."`
	Grant   string `query:"grant" doc:"The grant to read under; default whichever fits."`
	Format  string `query:"format" enum:"sse,ndjson" doc:"Default: what Accept asks for, else sse."`
	Accept  string `header:"Accept" hidden:"true"`
	Last    string `header:"Last-Event-ID" maxLength:"1024" doc:"As after: what an EventSource sends when it comes again."`
}

const (
	mediaEvents = "text/event-stream"
	mediaLines  = "application/x-ndjson"
)

func (a *API) feeds() {
	rule := rule{needs: access.ScopeRead, slow: true}
	stream(a, route{method: "GET", path: "/v1/feed", summary: "Follow readings as they come, without an end.", rule: rule}, []string{mediaEvents, mediaLines},
		func(w http.ResponseWriter, r *http.Request, by access.Principal, in *feedInput) error {
			return a.maybeErasing(r.Context(), by, a.follow(w, r, by, in))
		})
	handle(a, route{method: "GET", path: "/v1/feed/delay", summary: "How long readings took from being durable to being written to who follows, by who reads.", rule: reads()},
		func(_ context.Context, by access.Principal, _ *nothing) (*reply[[]FeedDelay], error) {
			all := a.delays.last(time.Now())
			for i := range all {
				if by.Role != access.Administrator && by.Role != access.Auditor {
					all[i].Readings = 0
				}
			}
			return &reply[[]FeedDelay]{all}, nil
		})
}

func (in *feedInput) events() (bool, error) {
	if in.Format != "" {
		return in.Format == "sse", nil
	}
	for part := range strings.SplitSeq(in.Accept, ",") {
		switch media, _, _ := mime.ParseMediaType(strings.TrimSpace(part)); media {
		case mediaEvents, "*/*", "text/*", "":
			return true, nil
		case mediaLines, "application/*":
			return false, nil
		}
	}
	return false, problem(http.StatusNotAcceptable, "a feed comes as "+mediaEvents+" or "+mediaLines)
}

// question is the Follow that is asked for.
func (a *API) question(ctx context.Context, by access.Principal, in *feedInput) (f query.Follow, err error) {
	f = query.Follow{Who: by, Purpose: holdfast.Purpose(in.Purpose), After: cmp.Or(in.Last, in.After)}
	if in.From != "" {
		if f.From, err = ParseTime(in.From, time.Now(), false); err != nil {
			return f, err
		}
	}
	if in.Purpose != "" {
		if err := holdfast.CheckName("purpose", in.Purpose); err != nil {
			return f, err
		}
		if f.Purpose != holdfast.OwnAccess && !a.Grants.Live(ctx, f.Purpose) {
			return f, holdfast.Errorf(holdfast.Denied, "the purpose does not exist or has ended")
		}
	}
	if in.Grant != "" {
		if f.Grant, err = holdfast.ParseID[holdfast.GrantID](in.Grant); err != nil {
			return f, err
		}
	}
	f.Selection, err = a.selection(ctx, by, &readingsInput{Device: in.Device, Stream: in.Stream, Owner: in.Owner})
	return f, err
}

func (a *API) follow(w http.ResponseWriter, r *http.Request, by access.Principal, in *feedInput) error {
	events, err := in.events()
	if err != nil {
		return err
	}
	f, err := a.question(r.Context(), by, in)
	if err != nil {
		return err
	}
	party, err := a.feedParties.take(by.Party)
	if err != nil {
		return err
	}
	defer party()
	own, err := a.feedSlots.take(by.Credential)
	if err != nil {
		return err
	}
	defer own()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	feed, err := a.Query.Follow(ctx, f)
	if err != nil {
		return err
	}
	defer feed.Close()
	if err := a.sayErasing(ctx, by, w.Header()); err != nil {
		return err
	}
	out := &tail{sink: newSink(w, r, min(a.Limits.StreamStall, feedStall)), events: events, began: time.Now().UnixNano(), role: by.Role, by: by.Credential, delays: a.delays}
	if a.Ending != nil {
		ended := make(chan struct{})
		defer close(ended)
		go func() { // it ends with this function
			select {
			case <-a.Ending:
				cancel(holdfast.Errorf(holdfast.Unavailable, "the hub ends: come again with the cursor"))
			case <-ended:
			}
		}()
	}
	defer out.watch(ctx, func(context.Context) error { return a.stillHis(by, ctx, cancel) })()
	return a.giveFeed(w, ctx, out, feed)
}

// stillHis ends a feed whose credential has ended: first with the reason, and if its
// reader does not take that, at once.
func (a *API) stillHis(by access.Principal, ctx context.Context, cancel context.CancelCauseFunc) error {
	err := a.Access.Live(by)
	if err == nil {
		return nil
	}
	if ctx.Err() == nil {
		cancel(holdfast.Errorf(holdfast.Denied, "the credential was revoked or has expired"))
		time.Sleep(endWithin)
	}
	return err
}

// feedStall is how long a feed waits for a reader that takes nothing.
const feedStall = 30 * time.Second

// endWithin is how long the last word of a feed may take to be sent.
const endWithin = 500 * time.Millisecond

// giveFeed writes the items until the feed ends, and then why.
func (a *API) giveFeed(w http.ResponseWriter, ctx context.Context, out *tail, feed *query.Feed) error {
	defer out.stop()
	stall := out.stall
	cut := func() {
		if out.isStuck() { // there is no way left to tell him
			feed.Cut()
			a.Logger.InfoContext(ctx, "a feed was cut: its reader took nothing", "for", stall, "credential", out.by)
		}
	}
	out.headers(w.Header())
	if err := out.begin(); err != nil {
		return nil // the reader has gone
	}
	var why error
	for item, err := range feed.Items {
		if err == nil {
			err = out.item(item)
			if err != nil {
				cut()
				return nil // the reader has gone
			}
			if item.Row != nil {
				a.metrics.rows.Inc()
			}
			continue
		}
		why = err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		why = cause
	}
	p := problemOf(cmp.Or(why, error(holdfast.Errorf(holdfast.Unavailable, "the feed ended: come again with the cursor"))))
	a.report(ctx, p, why)
	cut()
	out.end(p)
	return nil
}

// tail writes a feed. What comes alone is sent at once; what comes together, together.
type tail struct {
	*sink
	events bool
	began  int64 // when the feed did, ns: what is older says nothing of delay
	role   access.Role
	by     holdfast.CredentialID
	delays *delays

	mu      sync.Mutex
	line    jsonRows
	buf     []byte
	sent    time.Time // when it was last flushed
	waiting []int64   // when what waits to be sent became durable
	timer   *time.Timer
	failed  error
	stopped bool
}

// togetherFor is how long a reading waits for others when some were sent just before.
const togetherFor = 5 * time.Millisecond

func (t *tail) headers(h http.Header) {
	h.Set("Content-Type", mediaLines)
	if t.events {
		h.Set("Content-Type", mediaEvents)
	}
	h.Set("X-Accel-Buffering", "no") // a proxy that would gather it
}

// begin sends the head, so that a reader knows that he is let in.
func (t *tail) begin() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.events {
		if _, err := t.sink.Write([]byte("retry: 2000\n\n")); err != nil {
			return err
		}
	}
	return t.send()
}

func (t *tail) item(i query.Item) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return t.failed
	}
	b := t.buf[:0]
	if i.Reset != "" {
		b = t.word(b, "reset", "reset", appendString(nil, i.Reset), i.Cursor)
	}
	if i.Row == nil && i.Reset == "" {
		b = t.idle(b, i.Cursor)
	} else if i.Row != nil {
		b = t.row(b, &i)
		if i.Arrived >= t.began {
			t.waiting = append(t.waiting, i.Arrived)
		}
	}
	t.buf = b
	if _, err := t.sink.Write(b); err != nil {
		return err
	}
	if rest := togetherFor - time.Since(t.sent); rest <= 0 || len(t.waiting) >= mostWaiting {
		return t.send()
	} else if t.timer == nil {
		t.timer = time.AfterFunc(rest, t.later)
	}
	return nil
}

// mostWaiting bounds what is remembered of readings that wait.
const mostWaiting = 256

// later sends what has waited long enough.
func (t *tail) later() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer = nil; !t.stopped && t.failed == nil {
		t.failed = t.send()
	}
}

// send hands all on to the network. t.mu is held.
func (t *tail) send() error {
	if err := t.sink.flush(); err != nil {
		return err
	}
	t.sent = time.Now()
	t.sink.rest()
	t.delays.observe(t.role, t.sent, t.waiting)
	t.waiting = t.waiting[:0]
	return nil
}

func (t *tail) row(b []byte, i *query.Item) []byte {
	if t.line.of != i.Row.Source {
		t.line.of, t.line.head = i.Row.Source, appendHead(t.line.head[:0], i.Row.Source, 0)
	}
	if t.events {
		b = append(append(append(b, "event: reading\nid: "...), i.Cursor...), "\ndata: "...)
		return append(t.line.reading(append(b, t.line.head...), i.Row.Reading), "}\n\n"...)
	}
	b = t.line.reading(append(b, t.line.head...), i.Row.Reading)
	return append(appendString(append(b, `,"cursor":`...), i.Cursor), "}\n"...)
}

// idle moves the cursor on: an event without data is none, but its id counts.
func (t *tail) idle(b []byte, cursor string) []byte {
	if t.events {
		return append(append(append(b, ": idle\nid: "...), cursor...), "\n\n"...)
	}
	return append(appendString(append(b, `{"idle":true,"cursor":`...), cursor), "}\n"...)
}

// word appends what is no reading.
func (t *tail) word(b []byte, event, field string, data []byte, cursor string) []byte {
	if t.events {
		b = append(append(append(b, "event: "...), event...), '\n')
		if cursor != "" {
			b = append(append(append(b, "id: "...), cursor...), '\n')
		}
		return append(append(append(append(append(b, `data: {"`...), field...), `":`...), data...), "}\n\n"...)
	}
	b = append(append(append(append(b, `{"`...), field...), `":`...), data...)
	if cursor != "" {
		b = appendString(append(b, `,"cursor":`...), cursor)
	}
	return append(b, "}\n"...)
}

// end says why there is no more. What was not sent yet is dropped where the right to
// it has ended.
func (t *tail) end(p *Problem) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if kindOf(p.Status) == holdfast.Denied {
		t.sink.forget()
	}
	text, err := json.Marshal(p)
	if err != nil {
		return
	}
	t.sink.stall = min(t.sink.stall, endWithin)
	if _, err := t.sink.Write(t.word(nil, "end", "end", text, "")); err == nil {
		t.sink.flush() // who does not take it has gone
	}
}

func (t *tail) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
	}
}
