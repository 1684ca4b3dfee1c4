package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/query"
)

type queryCmd struct {
	Stream  string `arg:"" optional:"" help:"STREAM of all one's devices, or DEVICE/STREAM. With --device, the name of a stream, slashes and all."`
	Device  string `help:"All of a device: a label or an id." placeholder:"DEVICE" env:"-"`
	Owner   string `help:"All of a party: a name or an id." placeholder:"PARTY" env:"-"`
	Group   string `help:"A declared group, by name or id: windows of the streams of that name of all its devices." placeholder:"GROUP" env:"-"`
	From    string `help:"The earliest time: RFC 3339, a date, or -2h; an hour ago if left out." placeholder:"TIME" env:"-"`
	To      string `help:"The latest time, included; 5 minutes from now if left out." placeholder:"TIME" env:"-"`
	Every   string `help:"Windows of this length in place of readings: 30s, 1m, 1h, or by the calendar 1d, 1w, 1mo, 1y." placeholder:"DURATION" env:"-"`
	Agg     string `help:"What to say of each window: count, sum, mean, min, max, first, last, stddev, variance, increase, rate, delta, or quantiles like p50, p99.9, with commas; mean if left out." placeholder:"NAMES" env:"-"`
	By      string `help:"Windows of groups of streams, which are alike in these: device, stream, owner, profile, unit, with commas; none for one group." placeholder:"KEYS" env:"-"`
	Fill    string `help:"What to say of windows without readings: none, null, previous, linear, or a number; none leaves them out." placeholder:"FILL" env:"-"`
	TZ      string `name:"tz" help:"A time zone, as Europe/Warsaw: of calendar windows, of dates and of times in the answer; UTC if left out." placeholder:"ZONE" env:"-"`
	Purpose string `help:"Why; may be left out by who holds one." placeholder:"PURPOSE" env:"-"`
	Output  string `short:"o" enum:"table,csv,json,senml,parquet" default:"table" help:"table, csv, json, senml or parquet." placeholder:"FORMAT" env:"-"`
	hubFlags
}

func (*queryCmd) Help() string {
	return `Reads readings, or windows of them. Who reads, why and how much is on the owner's record.

Example:
  holdfast query temperature --data DATA
  holdfast query pump-1/temperature --from -1d --every 15m --agg mean,max --data DATA
  holdfast query temperature --every 1h --agg p50,p99 --by none --data DATA
  holdfast query energy --every 1mo --agg increase --by device --tz Europe/Warsaw --from -365d --data DATA
  holdfast query energy --group house-12 --agg sum --from -7d --token landlord.token --hub https://HOST:8443
  holdfast query --device pump-1 --from 2026-01-01 --to 2026-01-31 -o csv --data DATA > january.csv`
}

