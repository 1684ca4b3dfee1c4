package main

import (
	"fmt"

	"github.com/holdfast-iot/holdfast/internal/intake"
)

// intakeReport is a report as JSON.
type intakeReport struct {
	*intake.Report
	DryRun  bool                `json:"dry_run"`
	Topics  []*intake.TopicLine `json:"topics"`
	Devices []intakeDevice      `json:"devices"`
	Declare []string            `json:"declare"` // commands to run
}

type intakeDevice struct {
	*intake.DeviceLine
	Streams []*intake.StreamLine `json:"streams"`
}

// show prints what an intake saw and did, and what to do about it.
func (c *intakeMQTTCmd) show(a *app, r *intake.Report, gateway string, dry bool) error {
	out := intakeReport{Report: r, DryRun: dry, Topics: r.TopicLines(), Devices: []intakeDevice{}, Declare: []string{}}
	if dry {
		out.Readings = 0
	}
	for _, d := range r.DeviceLines() {
		out.Devices = append(out.Devices, intakeDevice{d, d.StreamLines()})
		if d.Unknown {
			line := "holdfast device add " + quoted(d.Device) + " --gateway " + gateway
			if c.Owner != "" {
				line += " --owner " + quoted(c.Owner)
			}
			out.Declare = append(out.Declare, line)
		}
	}
	if c.json() {
		return printJSON(a.stdout, out)
	}
	if dry {
		fmt.Fprintf(a.stdout, "A dry run of %s: %s, nothing was stored.\n", c.For, many(r.Messages, "message"))
	} else {
		fmt.Fprintf(a.stdout, "%s.\n", intakeProgress(r))
	}
	return c.tables(a, out)
}

func (c *intakeMQTTCmd) tables(a *app, out intakeReport) error {
	var rows [][]string
	for _, t := range out.Topics {
		rows = append(rows, []string{t.Topic, fmt.Sprint(t.Messages), fmt.Sprint(t.NotTaken), t.Why})
	}
	fmt.Fprintln(a.stdout)
	if err := printTable(a.stdout, []string{"TOPIC", "MESSAGES", "NOT TAKEN", "WHY"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, d := range out.Devices {
		name := d.Device
		if name == "" {
			name = "(the gateway)"
		}
		for _, s := range d.Streams {
			when := "first receipt"
			if s.Timed {
				when = "message"
			}
			rows = append(rows, []string{name, s.Stream, s.Type, s.Unit, fmt.Sprint(s.Readings), when})
		}
	}
	fmt.Fprintln(a.stdout)
	if err := printTable(a.stdout, []string{"DEVICE", "STREAM", "TYPE", "UNIT", "READINGS", "TIME OF"}, rows); err != nil {
		return err
	}
	for _, n := range []struct {
		n    int
		what string
	}{{out.Left, "members of payloads can't be readings"}, {out.NoClock, "times were not believed: the first receipt was taken"}, {out.Gaps, "gaps in Sparkplug's sequence numbers"},
		{out.Unknown, "metrics of aliases that no birth has named"}, {out.Declared, "devices were declared"}} {
		if n.n > 0 {
			fmt.Fprintf(a.stdout, "\n%d %s.\n", n.n, n.what)
		}
	}
	if len(out.Declare) > 0 {
		fmt.Fprintf(a.stdout, "\nDevices that are not declared yet; --declare does it, or:\n\n")
		for _, line := range out.Declare {
			fmt.Fprintf(a.stdout, "  %s\n", line)
		}
	}
	return nil
}
