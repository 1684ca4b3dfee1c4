package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type alarmCmd struct {
	Add     alarmAddCmd     `cmd:"" help:"Make an alarm, or change one."`
	List    alarmListCmd    `cmd:"" help:"List alarms and how they stand."`
	Show    alarmShowCmd    `cmd:"" help:"Show an alarm, stream by stream."`
	Ack     alarmAckCmd     `cmd:"" help:"Say that you know of what fires."`
	Mute    alarmMuteCmd    `cmd:"" help:"Keep an alarm from saying anything for a while."`
	History alarmHistoryCmd `cmd:"" help:"What happened to an alarm."`
	Test    alarmTestCmd    `cmd:"" help:"Send a test to all whom an alarm tells."`
	End     alarmEndCmd     `cmd:"" help:"End an alarm."`
}

func (*alarmCmd) Help() string {
	return `An alarm looks at readings and says, by webhook and mail, when what it waits for is so, and when it is over. It is a use of readings like any other:
it has a purpose, reads under the credential that made it, and stops when that may read no more.

Example:
  holdfast alarm add too-warm --device cold-1 --stream temp --above 8 --clear 6 --after 5m --webhook ops --token my.token --hub https://HOST:8443
  holdfast alarm add silent --stream temp --silence 15m --mail ops@example.org --token my.token --hub https://HOST:8443`
}

type alarmAddCmd struct {
	Name       string   `arg:"" help:"What it is called."`
	Device     string   `help:"The device, by label or id; each of the owner's that has such a stream, if left out." placeholder:"DEVICE" env:"-"`
	Owner      string   `help:"Whose devices; your own, if left out." placeholder:"PARTY" env:"-"`
	Stream     string   `help:"The stream." placeholder:"STREAM" env:"-"`
	Above      string   `help:"Fire when a value is greater." placeholder:"LEVEL" env:"-"`
	Below      string   `help:"Fire when a value is less." placeholder:"LEVEL" env:"-"`
	Outside    string   `help:"Fire when a value is less than the first or greater than the second." placeholder:"LOW,HIGH" env:"-"`
	Equals     string   `help:"Fire when a value is this number or text; true is 1, false 0." placeholder:"VALUE" env:"-"`
	Clear      string   `help:"Where it ends, if not at the level; of --outside two." placeholder:"LEVEL" env:"-"`
	Per        string   `help:"Look at how much the value changes within this time." placeholder:"DURATION" env:"-"`
	Silence    string   `help:"Fire when there is no reading for so long." placeholder:"DURATION" env:"-"`
	Expression string   `help:"Fire for each element that this expression in PromQL yields." placeholder:"PROMQL" env:"-"`
	After      string   `help:"How long it must be so before it fires." placeholder:"DURATION" env:"-"`
	Keep       string   `help:"How long it must be over before it is resolved." placeholder:"DURATION" env:"-"`
	Every      string   `help:"How often to look; 10s, if left out." placeholder:"DURATION" env:"-"`
	Late       string   `help:"Of several devices: how late readings may come; 2m, if left out." placeholder:"DURATION" env:"-"`
	Repeat     string   `help:"Say again, this far apart, what nobody has acknowledged." placeholder:"DURATION" env:"-"`
	Gather     string   `help:"How far apart its messages are at least; of several devices 1m, if left out." placeholder:"DURATION" env:"-"`
	Severity   string   `help:"info, warning or critical." enum:"info,warning,critical" default:"warning" placeholder:"SEVERITY" env:"-"`
	Message    string   `help:"What it says, with fields in braces as {device} and {value}." placeholder:"TEXT" env:"-"`
	Purpose    string   `help:"Why; may be left out by who holds one." placeholder:"PURPOSE" env:"-"`
	Grant      string   `help:"The grant to read under." placeholder:"ID" env:"-"`
	Webhook    []string `help:"A webhook to tell, by name or id. May be given again." placeholder:"WEBHOOK" env:"-"`
	Mail       []string `help:"A mail address to tell. May be given again." placeholder:"ADDRESS" env:"-"`
	Change     bool     `help:"Change the alarm of this name: it begins anew, under your credential." env:"-"`
	hubFlags
	outputFlags
}

