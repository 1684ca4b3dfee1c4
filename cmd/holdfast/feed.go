package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type feedCmd struct {
	Stream  string        `arg:"" optional:"" help:"STREAM of all one's devices, or DEVICE/STREAM. With --device, the name of a stream, slashes and all."`
	Device  string        `help:"All of a device: a label or an id." placeholder:"DEVICE" env:"-"`
	Owner   string        `help:"All of a party: a name or an id." placeholder:"PARTY" env:"-"`
	From    string        `help:"First what is stored with times from here on: RFC 3339, a date, or -1h; from now on if left out." placeholder:"TIME" env:"-"`
	After   string        `help:"Go on behind this cursor, of a line of -o json." placeholder:"CURSOR" env:"-"`
	Purpose string        `help:"Why; may be left out by who holds one." placeholder:"PURPOSE" env:"-"`
	During  time.Duration `help:"End after this long; else when interrupted." placeholder:"DURATION" env:"-"`
	Delay   bool          `help:"Follow nothing: show how long readings took to those who follow, in the last hour." env:"-"`
	Output  string        `short:"o" enum:"table,csv,json" default:"table" help:"table, csv or json; json is a line each, with its cursor." placeholder:"FORMAT" env:"-"`
	hubFlags
}

func (*feedCmd) Help() string {
	return `Prints readings as they come, until it is interrupted. Who follows, why and how much
is on the owner's record. When the connection breaks or the hub restarts it comes
again by itself: nothing is left out, nothing comes twice.

Example:
  holdfast feed pump-1/temperature --data DATA
  holdfast feed --device pump-1 --from -1h --during 60s -o json --data DATA
  holdfast feed --delay --data DATA`
}

func (c *feedCmd) Run(a *app) error {
	o, err := c.options()
	if err != nil {
		return err
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if c.Delay {
		return c.delays(a, hub)
	}
	ctx := a.ctx
	if c.During > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.During)
		defer cancel()
	}
	show := c.printer(a)
	for item, err := range hub.Feed(ctx, o) {
		if err != nil {
			return err
		}
		if item.Reset != "" {
			fmt.Fprintln(a.stderr, item.Reset)
		}
		if err := show(item); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

func (c *feedCmd) options() (o client.FeedOptions, err error) {
	stream, device := c.Stream, c.Device
	if label, rest, ok := strings.Cut(stream, "/"); ok && device == "" {
		device, stream = label, rest
	}
	switch {
	case c.Delay && (stream != "" || device != "" || c.Owner != "" || c.Output == "csv"):
		return o, usagef("--delay follows nothing: it is asked alone, with -o table or json")
	case !c.Delay && stream == "" && device == "" && c.Owner == "":
		return o, usagef("say what to follow: STREAM, DEVICE/STREAM, --device or --owner")
	case c.During < 0:
		return o, usagef("--during is a duration like 60s")
	}
	if err := checkTime("--from", c.From); err != nil {
		return o, err
	}
	return client.FeedOptions{Device: device, Stream: stream, Owner: c.Owner, Purpose: c.Purpose, After: c.After, From: c.From}, nil
}

// printer prints items as they come, each at once.
func (c *feedCmd) printer(a *app) func(client.FeedItem) error {
	switch c.Output {
	case "json":
		return func(i client.FeedItem) error {
			_, err := fmt.Fprintf(a.stdout, "%s\n", i.Raw)
			return err
		}
	case "csv":
		w := csv.NewWriter(a.stdout)
		w.Write([]string{"time", "device", "label", "stream", "value", "unit"}) // an error stays for Flush
		return func(i client.FeedItem) error {
			if cells := cellsOf(i); cells != nil {
				w.Write([]string{cells[0], i.Device, i.Label, i.Stream, cells[3], i.Unit})
			}
			w.Flush()
			return w.Error()
		}
	}
	const line = "%-30s  %-20s  %-20s  %s %s\n"
	fmt.Fprintf(a.stdout, line, "TIME", "DEVICE", "STREAM", "VALUE", "UNIT")
	return func(i client.FeedItem) error {
		cells := cellsOf(i)
		if cells == nil {
			return nil
		}
		for k := range cells {
			cells[k] = cell(cells[k])
		}
		_, err := fmt.Fprintf(a.stdout, line, cells[0], cells[1], cells[2], cells[3], cells[4])
		return err
	}
}

// cellsOf is a reading as a table shows it; nil if it is none.
func cellsOf(i client.FeedItem) []string {
	if i.Idle || i.Reset != "" {
		return nil
	}
	var l struct {
		Time  string
		Value json.RawMessage
	}
	if json.Unmarshal(i.Raw, &l) != nil {
		return nil
	}
	name := i.Label
	if name == "" {
		name = i.Device
	}
	return []string{l.Time, name, i.Stream, plain(l.Value), i.Unit}
}

// delays shows how long readings took.
func (c *feedCmd) delays(a *app, hub *client.Client) error {
	var all []api.FeedDelay
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/feed/delay", nil, &all); err != nil {
		return err
	}
	if c.Output == "json" {
		return json.NewEncoder(a.stdout).Encode(all)
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "READER\tREADINGS\tP50 MS\tP99 MS")
	for _, d := range all {
		readings := "-"
		if d.Readings > 0 {
			readings = strconv.FormatUint(d.Readings, 10)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", d.Reader, readings, strconv.FormatFloat(d.P50, 'f', 2, 64), strconv.FormatFloat(d.P99, 'f', 2, 64))
	}
	return t.Flush()
}
