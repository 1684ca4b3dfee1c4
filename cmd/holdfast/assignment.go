package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type assignmentCmd struct {
	Add    assignmentAddCmd    `cmd:"" help:"Give a device's time to somebody else: a shift, a loan, a tenancy."`
	List   assignmentListCmd   `cmd:"" help:"List the assignments of a device, as known now or at a time."`
	Show   assignmentShowCmd   `cmd:"" help:"Show an assignment and all that was known of it before."`
	Change assignmentChangeCmd `cmd:"" help:"Change when or how long a period is."`
	End    assignmentEndCmd    `cmd:"" help:"End a period."`
}

func (*assignmentCmd) Help() string {
	return `A device has an assignment of its own and any number of periods: times in which its readings are somebody else's, under the same certificate and a key
of their own. Periods of a device never overlap; what lies in none is its owner's.

Example:
  holdfast assignment add car-7 --owner Bob --basis lease --to 2027-03-01 --erase-after 30 --data DATA`
}

// termFlags say when a period is.
type termFlags struct {
	From       string `help:"When it begins." placeholder:"TIME" env:"-"`
	To         string `help:"The first instant after it." placeholder:"TIME" env:"-"`
	Hours      string `help:"Hours of the week: 'Mo-Fr 08:00-17:00', several with commas." placeholder:"HOURS" env:"-"`
	Zone       string `help:"Of the hours: Europe/Berlin." placeholder:"ZONE" env:"-"`
	EraseAfter int    `help:"Erase it so many days after its end." placeholder:"DAYS" env:"-"`
	alreadyFlag
}

type alreadyFlag struct {
	Already string `help:"What becomes of readings of that time that are there already: keep, erase or move." placeholder:"WORD" enum:",keep,erase,move" default:"" env:"-"`
}

func (f *termFlags) body() (map[string]any, error) {
	for flag, text := range map[string]string{"--from": f.From, "--to": f.To} {
		if err := checkTime(flag, text); err != nil {
			return nil, err
		}
	}
	body := map[string]any{}
	for name, text := range map[string]string{"from": f.From, "to": f.To, "hours": f.Hours, "zone": f.Zone, "already": f.Already} {
		if text != "" {
			body[name] = text
		}
	}
	if f.EraseAfter > 0 {
		body["erase_after_days"] = f.EraseAfter
	}
	return body, nil
}

type assignmentAddCmd struct {
	Device  string `arg:"" help:"A label or an id."`
	Owner   string `help:"Whose it is meanwhile: a name or an id; the device's owner, if left out." placeholder:"PARTY" env:"-"`
	Subject string `help:"Whom the readings are about, if another." placeholder:"PARTY" env:"-"`
	Basis   string `required:"" help:"Why: lease, employ, tenancy, loan, guest, child or own." placeholder:"BASIS" env:"-"`
	termFlags
	hubFlags
	outputFlags
}

func (*assignmentAddCmd) Help() string {
	return `Adds a period from now on, or from --from. The device's owner may, and an administrator for devices of the operating organisation; who gets it is told on his
record. Where the time lies in the past and has readings, --already says what becomes of them: keep, they stay whose they were; erase; or move, they become
his whose time it is now, at the word of the one whose they are.

Example:
  holdfast assignment add van-1 --subject Bob --basis employ --hours 'Mo-Fr 08:00-17:00' --zone Europe/Berlin --data DATA
  holdfast assignment add bike --owner gfi477gs3t7xorra4uexik7foq --basis guest --to +7d --token my.token --hub https://HOST:8443`
}

func (c *assignmentAddCmd) Run(a *app) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	body["device"], body["basis"] = c.Device, c.Basis
	for name, text := range map[string]string{"owner": c.Owner, "subject": c.Subject} {
		if text != "" {
			body[name] = text
		}
	}
	return changeAssignment(a, &c.hubFlags, &c.outputFlags, "/v1/assignments", body)
}

// changeAssignment sends a change and shows what it made.
func changeAssignment(a *app, to *hubFlags, o *outputFlags, path string, body map[string]any) error {
	hub, err := to.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var x api.ChangedAssignment
	if err := hub.Do(a.ctx, http.MethodPost, path, body, &x); err != nil {
		return err
	}
	if x.Moved > 0 || len(x.Erasures) > 0 {
		fmt.Fprintf(a.stderr, "Of what was there already, %d readings moved; %d erasures take it from where it was.\n", x.Moved, len(x.Erasures))
	}
	return o.print(a, x, assignmentHeader(), [][]string{assignmentRow(x.Assignment)})
}