func (*alarmAddCmd) Help() string {
	return `Makes an alarm about a value (--above, --below, --outside, --equals), about how much one changes (the same with --per), about silence, or about an
expression. It reads once as it will, so that what it could not read is refused at once.

Example:
  holdfast alarm add too-warm --device cold-1 --stream temp --above 8 --clear 6 --after 5m --repeat 1h --webhook ops --token my.token --hub https://HOST:8443
  holdfast alarm add leak --device tank --stream level --below -5 --per 10m --webhook ops --token my.token --hub https://HOST:8443
  holdfast alarm add silent --stream temp --silence 15m --mail ops@example.org --token my.token --hub https://HOST:8443`
}

// body is the alarm as the hub takes it.
func (c *alarmAddCmd) body() (map[string]any, error) {
	b := map[string]any{"name": c.Name, "severity": c.Severity, "kind": "threshold"}
	for name, text := range map[string]string{"device": c.Device, "owner": c.Owner, "stream": c.Stream, "per": c.Per, "silence": c.Silence, "expression": c.Expression, "for": c.After, "keep": c.Keep,
		"every": c.Every, "late": c.Late, "repeat": c.Repeat, "gather": c.Gather, "message": c.Message, "purpose": c.Purpose, "grant": c.Grant} {
		if text != "" {
			b[name] = text
		}
	}
	if len(c.Webhook) > 0 {
		b["webhooks"] = c.Webhook
	}
	if len(c.Mail) > 0 {
		b["mail"] = c.Mail
	}
	if err := c.condition(b); err != nil {
		return nil, err
	}
	if c.Per != "" {
		b["kind"] = "rate"
	}
	if c.Clear == "" {
		return b, nil
	}
	clear, err := levels("--clear", c.Clear, 1+min(1, len(c.Outside)))
	if err != nil {
		return nil, err
	}
	b["clear"] = clear[0]
	if len(clear) == 2 {
		b["clear_high"] = clear[1]
	}
	return b, nil
}

// condition is what the alarm waits for.
func (c *alarmAddCmd) condition(b map[string]any) error {
	asked := 0
	for _, text := range []string{c.Above, c.Below, c.Outside, c.Equals, c.Silence, c.Expression} {
		asked += min(1, len(text))
	}
	if asked != 1 {
		return usagef("say what it waits for, with one of --above, --below, --outside, --equals, --silence and --expression")
	}
	for op, text := range map[string]string{"above": c.Above, "below": c.Below, "outside": c.Outside} {
		if text == "" {
			continue
		}
		all, err := levels("--"+op, text, 1+min(1, len(c.Outside)))
		if err != nil {
			return err
		}
		b["op"], b["level"] = op, all[0]
		if len(all) == 2 {
			b["high"] = all[1]
		}
		return nil
	}
	switch {
	case c.Equals != "":
		b["op"] = "equals"
		if f, err := strconv.ParseFloat(c.Equals, 64); err == nil {
			b["level"] = f
		} else {
			b["text"] = c.Equals
		}
	case c.Silence != "":
		b["kind"] = "silence"
	case c.Expression != "":
		b["kind"] = "expression"
	}
	return nil
}

// levels reads so many numbers with commas.
func levels(flag, text string, many int) ([]float64, error) {
	var all []float64
	wrong := usagef("%s is a number, as 8 or -2.5", flag)
	if many == 2 {
		wrong = usagef("%s is two numbers, the lower first, as 2,8", flag)
	}
	for part := range strings.SplitSeq(text, ",") {
		f, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
		if err != nil {
			return nil, wrong
		}
		all = append(all, f)
	}
	if len(all) != many {
		return nil, wrong
	}
	return all, nil
}

