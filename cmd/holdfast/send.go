package main

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

type sendCmd struct {
	Readings []string `arg:"" name:"reading" help:"STREAM=VALUE: a number, true or false, else text." placeholder:"STREAM=VALUE"`
	Identity string   `required:"" help:"The device's identity: a folder with key.pem, cert.pem and ca.pem." placeholder:"DIR" type:"path"`
	Hub      string   `help:"The hub's address, https://HOST:8444; what enrol noted if left out." placeholder:"URL"`
	Time     string   `help:"When it was read: RFC 3339 or Unix seconds; the arrival if left out." placeholder:"TIME"`
	Text     bool     `help:"Take every value as text."`
	outputFlags
}

func (*sendCmd) Help() string {
	return `Sends readings as a device, over HTTPS. When it exits 0 they are durable on the hub. All of one call are taken, or none. When two thirds of the
certificate's life have passed it is renewed on the way.

Example:
  holdfast send --identity pump-1 temperature=21.5 running=true state='warming up'
  holdfast send --identity pump-1 --time 2026-03-01T12:00:00.25Z temperature=21.5`
}

func (c *sendCmd) Run(a *app) error {
	samples, err := c.samples()
	if err != nil {
		return usageError{err}
	}
	// An expired certificate must be renewed first; one that is merely due may
	// fail to renew without keeping the readings back.
	i, err := client.RenewIfDue(a.ctx, c.Hub, c.Identity)
	if err != nil {
		if i.Device.IsZero() || time.Now().After(i.NotAfter) {
			return err
		}
		fmt.Fprintln(a.stderr, "holdfast:", err)
	}
	if i.Device.IsZero() {
		return holdfast.Errorf(holdfast.Invalid, "the identity in %s is not a device's", c.Identity)
	}
	hub := c.Hub
	if hub == "" {
		hub = i.Hub.Device
	}
	if hub == "" {
		return usagef("say which hub: --hub https://HOST:8444")
	}
	hc, err := client.New(client.Options{Hub: hub, Identity: c.Identity})
	if err != nil {
		return err
	}
	defer hc.Close()
	sent, err := hc.Send(a.ctx, samples...)
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, struct {
			Device holdfast.DeviceID `json:"device"`
			Sent   int               `json:"sent"`
		}{i.Device, sent})
	}
	fmt.Fprintf(a.stdout, "%s of device %s: durable.\n", many(sent, "reading"), i.Device)
	return nil
}

// maxReadings keeps a call within one request, which is taken whole or not.
const maxReadings = 1000

func (c *sendCmd) samples() ([]holdfast.Sample, error) {
	at, timed, err := parseTime(c.Time)
	if err != nil {
		return nil, err
	}
	if len(c.Readings) > maxReadings {
		return nil, holdfast.Errorf(holdfast.TooLarge, "at most %d readings in one call", maxReadings)
	}
	out := make([]holdfast.Sample, 0, len(c.Readings))
	for i, r := range c.Readings {
		stream, value, ok := strings.Cut(r, "=")
		if !ok {
			return nil, holdfast.Errorf(holdfast.Invalid, "reading %d is not STREAM=VALUE", i+1)
		}
		if err := holdfast.CheckName("stream", stream); err != nil {
			return nil, err
		}
		s := holdfast.Sample{Stream: stream, Time: at, Timed: timed}
		switch {
		case !utf8.ValidString(value):
			return nil, holdfast.Errorf(holdfast.Invalid, "the value of reading %d is not UTF-8", i+1)
		case c.Text:
			s.Value = holdfast.TextValue(value)
		default:
			s.Value, s.Literal = parseValue(value)
		}
		out = append(out, s)
	}
	return out, nil
}

var numeral = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// parseValue takes for a number what JSON does. One that only an integer of 64
// bits holds exactly becomes that; one that is too large for both stays text.
func parseValue(s string) (v holdfast.Value, literal bool) {
	if s == "true" || s == "false" {
		return holdfast.BooleanValue(s == "true"), false
	}
	if !numeral.MatchString(s) {
		return holdfast.TextValue(s), false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return holdfast.TextValue(s), false
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil && (math.Abs(f) >= 1<<63 || int64(f) != i) {
		return holdfast.IntegerValue(i), true
	}
	return holdfast.NumberValue(f), true
}

// parseTime reads RFC 3339 or Unix seconds with up to nine digits after the point.
func parseTime(s string) (ns int64, timed bool, err error) {
	if s == "" {
		return 0, false, nil
	}
	bad := holdfast.Errorf(holdfast.Invalid, "a time is RFC 3339, as 2026-03-01T12:00:00.25Z, or Unix seconds, between %d and %d",
		holdfast.MinTime.Year(), holdfast.MaxTime.Year())
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		if t.Before(holdfast.MinTime) || t.After(holdfast.MaxTime) {
			return 0, false, bad
		}
		return t.UnixNano(), true, nil
	}
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	seconds, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || len(fraction) > 9 || seconds > math.MaxInt64/1_000_000_000 {
		return 0, false, bad
	}
	nanos, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 63)
	if err != nil || seconds*1_000_000_000+nanos > math.MaxInt64 {
		return 0, false, bad
	}
	ns = int64(seconds*1_000_000_000 + nanos)
	if negative {
		ns = -ns
	}
	return ns, true, nil
}