func assignmentHeader() []string {
	return []string{"ID", "OWNER", "SUBJECT", "BASIS", "PERIOD", "STATE", "FROM", "TO", "HOURS", "ERASES", "RECORDED"}
}

func assignmentRow(x api.Assignment) []string {
	hours := x.Hours
	if x.Zone != "" {
		hours += " " + x.Zone
	}
	erases := whenever(x.Erases)
	if erases == "" && x.EraseAfterDays > 0 {
		erases = strconv.Itoa(x.EraseAfterDays) + " days after its end"
	}
	return []string{x.ID, partyName(x.Owner), partyName(x.Subject), x.Basis, strconv.FormatBool(x.Period), x.State, whenever(x.From), whenever(x.To), hours,
		erases, whenever(x.Recorded)}
}

type assignmentListCmd struct {
	Device string `arg:"" help:"A label or an id."`
	Known  string `help:"As it was known then." placeholder:"TIME" env:"-"`
	hubFlags
	outputFlags
}

func (*assignmentListCmd) Help() string {
	return `Lists those assignments of a device that you may know of: its owner all of them, the party of a period that one.

Example:
  holdfast assignment list car-7 --known 2026-12-24 --data DATA`
}

func (c *assignmentListCmd) Run(a *app) error {
	if err := checkTime("--known", c.Known); err != nil {
		return err
	}
	q := url.Values{"device": {c.Device}}
	if c.Known != "" {
		q.Set("known", c.Known)
	}
	return listAssignments(a, &c.hubFlags, &c.outputFlags, "/v1/assignments?"+q.Encode())
}

func listAssignments(a *app, to *hubFlags, o *outputFlags, path string) error {
	hub, err := to.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	found, err := all[api.Assignment](a, hub, path)
	if err != nil {
		return err
	}
	rows := make([][]string, len(found))
	for i, x := range found {
		rows[i] = assignmentRow(x)
	}
	return o.print(a, found, assignmentHeader(), rows)
}

type assignmentShowCmd struct {
	ID string `arg:"" help:"Of the assignment."`
	hubFlags
	outputFlags
}

func (*assignmentShowCmd) Help() string {
	return `Shows all that was ever known of an assignment, oldest first; the last line is what is known now.

Example:
  holdfast assignment show ASSIGNMENT --data DATA`
}

func (c *assignmentShowCmd) Run(a *app) error {
	return listAssignments(a, &c.hubFlags, &c.outputFlags, named("/v1/assignments", c.ID)+"/history")
}

type assignmentChangeCmd struct {
	ID   string `arg:"" help:"Of the period."`
	Open bool   `help:"It has no end any more." env:"-"`
	termFlags
	hubFlags
	outputFlags
}

func (*assignmentChangeCmd) Help() string {
	return `Changes what is said, and leaves the rest as it is. What was known before stays in the history.

Example:
  holdfast assignment change ASSIGNMENT --to 2027-04-01 --data DATA`
}

func (c *assignmentChangeCmd) Run(a *app) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	if c.Open {
		body["open"] = true
	}
	return changeAssignment(a, &c.hubFlags, &c.outputFlags, named("/v1/assignments", c.ID)+"/terms", body)
}

type assignmentEndCmd struct {
	ID string `arg:"" help:"Of the period."`
	At string `help:"The first instant after it; now, if left out." placeholder:"TIME" env:"-"`
	alreadyFlag
	hubFlags
	outputFlags
}

func (*assignmentEndCmd) Help() string {
	return `Ends a period. Either side may: the device's owner, and the one whose the period is. Its readings stay his; what comes after is the device's owner's.

Example:
  holdfast assignment end ASSIGNMENT --data DATA`
}

func (c *assignmentEndCmd) Run(a *app) error {
	if err := checkTime("--at", c.At); err != nil {
		return err
	}
	body := map[string]any{}
	for name, text := range map[string]string{"at": c.At, "already": c.Already} {
		if text != "" {
			body[name] = text
		}
	}
	return changeAssignment(a, &c.hubFlags, &c.outputFlags, named("/v1/assignments", c.ID)+"/end", body)
}
