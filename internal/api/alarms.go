package api

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/alarm"
)

// AlarmSpec is what an alarm is.
type AlarmSpec struct {
	Name       string   `json:"name" minLength:"1"`
	Kind       string   `json:"kind" enum:"threshold,rate,silence,expression"`
	Purpose    string   `json:"purpose,omitempty" doc:"Why; may be left out by who holds one."`
	Severity   string   `json:"severity,omitempty" enum:"info,warning,critical" default:"warning"`
	Device     string   `json:"device,omitempty" doc:"By label or id; left out: each device of the owner that has such a stream."`
	Owner      string   `json:"owner,omitempty" doc:"Whose devices, by name or id; left out: the caller's own."`
	Stream     string   `json:"stream,omitempty" doc:"A name; of an expression none."`
	Grant      string   `json:"grant,omitempty" doc:"The grant to read under; default whichever fits."`
	Op         string   `json:"op,omitempty" enum:"above,below,outside,equals" doc:"Of a threshold or a rate."`
	Level      float64  `json:"level,omitempty" doc:"Of outside the lower one."`
	High       float64  `json:"high,omitempty" doc:"Of outside the higher one."`
	Text       string   `json:"text,omitempty" doc:"What a text is equal to."`
	Clear      *float64 `json:"clear,omitempty" doc:"Where it ends, if not at the level."`
	ClearHigh  *float64 `json:"clear_high,omitempty" doc:"Of outside, the higher one."`
	Per        string   `json:"per,omitempty" doc:"Of a rate: within which time the value changes by so much, as 10m."`
	Silence    string   `json:"silence,omitempty" doc:"How long there is no reading, as 15m."`
	Expression string   `json:"expression,omitempty" maxLength:"4096" doc:"In PromQL: each element that it yields is one that fires."`
	For        string   `json:"for,omitempty" doc:"How long it must be so before the alarm fires, as 5m."`
	Keep       string   `json:"keep,omitempty" doc:"How long it must be over before the alarm is resolved."`
	Every      string   `json:"every,omitempty" doc:"How often it looks; default 10s."`
	Late       string   `json:"late,omitempty" doc:"Of several devices: how late readings may come; default 2m."`
	Repeat     string   `json:"repeat,omitempty" doc:"How often it says again what nobody has acknowledged; left out: never."`
	Gather     string   `json:"gather,omitempty" doc:"How far apart its messages are at least; default 1m for several devices, 0s for one."`
	Message    string   `json:"message,omitempty" maxLength:"500" doc:"What it says, with {alarm}, {severity}, {state}, {count}, {device}, {stream}, {value}, {unit}, {level}, {since}."`
	Webhooks   []string `json:"webhooks,omitempty" maxItems:"10" doc:"By name or id."`
	Mail       []string `json:"mail,omitempty" maxItems:"10" doc:"Addresses."`
}

// Alarm is a rule and how it fares.
type Alarm struct {
	ID string `json:"id"`
	AlarmSpec
	Party      *PartyRef       `json:"party"`
	Credential string          `json:"credential" doc:"Under which it reads."`
	State      string          `json:"state" enum:"ok,pending,firing,acknowledged,denied"`
	Reason     string          `json:"reason,omitempty" doc:"Why it is denied."`
	Made       *time.Time      `json:"made"`
	Looked     *time.Time      `json:"looked,omitempty"`
	Muted      *time.Time      `json:"muted,omitempty" doc:"Until when."`
	MuteReason string          `json:"mute_reason,omitempty"`
	Counts     map[string]int  `json:"counts" doc:"How many streams, or elements, are in which state."`
	Instances  []AlarmInstance `json:"instances" doc:"Those that the caller may know of; none while it is denied."`
}