func (c *queryCmd) Run(a *app) error {
	if _, terminal := a.stdout.(*screen); terminal && c.Output == "parquet" {
		return usagef("Parquet is not for a terminal: send it to a file, > readings.parquet")
	}
	q, err := c.query()
	if err != nil {
		return err
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body, head, err := hub.Stream(a.ctx, http.MethodGet, "/v1/readings", q, nil)
	if err != nil {
		if bare := c.Device == "" && c.Owner == "" && c.Group == "" && !strings.Contains(c.Stream, "/"); bare && holdfast.KindOf(err) == holdfast.NotFound {
			return fmt.Errorf("%w (all of a device is read with --device %s)", err, quoted(c.Stream))
		}
		return err
	}
	defer body.Close()
	tellErasing(a, head.Get("Holdfast-Erasing"))
	if c.Output == "table" {
		return c.table(a, body)
	}
	if _, err := io.Copy(a.stdout, body); err != nil {
		return fmt.Errorf("the answer broke off, what was printed is not all: %w", err)
	}
	return nil
}

func (c *queryCmd) query() (url.Values, error) {
	q := url.Values{}
	stream, device := c.Stream, c.Device
	if label, rest, ok := strings.Cut(stream, "/"); ok && device == "" {
		device, stream = label, rest
	}
	switch {
	case stream == "" && device == "" && c.Owner == "" && c.Group == "":
		return nil, usagef("say what to read: STREAM, DEVICE/STREAM, --device, --owner or --group")
	case c.Group != "" && (device != "" || c.Owner != ""):
		return nil, usagef("--group is without a device or an owner")
	case c.Group != "" && stream == "":
		return nil, usagef("--group needs the STREAM that is asked for")
	}
	for flag, text := range map[string]string{"--from": c.From, "--to": c.To} {
		if err := checkTime(flag, text); err != nil {
			return nil, err
		}
	}
	if err := c.checkWindows(); err != nil {
		return nil, err
	}
	format := c.Output
	if format == "table" {
		format = "ndjson"
	}
	for name, value := range map[string]string{"stream": stream, "device": device, "owner": c.Owner, "group": c.Group, "from": c.From, "to": c.To, "every": c.Every,
		"agg": c.Agg, "by": c.By, "fill": c.Fill, "tz": c.TZ, "purpose": c.Purpose, "format": format} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q, nil
}

// checkWindows finds here what the hub would refuse.
func (c *queryCmd) checkWindows() error {
	if c.TZ != "" {
		if _, err := query.ParseZone(c.TZ); err != nil {
			return usagef("--tz: %w", err)
		}
	}
	if c.Every == "" && c.Group == "" {
		for flag, text := range map[string]string{"--agg": c.Agg, "--by": c.By, "--fill": c.Fill} {
			if text != "" {
				return usagef("%s needs --every: how long are the windows?", flag)
			}
		}
		return nil
	}
	if c.Every != "" {
		if _, _, err := api.ParseEvery(c.Every); err != nil {
			return usagef("--every: %w", err)
		}
	}
	if _, err := api.ParseAggregates(c.Agg); err != nil {
		return usagef("--agg: %w", err)
	}
	if c.By != "" {
		if _, err := query.ParseKeys(c.By); err != nil {
			return usagef("--by: %w", err)
		}
	}
	if c.Fill != "" {
		if _, _, err := query.ParseFill(c.Fill); err != nil {
			return usagef("--fill: %w", err)
		}
	}
	if c.Output == "senml" {
		return usagef("SenML has no windows: ask for table, csv, json or parquet")
	}
	return nil
}

// columns names those of a table of windows that say what a row is of, as they stand
// in the hub's answer.
func (c *queryCmd) columns() []string {
	switch {
	case c.By == "" && c.Group != "":
		return []string{"streams"}
	case c.By == "":
		return []string{"label", "stream"}
	}
	keys, _ := query.ParseKeys(c.By) // it was checked
	var names []string
	for _, k := range []struct {
		key  query.Keys
		name string
	}{{query.ByDevice, "label"}, {query.ByStream, "stream"}, {query.ByOwner, "owner"}, {query.ByProfile, "profile"}} {
		if keys&k.key != 0 {
			names = append(names, k.name)
		}
	}
	return append(names, "streams")
}

// line is one of the hub's: a reading, a window, or the last words.
type line struct {
	Label  string          `json:"label"`
	Stream string          `json:"stream"`
	Unit   string          `json:"unit"`
	Time   string          `json:"time"`
	Start  string          `json:"start"`
	Value  json.RawMessage `json:"value"`
	Marks  []string        `json:"marks"`

	Done     bool         `json:"done"`
	Rows     int          `json:"rows"`
	Withheld int          `json:"withheld"`
	Error    *api.Problem `json:"error"`
}

// flushEvery is after how many rows a table is printed: its columns are aligned as
// far as that.
const flushEvery = 500

func (c *queryCmd) table(a *app, body io.Reader) error {
	header := []string{"TIME", "DEVICE", "STREAM", "VALUE", "UNIT", "MARKS"}
	var aggregates []string
	if c.Every != "" || c.Group != "" {
		names, err := api.ParseAggregates(c.Agg)
		if err != nil {
			return err
		}
		header = []string{"START"}
		for _, name := range c.columns() {
			header = append(header, strings.ToUpper(strings.Replace(name, "label", "device", 1)))
		}
		for _, g := range names {
			aggregates = append(aggregates, g.String())
			header = append(header, strings.ToUpper(g.String()))
		}
		header = append(header, "UNIT")
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	lines := bufio.NewReaderSize(body, 64<<10)
	for n := 1; ; n++ {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) || err != nil {
			t.Flush()
			return fmt.Errorf("the answer broke off, what was printed is not all: %w", err)
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return holdfast.Errorf(holdfast.Internal, "%s does not answer as a hub does: is it one, of this version?", c.Hub)
		}
		switch {
		case l.Error != nil:
			t.Flush()
			return holdfast.Errorf(holdfast.Unavailable, "the hub broke off: %s", l.Error.Detail)
		case l.Done:
			return c.lastWords(a, t, l)
		}
		cells := []string{l.Time, l.Label, l.Stream, plain(l.Value), l.Unit, strings.Join(l.Marks, ",")}
		if aggregates != nil {
			var values map[string]json.RawMessage
			if err := json.Unmarshal(text, &values); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			cells = []string{l.Start}
			for _, name := range c.columns() {
				cells = append(cells, plain(values[name]))
			}
			for _, g := range aggregates {
				cells = append(cells, plain(values[g]))
			}
			cells = append(cells, l.Unit)
		}
		for i := range cells {
			cells[i] = cell(cells[i])
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
		if n%flushEvery == 0 {
			if err := t.Flush(); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
	}
}

// tellErasing says which erasures of one's own may be why something is missing.
func tellErasing(a *app, ids string) {
	if ids != "" {
		fmt.Fprintf(a.stderr, "Of yours, an erasure is under way (%s): what it covers is refused already, and not shown. How far it is: holdfast erasure show ID\n", cell(ids))
	}
}

func (c *queryCmd) lastWords(a *app, t *tabwriter.Writer, l line) error {
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if l.Withheld > 0 {
		fmt.Fprintf(a.stderr, "%d streams of this selection are not yours to read.\n", l.Withheld)
	}
	if l.Rows == 0 && c.From == "" && c.To == "" {
		fmt.Fprintln(a.stderr, "No readings in the last hour: --from -1d looks further back.")
	}
	return nil
}

// plain shows a value of JSON in a table: a text without its quotes.
func plain(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	var p struct{ Latitude, Longitude, Altitude json.Number }
	if json.Unmarshal(v, &p) == nil && p.Latitude != "" {
		return strings.TrimSuffix(p.Latitude.String()+" "+p.Longitude.String()+" "+p.Altitude.String(), " ")
	}
	return string(v)
}
