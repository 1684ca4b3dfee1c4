package client

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// FeedOptions says what to follow, and from where.
type FeedOptions struct {
	Device, Stream, Owner string // names or ids, as /v1/feed takes them
	Purpose               string // "": the only one that the credential holds
	Grant                 string
	// After is the cursor of the last item that was dealt with: it goes on behind that.
	After string
	// From asks, without After, first for what is stored with times from here on, as
	// -1h or RFC 3339; "": from now on.
	From string
}

// FeedItem is a reading that came, or the word that there is none.
type FeedItem struct {
	Device string // its id
	Label  string // what it is called, where the reader may know that
	Stream string
	Unit   string
	holdfast.Reading

	// Idle: there is nothing new, and Cursor is all there is.
	Idle bool
	// Reset is not empty where the cursor was too old to be gone on from exactly: it
	// says why, and from where it goes on.
	Reset  string
	Cursor string
	Raw    []byte // the line as the hub wrote it
}

// Feed follows readings as they come, until ctx ends, the caller wants no more, or the
// hub refuses: that is the last error. When the connection breaks or the hub restarts it
// comes again by itself, from the last item that it gave: none is left out and none
// comes twice.
func (c *Client) Feed(ctx context.Context, o FeedOptions) iter.Seq2[FeedItem, error] {
	return func(yield func(FeedItem, error) bool) {
		pause, began := firstPause, time.Now()
		for {
			got, err := c.feedOnce(ctx, &o, yield)
			switch {
			case errors.Is(err, errEnough):
				return
			case ctx.Err() != nil:
				return
			case err != nil && !passing(err):
				yield(FeedItem{}, err)
				return
			}
			if got {
				pause = firstPause
			}
			if o.After == "" && o.From == "" { // it broke before there was a cursor
				o.From = began.UTC().Format(time.RFC3339Nano)
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			pause = min(2*pause, longestPause)
		}
	}
}

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 30 * time.Second
)

var errEnough = errors.New("the caller wants no more")

// passing reports whether an error may be over in a moment.
func passing(err error) bool {
	kind := holdfast.KindOf(err)
	return kind == holdfast.Unavailable || kind == holdfast.Internal
}

// maxFeedLine bounds a line: the largest value, all of it escaped.
const maxFeedLine = 8 << 20

// feedOnce follows on one connection. o.After moves on with what was given.
func (c *Client) feedOnce(ctx context.Context, o *FeedOptions, yield func(FeedItem, error) bool) (got bool, err error) {
	q := url.Values{"format": {"ndjson"}}
	for name, value := range map[string]string{"device": o.Device, "stream": o.Stream, "owner": o.Owner, "purpose": o.Purpose, "grant": o.Grant, "after": o.After} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if o.After == "" && o.From != "" {
		q.Set("from", o.From)
	}
	body, _, err := c.Stream(ctx, http.MethodGet, "/v1/feed", q, nil)
	if err != nil {
		return false, err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), maxFeedLine)
	for lines.Scan() {
		item, err := parseFeedLine(lines.Bytes())
		if err != nil {
			return got, err
		}
		got = true
		if !yield(item, nil) {
			return true, errEnough
		}
		o.After = item.Cursor
	}
	if err := lines.Err(); err != nil {
		return got, holdfast.Errorf(holdfast.Unavailable, "the feed broke off: %w", err)
	}
	return got, holdfast.Errorf(holdfast.Unavailable, "the feed broke off: %w", io.ErrUnexpectedEOF)
}

// feedLine is a line of /v1/feed.
type feedLine struct {
	Device, Label, Stream, Unit, Type string
	Time                              time.Time
	Value                             json.RawMessage
	Seq                               uint64
	Marks                             []string
	Idle                              bool
	Reset, Cursor                     string
	End                               *struct{ Title, Detail string }
}

func parseFeedLine(text []byte) (FeedItem, error) {
	var l feedLine
	foreign := holdfast.Errorf(holdfast.Invalid, "the feed is not as a hub of this version writes it")
	if err := json.Unmarshal(text, &l); err != nil {
		return FeedItem{}, foreign
	}
	if l.End != nil {
		kind := holdfast.Unavailable
		for _, k := range []holdfast.Kind{holdfast.Invalid, holdfast.Denied, holdfast.NotFound, holdfast.Conflict, holdfast.TooLarge} {
			if k.String() == l.End.Title {
				kind = k
			}
		}
		return FeedItem{}, holdfast.Errorf(kind, "%s", l.End.Detail)
	}
	item := FeedItem{Device: l.Device, Label: l.Label, Stream: l.Stream, Unit: l.Unit, Idle: l.Idle, Reset: l.Reset, Cursor: l.Cursor, Raw: append([]byte(nil), text...)}
	if l.Cursor == "" {
		return FeedItem{}, foreign
	}
	if l.Idle || l.Reset != "" {
		return item, nil
	}
	value, ok := parseFeedValue(l.Type, l.Value)
	if !ok {
		return FeedItem{}, foreign
	}
	item.Reading = holdfast.Reading{Time: l.Time.UnixNano(), Seq: l.Seq, Value: value}
	for _, m := range l.Marks {
		item.Mark |= map[string]holdfast.Mark{"stamped": holdfast.Stamped, "clock": holdfast.Clock, "tls12": holdfast.TLS12}[m]
	}
	return item, nil
}

// parseFeedValue reads a value as the hub writes it in JSON.
func parseFeedValue(typ string, v json.RawMessage) (holdfast.Value, bool) {
	var text string
	isText := json.Unmarshal(v, &text) == nil
	switch typ {
	case holdfast.Number.String():
		f, ok := parseFeedNumber(string(v), text, isText)
		return holdfast.NumberValue(f), ok
	case holdfast.Integer.String():
		i, err := strconv.ParseInt(string(v), 10, 64)
		return holdfast.IntegerValue(i), err == nil
	case holdfast.Boolean.String():
		return holdfast.BooleanValue(string(v) == "true"), string(v) == "true" || string(v) == "false"
	case holdfast.Text.String():
		return holdfast.TextValue(text), isText
	case holdfast.Bytes.String():
		b, err := base64.StdEncoding.DecodeString(text)
		return holdfast.BytesValue(b), isText && err == nil
	case holdfast.Location.String():
		var p struct{ Latitude, Longitude, Altitude json.RawMessage }
		if json.Unmarshal(v, &p) != nil {
			return holdfast.Value{}, false
		}
		at := holdfast.Position{Altitude: math.NaN()}
		for to, raw := range map[*float64]json.RawMessage{&at.Latitude: p.Latitude, &at.Longitude: p.Longitude, &at.Altitude: p.Altitude} {
			if raw == nil {
				continue
			}
			var text string
			isText := json.Unmarshal(raw, &text) == nil
			var ok bool
			if *to, ok = parseFeedNumber(string(raw), text, isText); !ok {
				return holdfast.Value{}, false
			}
		}
		return holdfast.LocationValue(at), true
	}
	return holdfast.Value{}, false
}

// parseFeedNumber reads a number, or the name of one that JSON has no literal for.
func parseFeedNumber(literal, text string, isText bool) (float64, bool) {
	if !isText {
		f, err := strconv.ParseFloat(literal, 64)
		return f, err == nil
	}
	if bits, ok := strings.CutPrefix(text, "NaN:"); ok {
		n, err := strconv.ParseUint(bits, 16, 64)
		return math.Float64frombits(n), err == nil
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil
}