// AlarmInstance is one stream, or one element of an expression.
type AlarmInstance struct {
	ID         string            `json:"id"`
	Device     string            `json:"device,omitempty"`
	DeviceName string            `json:"device_name,omitempty"`
	Stream     string            `json:"stream,omitempty"`
	Unit       string            `json:"unit,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	State      string            `json:"state" enum:"ok,pending,firing,acknowledged"`
	Since      *time.Time        `json:"since,omitempty"`
	Value      any               `json:"value,omitempty"`
	Acked      *time.Time        `json:"acked,omitempty"`
	By         string            `json:"by,omitempty" doc:"The credential that acknowledged it."`
	Note       string            `json:"note,omitempty"`
	Muted      *time.Time        `json:"muted,omitempty"`
	MuteReason string            `json:"mute_reason,omitempty"`
}

// AlarmEvent is something that happened to an alarm.
type AlarmEvent struct {
	At         *time.Time `json:"at"`
	Kind       string     `json:"kind" enum:"fired,resolved,acknowledged,muted,unmuted,denied,allowed"`
	Instance   string     `json:"instance,omitempty"`
	Device     string     `json:"device,omitempty"`
	DeviceName string     `json:"device_name,omitempty"`
	Stream     string     `json:"stream,omitempty"`
	Value      any        `json:"value,omitempty"`
	Unit       string     `json:"unit,omitempty"`
	By         string     `json:"by,omitempty"`
	Note       string     `json:"note,omitempty"`
	Until      *time.Time `json:"until,omitempty"`
}

// AlarmTest is what a test of an alarm says, and to how many.
type AlarmTest struct {
	Message string `json:"message"`
	Sent    int    `json:"sent"`
}

type ackAlarm struct {
	ID   string `path:"id"`
	Body struct {
		Instance string `json:"instance,omitempty" doc:"By id; left out: all that fire."`
		Note     string `json:"note,omitempty" maxLength:"1000"`
	}
}

type muteAlarm struct {
	ID   string `path:"id"`
	Body struct {
		Instance string `json:"instance,omitempty" doc:"By id; left out: the whole alarm."`
		Until    string `json:"until,omitempty" doc:"RFC 3339, or +2h; left out: it is heard again."`
		Reason   string `json:"reason,omitempty" maxLength:"1000"`
	}
}

type alarmID struct {
	ID string `path:"id" doc:"A name or an id."`
}

func (a *API) alarms() {
	if a.Alarms == nil {
		return
	}
	who := []access.Role{access.Owner, access.Administrator, access.Program}
	handle(a, route{method: "POST", path: "/v1/alarms", summary: "Make an alarm. It reads under the caller's credential, for its purpose.", status: http.StatusCreated, rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *struct{ Body AlarmSpec }) (*reply[Alarm], error) {
			s, err := a.alarmSpec(ctx, by, &in.Body)
			if err != nil {
				return nil, err
			}
			x, err := a.Alarms.Add(ctx, by, holdfast.Purpose(in.Body.Purpose), s)
			return a.alarmReply(ctx, by, x, err)
		})
	handle(a, route{method: "GET", path: "/v1/alarms", summary: "List alarms: one's own party's; a program its own.", rule: reads(who...)}, a.listAlarms)
	handle(a, route{method: "GET", path: "/v1/alarms/{id}", summary: "Show an alarm.", rule: reads(who...)},
		func(ctx context.Context, by access.Principal, in *alarmID) (*reply[Alarm], error) {
			x, err := a.Alarms.Show(by, in.ID)
			return a.alarmReply(ctx, by, x, err)
		})
	handle(a, route{method: "POST", path: "/v1/alarms/{id}", summary: "Change an alarm: it begins anew, under the caller's credential.", rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *struct {
			ID   string `path:"id" doc:"A name or an id."`
			Body AlarmSpec
		}) (*reply[Alarm], error) {
			if _, err := a.Alarms.Show(by, in.ID); err != nil {
				return nil, err
			}
			s, err := a.alarmSpec(ctx, by, &in.Body)
			if err != nil {
				return nil, err
			}
			x, err := a.Alarms.Change(ctx, by, in.ID, holdfast.Purpose(in.Body.Purpose), s)
			return a.alarmReply(ctx, by, x, err)
		})
	handle(a, route{method: "DELETE", path: "/v1/alarms/{id}", summary: "End an alarm, with its history.", rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *alarmID) (*nothing, error) {
			return &nothing{}, a.Alarms.End(ctx, by, in.ID)
		})
	handle(a, route{method: "POST", path: "/v1/alarms/{id}/ack", summary: "Say that somebody knows of what fires: it is not said again.", rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *ackAlarm) (*reply[Alarm], error) {
			x, err := a.Alarms.Acknowledge(ctx, by, in.ID, in.Body.Instance, in.Body.Note)
			return a.alarmReply(ctx, by, x, err)
		})
	handle(a, route{method: "POST", path: "/v1/alarms/{id}/mute", summary: "Keep an alarm from saying anything for a while.", rule: writes(who...)}, a.muteAlarm)
	handle(a, route{method: "POST", path: "/v1/alarms/{id}/test", summary: "Send a test to all whom an alarm tells.", rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *alarmID) (*reply[AlarmTest], error) {
			n, sent, err := a.Alarms.Test(ctx, by, in.ID)
			return &reply[AlarmTest]{AlarmTest{Message: n.Data.Message, Sent: sent}}, err
		})
	handle(a, route{method: "GET", path: "/v1/alarms/{id}/history", summary: "What happened to an alarm, the newest first.", rule: reads(who...)}, a.alarmHistory)
}

func (a *API) muteAlarm(ctx context.Context, by access.Principal, in *muteAlarm) (*reply[Alarm], error) {
	var until time.Time
	if in.Body.Until != "" {
		ns, err := ParseTime(in.Body.Until, time.Now(), true)
		if err != nil {
			return nil, err
		}
		until = time.Unix(0, ns)
	}
	x, err := a.Alarms.Mute(ctx, by, in.ID, in.Body.Instance, in.Body.Reason, until)
	return a.alarmReply(ctx, by, x, err)
}

// alarmSpec reads names, durations and ids.
func (a *API) alarmSpec(ctx context.Context, by access.Principal, in *AlarmSpec) (s alarm.Spec, err error) {
	s = alarm.Spec{Name: in.Name, Severity: in.Severity, Message: in.Message, Stream: in.Stream, Mail: in.Mail,
		Condition: alarm.Condition{Kind: alarm.Kind(in.Kind), Op: alarm.Op(in.Op), Level: in.Level, High: in.High, Text: in.Text, Clear: in.Clear, ClearHigh: in.ClearHigh, Expression: in.Expression}}
	if in.Purpose != "" && holdfast.Purpose(in.Purpose) != holdfast.OwnAccess && !a.Grants.Live(ctx, holdfast.Purpose(in.Purpose)) {
		return s, holdfast.Errorf(holdfast.Denied, "the purpose does not exist or has ended")
	}
	switch {
	case in.Kind == string(alarm.Expression):
		if in.Device != "" || in.Owner != "" {
			return s, holdfast.Errorf(holdfast.Invalid, "an expression names its streams itself: leave out device, owner and stream")
		}
	default:
		q, err := a.selection(ctx, by, &readingsInput{Device: in.Device, Owner: in.Owner, Stream: in.Stream})
		if err != nil {
			return s, err
		}
		s.Device, s.Owner = q.Device, q.Party
		if !s.Owner.IsZero() {
			s.Gather = time.Minute
		}
	}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{{"per", in.Per, &s.Per}, {"silence", in.Silence, &s.Silence}, {"for", in.For, &s.For}, {"keep", in.Keep, &s.Keep},
		{"every", in.Every, &s.Every}, {"late", in.Late, &s.Late}, {"repeat", in.Repeat, &s.Repeat}, {"gather", in.Gather, &s.Gather}} {
		if d.text == "" {
			continue
		}
		if *d.to, err = ParseDuration(d.text); err != nil {
			return s, holdfast.Errorf(holdfast.Invalid, "%s: %w", d.name, err)
		}
	}
	if in.Grant != "" {
		if s.Grant, err = holdfast.ParseID[holdfast.GrantID](in.Grant); err != nil {
			return s, holdfast.Errorf(holdfast.Invalid, "a grant is named by its id, as grant list shows it")
		}
	}
	for _, name := range in.Webhooks {
		w, err := a.Outbox.Webhook(ctx, by.Party, name)
		if err != nil {
			return s, err
		}
		s.Webhooks = append(s.Webhooks, w.ID)
	}
	return s, nil
}

func (a *API) listAlarms(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Alarm]], error) {
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(a.Alarms.List(by), func(s alarm.Status) string { return s.ID.String() }, in.Paging)
	return &reply[Page[Alarm]]{mapped(page, func(s alarm.Status) Alarm { return alarmDoc(s, n) })}, err
}

func (a *API) alarmReply(ctx context.Context, by access.Principal, s alarm.Status, err error) (*reply[Alarm], error) {
	if err != nil {
		return nil, err
	}
	n, err := a.namesOf(ctx, by, s.Party)
	return &reply[Alarm]{alarmDoc(s, n)}, err
}

// span of time in a document; nothing for none.
func lasting(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func alarmDoc(s alarm.Status, n names) Alarm {
	c := s.Spec
	out := Alarm{ID: s.ID.String(), Party: n.ref(s.Party), Credential: s.Credential.String(), State: s.State, Reason: s.Reason, Made: moment(s.Made), Looked: moment(s.Looked),
		Counts: map[string]int{}, Instances: []AlarmInstance{},
		AlarmSpec: AlarmSpec{Name: c.Name, Kind: string(c.Kind), Purpose: string(s.Purpose), Severity: c.Severity, Stream: c.Stream, Op: string(c.Op), Level: c.Level, High: c.High, Text: c.Text,
			Clear: c.Clear, ClearHigh: c.ClearHigh, Per: lasting(c.Per), Silence: lasting(c.Silence), Expression: c.Expression, For: lasting(c.For), Keep: lasting(c.Keep),
			Every: lasting(c.Every), Late: lasting(c.Late), Repeat: lasting(c.Repeat), Gather: lasting(c.Gather), Message: c.Message, Mail: c.Mail}}
	if !c.Device.IsZero() {
		out.Device = c.Device.String()
	}
	if !c.Owner.IsZero() {
		out.Owner = c.Owner.String()
	}
	if !c.Grant.IsZero() {
		out.Grant = c.Grant.String()
	}
	for _, w := range c.Webhooks {
		out.Webhooks = append(out.Webhooks, w.String())
	}
	if s.Muted.After(time.Now()) {
		out.Muted, out.MuteReason = moment(s.Muted), s.MuteReason
	}
	for phase, many := range s.Counts {
		out.Counts[string(phase)] = many
	}
	for _, i := range s.Instances {
		x := AlarmInstance{ID: i.ID, DeviceName: i.Name, Stream: i.Stream, Unit: i.Unit, Labels: i.Labels, State: string(i.Phase), Since: moment(i.Since), Value: i.Value,
			Acked: moment(i.Acked), Note: i.Note}
		if !i.Device.IsZero() {
			x.Device = i.Device.String()
		}
		if !i.By.IsZero() {
			x.By = i.By.String()
		}
		if i.Muted.After(time.Now()) {
			x.Muted, x.MuteReason = moment(i.Muted), i.Reason
		}
		out.Instances = append(out.Instances, x)
	}
	return out
}

func (a *API) alarmHistory(ctx context.Context, by access.Principal, in *struct {
	ID    string `path:"id" doc:"A name or an id."`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many, at most."`
}) (*reply[Page[AlarmEvent]], error) {
	all, err := a.Alarms.History(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	out := Page[AlarmEvent]{Items: []AlarmEvent{}}
	for _, e := range all[:min(len(all), in.Limit)] {
		x := AlarmEvent{At: moment(e.At), Kind: e.Kind, Instance: e.Instance, DeviceName: e.Name, Stream: e.Stream, Value: e.Value, Unit: e.Unit, Note: e.Note, Until: moment(e.Until)}
		if !e.Device.IsZero() {
			x.Device = e.Device.String()
		}
		if !e.By.IsZero() {
			x.By = e.By.String()
		}
		out.Items = append(out.Items, x)
	}
	return &reply[Page[AlarmEvent]]{out}, nil
}
