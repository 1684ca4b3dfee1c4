package api

import (
	"cmp"
	"context"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
)

type readingsInput struct {
	Device  string `query:"device" doc:"A label or an id; * for all devices of the owner."`
	Stream  string `query:"stream" doc:"A name; without a device, the streams of that name of all devices of the owner."`
	Owner   string `query:"owner" doc:"A name or an id: all of that party; default the caller's own."`
	Group   string `query:"group" doc:"A declared group, by name or id, in place of device and owner: windows of the streams of that name of all its devices."`
	From    string `query:"from" doc:"RFC 3339, a date, or -2h; default an hour ago."`
	To      string `query:"to" doc:"The end, included; default 5 minutes from now, for clocks that are ahead."`
	Every   string `query:"every" doc:"Windows of this length in place of readings: 1m, 1h, or by the calendar 1d, 1w, 1mo, 1y."`
	Agg     string `query:"agg" maxLength:"512" doc:"What to say of a window, with commas: count, sum, mean, min, max, first, last, stddev, variance, increase, rate, delta, or a quantile like p50 or p99.9; default mean."`
	By      string `query:"by" doc:"Windows of groups of streams, which are alike in these: device, stream, owner, profile, unit, with commas; none for one group."`
	Fill    string `query:"fill" doc:"What to say of windows without readings: none, null, previous, linear, or a number; default none, which leaves them out."`
	Zone    string `query:"tz" doc:"An IANA time zone, as Europe/Warsaw: of calendar windows, of dates in from and to, and of times in the answer; default UTC."`
	Purpose string `query:"purpose" doc:"Why; may be left out by who holds one."`
	Grant   string `query:"grant" doc:"The grant to read under; default whichever fits."`
	Limit   int    `query:"limit" minimum:"0" maximum:"100000000" doc:"Rows of a page; 0: all."`
	Cursor  string `query:"cursor" maxLength:"256" doc:"The next of the page before."`
	Format  string `query:"format" enum:"json,ndjson,columns,csv,senml,parquet" doc:"Default: what Accept asks for, else json."`
	Accept  string `header:"Accept" hidden:"true"`
}

// defaultSpan is what a request without times asks for. Readings may be as far
// ahead of this clock as a device's may be.
const (
	defaultPast  = time.Hour
	defaultAhead = 5 * time.Minute
)

func (a *API) readings() {
	rule := rule{needs: access.ScopeRead, slow: true}
	stream(a, route{method: "GET", path: "/v1/readings", summary: "Read readings of a stream, a device or an owner, or windows of them.", rule: rule},
		[]string{"application/json", "application/x-ndjson", "text/csv", "application/senml+json", parquetType},
		func(w http.ResponseWriter, r *http.Request, by access.Principal, in *readingsInput) error {
			return a.maybeErasing(r.Context(), by, a.read(w, r, by, in))
		})
}

func (a *API) read(w http.ResponseWriter, r *http.Request, by access.Principal, in *readingsInput) error {
	ctx := r.Context()
	format, err := in.format()
	if err != nil {
		return err
	}
	q, err := in.request(by, time.Now())
	if err != nil {
		return err
	}
	if (format == formatSenML || format == formatColumns) && len(q.Aggregates) > 0 {
		return holdfast.Errorf(holdfast.Invalid, "columns and SenML have no windows: ask for json, ndjson, csv or parquet")
	}
	if q.Purpose != "" && q.Purpose != holdfast.OwnAccess && !a.Grants.Live(ctx, q.Purpose) {
		return holdfast.Errorf(holdfast.Denied, "the purpose does not exist or has ended")
	}
	if q.Selection, err = a.selection(ctx, by, in); err != nil {
		return err
	}
	leave, err := a.begin(by)
	if err != nil {
		return err
	}
	defer leave()
	result, err := a.Query.Read(ctx, q)
	if err != nil {
		return err
	}
	defer result.Close()
	if err := a.sayErasing(ctx, by, w.Header()); err != nil {
		return err
	}
	return a.give(w, r, by, format, result)
}

