package alarm

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Status is a rule and how it fares, as a caller may see it.
type Status struct {
	ID         holdfast.AlarmID
	Party      holdfast.PartyID
	Spec       Spec
	Purpose    holdfast.Purpose
	Credential holdfast.CredentialID
	Made       time.Time
	State      string // ok | pending | firing | acknowledged | denied
	Reason     string // of denied
	Looked     time.Time
	Muted      time.Time
	MuteReason string
	Counts     map[Phase]int
	Instances  []Instance // none while it is denied
}

// Instance is one stream, or one element of an expression.
type Instance struct {
	ID     string
	Device holdfast.DeviceID
	Name   string
	Stream string
	Unit   string
	Labels map[string]string
	Phase  Phase
	Since  time.Time // of pending and firing
	Value  any       // nil: none
	Acked  time.Time
	By     holdfast.CredentialID
	Note   string
	Muted  time.Time
	Reason string
}

// Event is something that happened to a rule.
type Event struct {
	At       time.Time
	Kind     string
	Instance string
	Device   holdfast.DeviceID
	Name     string
	Stream   string
	Unit     string
	Value    any
	By       holdfast.CredentialID
	Note     string
	Until    time.Time
}

// List returns the rules that a caller may know of, by name.
func (a *Alarms) List(by access.Principal) []Status {
	var all []Status
	for _, r := range a.all() {
		r.mu.Lock()
		if r.sees(by) {
			all = append(all, r.statusLocked(by))
		}
		r.mu.Unlock()
	}
	slices.SortFunc(all, func(x, y Status) int {
		return cmp.Or(cmp.Compare(x.Spec.Name, y.Spec.Name), slices.Compare(x.ID[:], y.ID[:]))
	})
	return all
}

// Show returns one rule, by name or id.
func (a *Alarms) Show(by access.Principal, text string) (Status, error) {
	r, err := a.find(by, text)
	if err != nil {
		return Status{}, err
	}
	return r.status(by), nil
}

func (r *rule) status(by access.Principal) Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statusLocked(by)
}

// knows reports whether a caller may see what a rule found about an owner's data: who
// made the rule, and who the owner is.
func (r *rule) knows(by access.Principal, owner holdfast.PartyID) bool {
	return r.mine(by) || !owner.IsZero() && owner == by.Party
}

func (r *rule) statusLocked(by access.Principal) Status {
	s := Status{ID: r.id, Party: r.party, Spec: r.spec.Spec, Purpose: r.spec.Purpose, Credential: r.spec.Credential, Made: holdfast.Instant(r.spec.Made),
		State: r.word(), Reason: r.state.Denied, Looked: holdfast.Instant(r.state.Looked), Muted: holdfast.Instant(r.state.Muted), MuteReason: r.state.Reason, Counts: map[Phase]int{}}
	for _, i := range r.sorted() {
		s.Counts[i.shownPhase()]++
		if r.state.Denied != "" || !r.knows(by, i.Owner) {
			continue
		}
		x := Instance{ID: i.id.String(), Device: i.Device, Name: i.Name, Stream: i.Stream, Unit: i.Unit, Labels: maps.Clone(i.labels), Phase: i.shownPhase(),
			Since: holdfast.Instant(i.Since), Acked: holdfast.Instant(i.Acked), By: i.By, Note: i.Note, Muted: holdfast.Instant(i.Muted), Reason: i.Reason}
		switch {
		case i.Mark == 0 && r.spec.Kind != Expression, r.spec.Kind == Silence:
		case r.spec.Text != "":
			x.Value = i.Text
		default:
			x.Value = finite(i.Value)
		}
		s.Instances = append(s.Instances, x)
	}
	return s
}

// Count returns how many alarms a party has.
func (a *Alarms) Count(party holdfast.PartyID) (n int) {
	for _, r := range a.all() {
		if r.party == party {
			n++
		}
	}
	return n
}

// Acknowledge says that somebody knows of what fires: all of a rule, or one instance.
// It is not said again then.
func (a *Alarms) Acknowledge(ctx context.Context, by access.Principal, text, only, note string) (Status, error) {
	return a.mark(ctx, by, text, only, note, "acknowledged", time.Time{})
}

