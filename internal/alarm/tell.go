package alarm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/outbox"
)

// What a message says at most.
const (
	maxNamed  = 10   // instances by name
	maxSaid   = 1000 // bytes of its sentence
	maxLabels = 16
)

// fields are what may stand in braces in a message.
func fields() []string {
	return []string{"alarm", "severity", "state", "count", "device", "stream", "value", "unit", "level", "since"}
}

func checkTemplate(text string) error {
	if len(text) > maxMessage {
		return holdfast.Errorf(holdfast.TooLarge, "a message has at most %d bytes", maxMessage)
	}
	_, err := fill(text, func(string) string { return "" })
	return err
}

// fill puts values in for the fields of a message.
func fill(text string, value func(field string) string) (string, error) {
	var out strings.Builder
	for {
		before, rest, open := strings.Cut(text, "{")
		out.WriteString(before)
		if !open {
			return out.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || !slices.Contains(fields(), name) {
			return "", holdfast.Errorf(holdfast.Invalid, "in a message, braces have one of %s", strings.Join(fields(), ", "))
		}
		out.WriteString(value(name))
		text = after
	}
}

// Notice is the body of a webhook, and what a mail says.
type Notice struct {
	Type      string    `json:"type"` // alarm.firing | alarm.resolved | alarm.test
	Timestamp time.Time `json:"timestamp"`
	Data      struct {
		Alarm struct {
			ID       holdfast.AlarmID `json:"id"`
			Name     string           `json:"name"`
			Severity string           `json:"severity"`
			Kind     Kind             `json:"kind"`
			Purpose  holdfast.Purpose `json:"purpose"`
		} `json:"alarm"`
		Message   string  `json:"message"`
		Repeated  bool    `json:"repeated,omitempty"` // it was said before, and nobody has acknowledged it
		Count     int     `json:"count"`              // of all, also those that are not among Instances
		Instances []Noted `json:"instances,omitempty"`
	} `json:"data"`
}

// Noted is one instance in a Notice.
type Noted struct {
	ID     string            `json:"id"`
	Device string            `json:"device,omitempty"`
	Name   string            `json:"device_name,omitempty"`
	Stream string            `json:"stream,omitempty"`
	Value  any               `json:"value,omitempty"`
	Unit   string            `json:"unit,omitempty"`
	Since  *time.Time        `json:"since,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// finish says what is to be said, and writes it down with what led to it.
func (a *Alarms) finish(ctx context.Context, l *looking) error {
	r := l.r
	var drafts []*outbox.Draft
	said := 0
	if l.now-r.state.Told >= int64(r.spec.Gather) {
		firing := l.pick(func(i *instance) bool { return i.Owed&owedFiring != 0 })
		resolved := l.pick(func(i *instance) bool { return i.Owed&owedResolved != 0 })
		drafts = append(drafts, a.tell(ctx, l, "alarm.firing", firing, false)...)
		drafts = append(drafts, a.tell(ctx, l, "alarm.resolved", resolved, false)...)
		for _, i := range slices.Concat(firing, resolved) {
			i.Owed, i.dirty = 0, true
		}
		said = len(firing) + len(resolved)
		if said == 0 && r.spec.Repeat > 0 && l.now-r.state.Told >= int64(r.spec.Repeat) {
			again := l.pick(func(i *instance) bool { return i.Phase == Firing && i.Acked == 0 })
			drafts = append(drafts, a.tell(ctx, l, "alarm.firing", again, true)...)
			said = len(again)
		}
		if said > 0 {
			r.state.Told = l.now
		}
	}
	if err := a.write(ctx, l, drafts, said); err != nil {
		return err
	}
	a.Outbox.Queue(drafts...)
	return nil
}

// pick returns those instances that are not muted, in order.
func (l *looking) pick(which func(*instance) bool) (out []*instance) {
	for _, i := range l.r.sorted() {
		if which(i) && !l.muted(i) {
			out = append(out, i)
		}
	}
	return out
}

// tell makes one message about instances for each target of a rule. A target that
// takes no more does not keep the alarm from the others, nor from its history.
func (a *Alarms) tell(ctx context.Context, l *looking, kind string, about []*instance, again bool) (drafts []*outbox.Draft) {
	if len(about) == 0 {
		return nil
	}
	n, subject, text := l.notice(kind, about, again)
	body, err := json.Marshal(n)
	if err != nil {
		return nil
	}
	var whose []holdfast.AssignmentID
	for _, i := range about[:min(len(about), maxNamed)] {
		if i.assignment.IsZero() {
			whose = []holdfast.AssignmentID{outbox.Anybody}
			break
		}
		whose = append(whose, i.assignment)
	}
	messages := make([]outbox.Message, 0, maxTargets)
	for _, w := range l.r.spec.Webhooks {
		messages = append(messages, outbox.Message{Party: l.r.party, Webhook: w, Body: body, About: whose, Alarm: l.r.id})
	}
	for _, to := range l.r.spec.Mail {
		messages = append(messages, outbox.Message{Party: l.r.party, To: to, Subject: subject, Body: []byte(text), About: whose, Alarm: l.r.id})
	}
	for _, m := range messages {
		d, err := a.Outbox.Prepare(ctx, m)
		if err != nil {
			a.log.WarnContext(ctx, "alarm: a message is not sent", "alarm", l.r.id, "kind", holdfast.KindOf(err).String())
			continue
		}
		drafts = append(drafts, d)
	}
	return drafts
}

// notice is what is said of instances.
func (l *looking) notice(kind string, about []*instance, again bool) (n Notice, subject, text string) {
	r := l.r
	n.Type, n.Timestamp = kind, time.Unix(0, l.now).UTC()
	n.Data.Alarm.ID, n.Data.Alarm.Name, n.Data.Alarm.Severity, n.Data.Alarm.Kind, n.Data.Alarm.Purpose = r.id, r.spec.Name, r.spec.Severity, r.spec.Kind, r.spec.Purpose
	n.Data.Count, n.Data.Repeated = len(about), again
	state := strings.TrimPrefix(kind, "alarm.")
	for _, i := range about[:min(len(about), maxNamed)] {
		n.Data.Instances = append(n.Data.Instances, i.noted(&r.spec.Condition))
	}
	n.Data.Message = r.sentence(state, about, n.Data.Instances)
	subject = safe(fmt.Sprintf("[%s] %s: %s", r.spec.Severity, r.spec.Name, state), 200)
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", n.Data.Message)
	for _, i := range n.Data.Instances {
		fmt.Fprintf(&b, "  %s\n", safe(i.line(), 300))
	}
	if more := len(about) - len(n.Data.Instances); more > 0 {
		fmt.Fprintf(&b, "  and %d more\n", more)
	}
	fmt.Fprintf(&b, "\nAlarm %s, for the purpose %s. To stop these messages: holdfast alarm ack, mute or end.\n", r.id, r.spec.Purpose)
	return n, subject, b.String()
}

func (i *instance) noted(c *Condition) Noted {
	n := Noted{ID: i.id.String(), Name: i.Name, Stream: i.Stream, Unit: i.Unit}
	if !i.Device.IsZero() {
		n.Device = i.Device.String()
	}
	switch {
	case c.Kind == Silence:
		n.Unit = ""
	case c.Text != "":
		n.Value = safe(i.Text, 256)
	default:
		n.Value = finite(i.Value)
	}
	if t := holdfast.Instant(i.Since); !t.IsZero() {
		n.Since = &t
	}
	for _, name := range slices.Sorted(maps.Keys(i.labels)) {
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		if len(n.Labels) < maxLabels {
			n.Labels[name] = safe(i.labels[name], 256)
		}
	}
	return n
}

// finite is a value as JSON can have it.
func finite(f float64) any {
	if f != f || f > 1.7e308 || f < -1.7e308 {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return f
}

func (n Noted) line() string {
	what := n.Name
	if what == "" {
		what = n.Device
	}
	if n.Stream != "" {
		what += "/" + n.Stream
	}
	for _, name := range slices.Sorted(maps.Keys(n.Labels)) {
		what += " " + name + "=" + n.Labels[name]
	}
	if n.Value != nil {
		what += fmt.Sprintf(": %v %s", n.Value, n.Unit)
	}
	return strings.TrimSpace(what)
}

// sentence is a rule's own message, or ours.
func (r *rule) sentence(state string, about []*instance, named []Noted) string {
	first := Noted{}
	if len(named) > 0 {
		first = named[0]
	}
	text := r.spec.Message
	if text == "" {
		text = "{alarm} is {state}: {device}/{stream} {value} {unit}"
		switch {
		case state == "test":
			text = "this is a {state} of {alarm}"
		case r.spec.Kind == Expression || len(about) == 0:
			text = "{alarm} is {state}"
		case r.spec.Kind == Silence:
			text = "{alarm} is {state}: {device}/{stream}"
		}
		if len(about) > 1 {
			text += ", one of {count}"
		}
	}
	out, err := fill(text, func(field string) string {
		switch field {
		case "alarm":
			return r.spec.Name
		case "severity":
			return r.spec.Severity
		case "state":
			return state
		case "count":
			return strconv.Itoa(len(about))
		case "device":
			if first.Name != "" {
				return first.Name
			}
			return first.Device
		case "stream":
			return first.Stream
		case "value":
			if first.Value == nil {
				return ""
			}
			return fmt.Sprint(first.Value)
		case "unit":
			return first.Unit
		case "level":
			return r.spec.level()
		case "since":
			if first.Since == nil {
				return ""
			}
			return first.Since.Format(time.RFC3339)
		}
		return ""
	})
	if err != nil {
		out = r.spec.Name
	}
	return safe(strings.TrimSpace(out), maxSaid)
}

func (c *Condition) level() string {
	number := func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
	switch {
	case c.Kind == Silence:
		return c.Silence.String()
	case c.Kind == Expression:
		return ""
	case c.Text != "":
		return c.Text
	case c.Op == Outside:
		return number(c.Level) + " to " + number(c.High)
	}
	return number(c.Level)
}

// safe is a text on one line, without what could steer who shows it.
func safe(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, text)
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most-3], "") + "…"
	}
	return text
}

// Test sends each target of a rule a message that is marked as a test, and returns
// what it says.
func (a *Alarms) Test(ctx context.Context, who caller, text string) (Notice, int, error) {
	r, err := a.find(who, text)
	if err != nil {
		return Notice{}, 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &looking{a: a, r: r, now: a.now().UnixNano()}
	n, subject, said := l.notice("alarm.test", nil, false)
	body, err := json.Marshal(n)
	if err != nil {
		return Notice{}, 0, err
	}
	sent := 0
	for _, w := range r.spec.Webhooks {
		if _, err := a.Outbox.Send(ctx, outbox.Message{Party: r.party, Webhook: w, Body: body, Test: true}); err != nil {
			return Notice{}, sent, err
		}
		sent++
	}
	for _, to := range r.spec.Mail {
		if _, err := a.Outbox.Send(ctx, outbox.Message{Party: r.party, To: to, Subject: subject, Body: []byte(said)}); err != nil {
			return Notice{}, sent, err
		}
		sent++
	}
	return n, sent, nil
}