func (c *alarmAddCmd) Run(a *app) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	path := "/v1/alarms"
	if c.Change {
		path = named(path, c.Name)
	}
	var x api.Alarm
	if err := hub.Do(a.ctx, http.MethodPost, path, body, &x); err != nil {
		return err
	}
	return c.print(a, x, alarmHeader(), [][]string{alarmRow(x)})
}

func alarmHeader() []string {
	return []string{"ID", "NAME", "KIND", "PURPOSE", "SEVERITY", "STATE", "FIRING", "OF", "REASON"}
}

func alarmRow(x api.Alarm) []string {
	of := 0
	for _, n := range x.Counts {
		of += n
	}
	state, reason := x.State, x.Reason
	if x.Muted != nil {
		state, reason = state+", muted until "+whenever(x.Muted), x.MuteReason
	}
	return []string{x.ID, x.Name, x.Kind, x.Purpose, x.Severity, state, strconv.Itoa(x.Counts["firing"] + x.Counts["acknowledged"]), strconv.Itoa(of), reason}
}

type alarmListCmd struct {
	hubFlags
	outputFlags
}

func (*alarmListCmd) Help() string {
	return `Lists the alarms of your party; a program's token those that it has made.

Example:
  holdfast alarm list --token my.token --hub https://HOST:8443`
}

func (c *alarmListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	list, err := all[api.Alarm](a, hub, "/v1/alarms")
	if err != nil {
		return err
	}
	rows := make([][]string, len(list))
	for i, x := range list {
		rows[i] = alarmRow(x)
	}
	return c.print(a, list, alarmHeader(), rows)
}

type alarmShowCmd struct {
	Alarm string `arg:"" help:"Its name or id."`
	hubFlags
	outputFlags
}

func (*alarmShowCmd) Help() string {
	return `Shows each stream that an alarm watches, or each element that its expression yields, with where it stands; -o json shows what it waits for, too.

Example:
  holdfast alarm show too-warm --token my.token --hub https://HOST:8443`
}

func (c *alarmShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var x api.Alarm
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/alarms", c.Alarm), nil, &x); err != nil {
		return err
	}
	rows := make([][]string, len(x.Instances))
	for i, n := range x.Instances {
		value := ""
		if n.Value != nil {
			value = strings.TrimSpace(fmt.Sprint(n.Value, " ", n.Unit))
		}
		rows[i] = []string{n.ID, instanceName(n), n.State, whenever(n.Since), value, whenever(n.Muted), n.Note}
	}
	if x.State == "denied" && !c.json() {
		fmt.Fprintf(a.stdout, "The alarm is denied: %s\n", cell(x.Reason))
		return nil
	}
	return c.print(a, x, []string{"INSTANCE", "WHAT", "STATE", "SINCE", "VALUE", "MUTED", "NOTE"}, rows)
}

func instanceName(n api.AlarmInstance) string {
	what := n.DeviceName
	if what == "" {
		what = n.Device
	}
	if n.Stream != "" {
		what += "/" + n.Stream
	}
	for k, v := range n.Labels {
		what += " " + k + "=" + v
	}
	return strings.TrimSpace(what)
}

type alarmAckCmd struct {
	Alarm    string `arg:"" help:"Its name or id."`
	Instance string `help:"Only this instance, by its id; all that fire, if left out." placeholder:"ID" env:"-"`
	Note     string `help:"What you know of it." placeholder:"TEXT" env:"-"`
	hubFlags
	outputFlags
}

func (*alarmAckCmd) Help() string {
	return `Says that you know of what fires: it is not said again, until it is resolved and fires anew. Who did it, when and with what note is shown, and on
record.

Example:
  holdfast alarm ack too-warm --note "the door was open" --token my.token --hub https://HOST:8443`
}

func (c *alarmAckCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var x api.Alarm
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/alarms", c.Alarm)+"/ack", map[string]any{"instance": c.Instance, "note": c.Note}, &x); err != nil {
		return err
	}
	return c.print(a, x, alarmHeader(), [][]string{alarmRow(x)})
}