// give writes the rows of a result. An error before the first byte is still a
// problem document; after it the answer breaks off, so that no reader takes a part
// for the whole.
func (a *API) give(w http.ResponseWriter, r *http.Request, by access.Principal, f format, result *query.Result) error {
	out := newSink(w, r, a.Limits.StreamStall)
	rows := newRows(f, out, result)
	rows.headers(w.Header())
	defer out.watch(r.Context(), func(ctx context.Context) error {
		return cmp.Or(a.Access.Live(by), result.Still(ctx))
	})()
	given := 0
	defer func() { a.metrics.rows.Add(float64(given)) }()
	for row, err := range result.Rows {
		if err == nil && given%1024 == 0 {
			err = a.Access.Live(by)
		}
		if err == nil && given == 0 {
			err = rows.begin()
		}
		if err == nil {
			err = rows.row(row)
		}
		if err != nil {
			if holdfast.KindOf(err) == holdfast.Denied {
				out.forget()
				defer out.cut()
			}
			if given > 0 && out.isBegun() {
				rows.broken(problemOf(err))
				out.flush()
				http.NewResponseController(w).Flush()
				panicIfBegun(w)
			}
			return err
		}
		given++
	}
	if given == 0 {
		if err := rows.begin(); err != nil {
			return err
		}
	}
	if next := result.Cursor(); next != "" {
		w.Header().Set(http.TrailerPrefix+"Holdfast-Next", next)
	}
	if err := rows.end(result.Cursor()); err != nil {
		return err
	}
	return out.end()
}

// panicIfBegun breaks off an answer that has begun.
func panicIfBegun(w http.ResponseWriter) {
	if t, ok := w.(*answer); ok && t.status != 0 {
		panic(http.ErrAbortHandler)
	}
}

// format is how rows are written.
type format string

const (
	formatJSON    format = "json"
	formatNDJSON  format = "ndjson"
	formatColumns format = "columns"
	formatCSV     format = "csv"
	formatSenML   format = "senml"
	formatParquet format = "parquet"
)

func (in *readingsInput) format() (format, error) {
	if in.Format != "" {
		return format(in.Format), nil
	}
	if in.Accept == "" {
		return formatJSON, nil
	}
	for part := range strings.SplitSeq(in.Accept, ",") {
		media, _, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		switch media {
		case "application/json", "*/*", "application/*":
			return formatJSON, nil
		case "application/x-ndjson":
			return formatNDJSON, nil
		case "text/csv":
			return formatCSV, nil
		case "application/senml+json":
			return formatSenML, nil
		case parquetType:
			return formatParquet, nil
		}
	}
	return "", problem(http.StatusNotAcceptable, "readings come as application/json, application/x-ndjson, text/csv, application/senml+json or "+parquetType)
}

// request reads all of a question but what it asks about.
func (in *readingsInput) request(by access.Principal, now time.Time) (query.Request, error) {
	q := query.Request{Who: by, Purpose: holdfast.Purpose(in.Purpose), Limit: in.Limit, Cursor: in.Cursor}
	var err error
	if in.Zone != "" {
		if q.Zone, err = query.ParseZone(in.Zone); err != nil {
			return q, err
		}
		now = now.In(q.Zone)
	}
	if q.Span, err = span(in.From, in.To, now, now.Add(-defaultPast).UnixNano(), now.Add(defaultAhead).UnixNano()); err != nil {
		return q, err
	}
	if in.Purpose != "" {
		if err := holdfast.CheckName("purpose", in.Purpose); err != nil {
			return q, err
		}
	}
	if in.Grant != "" {
		if q.Grant, err = holdfast.ParseID[holdfast.GrantID](in.Grant); err != nil {
			return q, err
		}
	}
	return q, in.windows(&q)
}