// Mute keeps a rule, or one instance, from saying anything until a time; the zero
// time ends that. What fires meanwhile and does not end before is said then.
func (a *Alarms) Mute(ctx context.Context, by access.Principal, text, only, reason string, until time.Time) (Status, error) {
	now := a.now()
	switch {
	case !until.IsZero() && !until.After(now):
		return Status{}, holdfast.Errorf(holdfast.Invalid, "an alarm is muted until a time that is still to come")
	case until.After(now.Add(366 * 24 * time.Hour)):
		return Status{}, holdfast.Errorf(holdfast.Invalid, "an alarm is muted for a year at most")
	case !until.IsZero() && reason == "":
		return Status{}, holdfast.Errorf(holdfast.Invalid, "say why the alarm is muted: who finds it silent must be able to see that")
	}
	kind := "muted"
	if until.IsZero() {
		kind = "unmuted"
	}
	return a.mark(ctx, by, text, only, reason, kind, until)
}

// mark writes down what somebody says about a rule or an instance.
func (a *Alarms) mark(ctx context.Context, by access.Principal, text, only, note, kind string, until time.Time) (Status, error) {
	if len(note) > maxNote {
		return Status{}, holdfast.Errorf(holdfast.TooLarge, "a note has at most %d bytes", maxNote)
	}
	r, err := a.find(by, text)
	if err != nil {
		return Status{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	undo := r.snapshot()
	now := a.now()
	ns := int64(0)
	if !until.IsZero() {
		ns = until.UnixNano()
	}
	l := &looking{a: a, r: r, now: now.UnixNano()}
	touched := 0
	for _, i := range r.sorted() {
		if only != "" && i.id.String() != only || only != "" && !r.knows(by, i.Owner) {
			continue
		}
		switch {
		case kind == "acknowledged" && i.Phase == Firing && i.Acked == 0:
			i.Acked, i.By, i.Note, i.dirty = l.now, by.Credential, note, true
			i.Owed &^= owedFiring
		case kind != "acknowledged" && only != "":
			i.Muted, i.Reason, i.dirty = ns, note, true
		default:
			continue
		}
		touched++
		e := event{At: l.now, Kind: kind, Instance: i.id, assignment: i.assignment, By: by.Credential, Note: note, Until: ns, named: i.named()}
		l.events = append(l.events, e)
	}
	switch {
	case kind != "acknowledged" && only == "":
		r.state.Muted, r.state.Reason = ns, note
		l.events = append(l.events, event{At: l.now, Kind: kind, By: by.Credential, Note: note, Until: ns})
	case touched == 0 && only != "" && kind != "acknowledged":
		return Status{}, holdfast.Errorf(holdfast.NotFound, "the alarm watches no such stream")
	case touched == 0:
		return Status{}, holdfast.Errorf(holdfast.Conflict, "nothing of this alarm fires that was not acknowledged already")
	}
	if err := a.commit(ctx, l, nil, 0); err != nil {
		undo()
		return Status{}, err
	}
	x := ruleEvent{Alarm: r.id, By: by.Credential}
	if !until.IsZero() {
		x.Until = &until
	}
	err = a.Catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := a.Ledger.Append(ctx, tx, vault.OfParty(r.party), "alarm "+kind, x)
		return err
	})
	return r.statusLocked(by), err
}

// History returns what happened to a rule, the newest first. Of somebody else's streams
// that it may not look at any more there is no name and no value.
func (a *Alarms) History(ctx context.Context, by access.Principal, text string) ([]Event, error) {
	r, err := a.find(by, text)
	if err != nil {
		return nil, err
	}
	rows, err := a.readEvents(ctx, r)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Event, 0, len(rows))
	for _, e := range rows {
		x := Event{At: holdfast.Instant(e.At), Kind: e.Kind, By: e.By, Note: e.Note, Until: holdfast.Instant(e.Until)}
		if !e.Instance.IsZero() {
			x.Instance = e.Instance.String()
		}
		if _, watched := r.instances[e.Instance]; e.Owner == by.Party || r.state.Denied == "" && watched && r.knows(by, e.Owner) {
			x.Device, x.Name, x.Stream, x.Unit = e.Device, e.Name, e.Stream, e.Unit
			switch {
			case e.Kind != "fired" && e.Kind != "resolved", e.assignment.IsZero(), r.spec.Kind == Silence:
			case e.Text != "":
				x.Value = e.Text
			default:
				x.Value = finite(e.Value)
			}
		}
		all = append(all, x)
	}
	return all, nil
}

// States counts rules by their state, for metrics and doctor.
func (a *Alarms) States() map[string]int {
	out := map[string]int{}
	for _, r := range a.all() {
		r.mu.Lock()
		out[r.word()]++
		r.mu.Unlock()
	}
	return out
}