type alarmMuteCmd struct {
	Alarm    string `arg:"" help:"Its name or id."`
	Until    string `help:"Until when: RFC 3339, or +2h." placeholder:"TIME" env:"-"`
	Off      bool   `help:"It is heard again." env:"-"`
	Instance string `help:"Only this instance, by its id." placeholder:"ID" env:"-"`
	Reason   string `help:"Why." placeholder:"TEXT" env:"-"`
	hubFlags
	outputFlags
}

func (*alarmMuteCmd) Help() string {
	return `Keeps an alarm, or one stream of it, from saying anything until a time. It goes on looking: what fires meanwhile and is not over by then is said then.

Example:
  holdfast alarm mute too-warm --until +2h --reason "defrosting" --token my.token --hub https://HOST:8443
  holdfast alarm mute too-warm --off --token my.token --hub https://HOST:8443`
}

func (c *alarmMuteCmd) Run(a *app) error {
	if c.Off == (c.Until != "") {
		return usagef("say until when, with --until, or --off")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := map[string]any{"instance": c.Instance, "reason": c.Reason}
	if c.Until != "" {
		body["until"] = c.Until
	}
	var x api.Alarm
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/alarms", c.Alarm)+"/mute", body, &x); err != nil {
		return err
	}
	return c.print(a, x, alarmHeader(), [][]string{alarmRow(x)})
}

type alarmHistoryCmd struct {
	Alarm string `arg:"" help:"Its name or id."`
	Limit int    `help:"How many, at most." default:"100" placeholder:"N" env:"-"`
	hubFlags
	outputFlags
}

func (*alarmHistoryCmd) Help() string {
	return `Shows what happened to an alarm, the newest first: of 90 days, 1,000 events at most.

Example:
  holdfast alarm history too-warm --token my.token --hub https://HOST:8443`
}

func (c *alarmHistoryCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var page api.Page[api.AlarmEvent]
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/alarms", c.Alarm)+"/history?limit="+strconv.Itoa(min(max(c.Limit, 1), 1000)), nil, &page); err != nil {
		return err
	}
	rows := make([][]string, len(page.Items))
	for i, e := range page.Items {
		value := ""
		if e.Value != nil {
			value = strings.TrimSpace(fmt.Sprint(e.Value, " ", e.Unit))
		}
		rows[i] = []string{whenever(e.At), e.Kind, instanceName(api.AlarmInstance{Device: e.Device, DeviceName: e.DeviceName, Stream: e.Stream}), value, whenever(e.Until), e.Note}
	}
	return c.print(a, page.Items, []string{"WHEN", "WHAT", "OF", "VALUE", "UNTIL", "NOTE"}, rows)
}

type alarmTestCmd struct {
	Alarm string `arg:"" help:"Its name or id."`
	hubFlags
	outputFlags
}

func (*alarmTestCmd) Help() string {
	return `Sends a message that is marked as a test to every webhook and mail address that an alarm tells.

Example:
  holdfast alarm test too-warm --token my.token --hub https://HOST:8443`
}

func (c *alarmTestCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var x api.AlarmTest
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/alarms", c.Alarm)+"/test", nil, &x); err != nil {
		return err
	}
	return c.print(a, x, []string{"SENT", "MESSAGE"}, [][]string{{strconv.Itoa(x.Sent), x.Message}})
}

type alarmEndCmd struct {
	Alarm string `arg:"" help:"Its name or id."`
	hubFlags
}

func (*alarmEndCmd) Help() string {
	return `Ends an alarm, with its history. That there was one stays on the record.

Example:
  holdfast alarm end too-warm --token my.token --hub https://HOST:8443`
}

func (c *alarmEndCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/alarms", c.Alarm), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Alarm %s has ended.\n", cell(c.Alarm))
	return nil
}