// windows reads what a question says of windows.
func (in *readingsInput) windows(q *query.Request) (err error) {
	if in.Every == "" && in.Group == "" {
		for name, text := range map[string]string{"agg": in.Agg, "by": in.By, "fill": in.Fill} {
			if text != "" {
				return holdfast.Errorf(holdfast.Invalid, "%s needs every: how long are the windows?", name)
			}
		}
		return nil
	}
	if in.Every != "" { // else it is the group's
		if q.Every, q.Calendar, err = ParseEvery(in.Every); err != nil {
			return err
		}
		q.Calendar.Zone = q.Zone
	}
	if in.By != "" {
		if q.By, err = query.ParseKeys(in.By); err != nil {
			return err
		}
	}
	if in.Fill != "" {
		if q.Fill, q.FillValue, err = query.ParseFill(in.Fill); err != nil {
			return err
		}
	}
	q.Aggregates, err = ParseAggregates(in.Agg)
	return err
}

// ParseAggregates reads names with commas; the empty text is the mean.
func ParseAggregates(text string) ([]query.Aggregate, error) {
	if text == "" {
		return []query.Aggregate{query.Mean}, nil
	}
	var out []query.Aggregate
	for name := range strings.SplitSeq(text, ",") {
		g, err := query.ParseAggregate(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		if slices.Contains(out, g) {
			return nil, holdfast.Errorf(holdfast.Invalid, "an aggregate stands there twice")
		}
		out = append(out, g)
	}
	return out, nil
}

// selection finds what a question is about. What it can't find for this caller it
// asks query for all the same, by an id that nothing has: the refusal is then the
// one that query gives for what it does not allow.
func (a *API) selection(ctx context.Context, by access.Principal, in *readingsInput) (s query.Selection, err error) {
	s.Stream = in.Stream
	if in.Stream != "" {
		if err := holdfast.CheckName("stream", in.Stream); err != nil {
			return s, err
		}
	}
	all := in.Device == "" || in.Device == "*"
	switch {
	case in.Group != "" && (in.Device != "" || in.Owner != ""):
		return s, holdfast.Errorf(holdfast.Invalid, "a group is asked about without a device or an owner")
	case in.Group != "":
		if s.Group, err = holdfast.ParseID[holdfast.GroupID](in.Group); err != nil {
			g, err := a.group(ctx, by, in.Group)
			return query.Selection{Group: g.ID, Stream: in.Stream}, err
		}
	case in.Device == "" && in.Owner == "" && in.Stream == "":
		return s, holdfast.Errorf(holdfast.Invalid, "say what to read: a stream, a device, an owner or a group")
	case !all:
		s.Device, err = a.deviceToRead(ctx, by, in)
	case in.Owner == "":
		s.Party = by.Party
	default:
		s.Party, err = a.ownerToRead(ctx, by, in.Owner)
	}
	return s, err
}

// ownerToRead takes any id, and those names that the caller may know.
func (a *API) ownerToRead(ctx context.Context, by access.Principal, text string) (holdfast.PartyID, error) {
	if id, err := holdfast.ParseID[holdfast.PartyID](text); err == nil {
		return id, nil
	}
	p, err := a.party(ctx, by, text)
	if holdfast.KindOf(err) == holdfast.NotFound && by.Role != access.Administrator {
		return holdfast.NewID[holdfast.PartyID](), nil
	}
	return p.ID, err
}

// deviceToRead takes any id, the caller's own labels, and with an owner named, the
// owner's.
func (a *API) deviceToRead(ctx context.Context, by access.Principal, in *readingsInput) (holdfast.DeviceID, error) {
	if id, err := holdfast.ParseID[holdfast.DeviceID](in.Device); err == nil {
		return id, nil
	}
	var d custody.Device
	var err error
	if in.Owner != "" {
		var owner holdfast.PartyID
		if owner, err = a.ownerToRead(ctx, by, in.Owner); err == nil {
			d, err = a.Custody.DeviceByLabel(ctx, owner, in.Device)
		}
	} else {
		d, err = a.device(ctx, by, in.Device)
	}
	if kind := holdfast.KindOf(err); err != nil && by.Role != access.Administrator && (kind == holdfast.NotFound || kind == holdfast.Conflict) {
		return holdfast.NewID[holdfast.DeviceID](), nil
	}
	return d.ID, err
}
