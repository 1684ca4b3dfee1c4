package alarm

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// look has one rule look once.
func (a *Alarms) look(ctx context.Context, r *rule, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.next.After(now) {
		return
	}
	began := time.Now()
	r.next = now.Add(r.spec.Every)
	undo := r.snapshot()
	l := &looking{a: a, r: r, now: now.UnixNano()}
	err := l.do(ctx)
	a.metrics.seconds.Observe(time.Since(began).Seconds())
	switch kind := holdfast.KindOf(err); {
	case err == nil && ctx.Err() == nil:
		a.metrics.looks.WithLabelValues("done").Inc()
	case ctx.Err() != nil, kind == holdfast.Unavailable, kind == holdfast.Internal:
		undo()
		a.metrics.looks.WithLabelValues("failed").Inc()
		a.log.WarnContext(ctx, "alarm: a rule could not look; it goes on from where it was", "alarm", r.id, "kind", kind.String())
	default: // it may not, or there is nothing any more
		undo()
		a.metrics.looks.WithLabelValues("denied").Inc()
		a.deny(ctx, r, err, now)
	}
}

// snapshot returns what puts a rule back to where it was: a look that was not written
// did not happen.
func (r *rule) snapshot() (undo func()) {
	state, events, before := r.state, r.events, make(map[instanceID]*instance, len(r.instances))
	for id, i := range r.instances {
		was := *i
		before[id] = &was
	}
	return func() {
		for _, i := range before {
			i.window = nil // it may have been written over
		}
		r.state, r.events, r.instances = state, events, before
	}
}

// looking is one look of one rule.
type looking struct {
	a      *Alarms
	r      *rule
	now    int64
	events []event
	gone   []instanceID
}

func (l *looking) do(ctx context.Context) error {
	r := l.r
	who, err := l.a.reader(ctx, r.party, &r.spec)
	if err != nil {
		return err
	}
	if r.spec.Kind == Expression {
		err = l.evaluate(ctx, who)
	} else {
		err = l.read(ctx, who)
	}
	if err != nil {
		return err
	}
	if r.state.Denied != "" {
		r.state.Denied = ""
		l.events = append(l.events, event{At: l.now, Kind: "allowed"})
	}
	r.state.Looked = l.now
	return l.a.finish(ctx, l)
}

// reader is who a rule reads as.
func (a *Alarms) reader(ctx context.Context, party holdfast.PartyID, s *info) (access.Principal, error) {
	who, err := a.Acting(ctx, s.Credential)
	if err != nil {
		return who, err
	}
	if !s.Actor.IsZero() {
		who.Actor, who.Party = who.Party, party
	}
	if who.Party != party {
		return who, holdfast.Errorf(holdfast.Denied, "the credential is another party's now")
	}
	return who, nil
}

// stillBack is how far back lies what a message tells of that is still to be sent:
// it is kept for some days.
const stillBack = 10 * 24 * time.Hour

// Still fails, Denied or NotFound, once a rule may not read any more what a message
// of it tells of, or is no more. Of an expression nobody can say whose readings it
// had: there it is the credential that counts.
func (a *Alarms) Still(ctx context.Context, id holdfast.AlarmID, about []holdfast.AssignmentID) error {
	a.mu.Lock()
	r := a.rules[id]
	a.mu.Unlock()
	if r == nil {
		return noAlarm()
	}
	r.mu.Lock()
	s, now := r.spec, a.now().UnixNano()
	r.mu.Unlock()
	who, err := a.reader(ctx, r.party, &s)
	if err != nil || s.Kind == Expression {
		return err
	}
	res, err := a.Read(ctx, query.Request{Who: who, Purpose: s.Purpose, Selection: s.selection(), Grant: s.Grant, Span: holdfast.Span{From: now - int64(stillBack), To: now}})
	if err != nil {
		return err
	}
	defer res.Close()
	for _, of := range about {
		if !slices.ContainsFunc(res.Sources, func(x *query.Source) bool { return x.Assignment == of }) {
			return holdfast.Errorf(holdfast.Denied, "the right to what the message tells of has ended")
		}
	}
	return nil
}

// read looks at streams: what came since the last look, from each stream's last
// reading on; where streams are watched together, not from before Late.
func (l *looking) read(ctx context.Context, who access.Principal) error {
	r, c := l.r, &l.r.spec.Condition
	res, err := l.a.Read(ctx, query.Request{Who: who, Purpose: r.spec.Purpose, Selection: r.spec.selection(), Grant: r.spec.Grant,
		Span: holdfast.Span{From: l.from(), To: l.now}})
	if err != nil {
		return err
	}
	defer res.Close()
	if len(res.Sources) > maxInstances {
		return holdfast.Errorf(holdfast.TooLarge, "an alarm watches at most %d streams", maxInstances)
	}
	fresh := make(map[instanceID][]point, len(res.Sources))
	for row, err := range res.Rows {
		if err != nil {
			return err
		}
		i := r.instances[row.StreamID]
		if i == nil || i.Mark == 0 || row.Time > i.Mark || c.Kind == Rate && i.window == nil {
			fresh[row.StreamID] = append(fresh[row.StreamID], pointOf(row.Reading))
		}
	}
	there := make(map[instanceID]bool, len(res.Sources))
	for _, s := range res.Sources {
		if s.StreamID.IsZero() {
			continue
		}
		there[s.StreamID] = true
		i := l.instance(s.StreamID, s.Assignment)
		i.know(s)
		l.changed(i, i.advance(c, fresh[s.StreamID], l.now))
	}
	l.leave(there)
	return nil
}

// from is where a look begins.
func (l *looking) from() int64 {
	r := l.r
	if r.state.Looked == 0 {
		return l.now - int64(firstBack)
	}
	from := l.now
	cold := int64(0)
	for _, i := range r.instances {
		if i.Mark == 0 {
			from = min(from, r.state.Looked-int64(r.spec.Late))
			continue
		}
		from = min(from, i.Mark+1)
		if r.spec.Kind == Rate && i.window == nil {
			cold = int64(r.spec.Per)
		}
	}
	if len(r.instances) != 1 {
		from = max(from, r.state.Looked-int64(r.spec.Late))
	}
	return max(from, l.now-int64(24*time.Hour)) - cold
}

// evaluate looks at an expression: what it yields is so, all else is not.
func (l *looking) evaluate(ctx context.Context, who access.Principal) error {
	r, c := l.r, &l.r.spec.Condition
	if l.a.Expressions == nil {
		return holdfast.Errorf(holdfast.Unavailable, "this hub evaluates no expressions")
	}
	all, err := l.a.Expressions.Evaluate(ctx, who, r.spec.Purpose, c.Expression, time.Unix(0, l.now))
	if err != nil {
		return err
	}
	if len(all) > maxInstances {
		return holdfast.Errorf(holdfast.TooLarge, "an expression yields at most %d elements", maxInstances)
	}
	there := make(map[instanceID]bool, len(all))
	for _, s := range all {
		id, err := l.a.idOfLabels(ctx, s.Labels)
		if err != nil {
			return err
		}
		if there[id] {
			continue
		}
		there[id] = true
		i := l.instance(id, holdfast.AssignmentID{})
		i.labels = s.Labels
		l.changed(i, i.observe(c, true, s.Value, l.now))
	}
	for id, i := range r.instances {
		if there[id] {
			continue
		}
		l.changed(i, i.observe(c, false, 0, l.now))
		if i.Phase == OK && i.Owed == 0 {
			delete(r.instances, id)
			l.gone = append(l.gone, id)
		}
	}
	return nil
}

// idOfLabels names an element: by all of its labels, which have names of devices. The
// catalog has it in clear, so it is keyed.
func (a *Alarms) idOfLabels(ctx context.Context, labels map[string]string) (id instanceID, err error) {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&b, "%q=%q,", name, labels[name])
	}
	sum, err := a.Vault.Hash(ctx, "alarm element", b.String())
	copy(id[:], sum)
	return id, err
}

func (l *looking) instance(id instanceID, assignment holdfast.AssignmentID) *instance {
	i := l.r.instances[id]
	if i == nil {
		i = &instance{id: id, assignment: assignment, dirty: true}
		i.machine = machine{Phase: OK, Seen: l.now}
		l.r.instances[id] = i
	}
	return i
}

// know keeps what a stream is called.
func (i *instance) know(s *query.Source) {
	if i.Device != s.Device || i.Name != s.DeviceName || i.Stream != s.Stream || i.Unit != s.Unit || i.Owner != s.Owner {
		i.Device, i.Name, i.Stream, i.Unit, i.Owner = s.Device, s.DeviceName, s.Stream, s.Unit, s.Owner
		i.dirty = true
	}
}

// leave forgets streams that are no more, or are not the reader's to read any more.
func (l *looking) leave(there map[instanceID]bool) {
	for id := range l.r.instances {
		if !there[id] {
			delete(l.r.instances, id)
			l.gone = append(l.gone, id)
		}
	}
}

// changed takes note of what an instance came to.
func (l *looking) changed(i *instance, all []change) {
	for _, c := range all {
		i.dirty = true
		e := event{At: c.at, Kind: "fired", Instance: i.id, assignment: i.assignment, Value: c.value, Text: c.text, named: i.named()}
		if c.phase == Firing {
			i.Owed |= owedFiring
			i.Acked, i.By, i.Note = 0, holdfast.CredentialID{}, ""
		} else {
			e.Kind = "resolved"
			if l.muted(i) {
				i.Owed = 0 // nobody was told that it fired
			} else {
				i.Owed |= owedResolved
			}
			i.Acked, i.By, i.Note = 0, holdfast.CredentialID{}, ""
		}
		if i.assignment.IsZero() { // whose values an expression's are, nobody can say: none are kept
			e.Value, e.Text, e.named = 0, "", named{}
		}
		l.events = append(l.events, e)
	}
}

func (i *instance) named() named {
	return named{Device: i.Device, Name: i.Name, Stream: i.Stream, Unit: i.Unit, Owner: i.Owner}
}

func (l *looking) muted(i *instance) bool { return l.now < max(i.Muted, l.r.state.Muted) }

// deny has a rule wait until it may look again.
func (a *Alarms) deny(ctx context.Context, r *rule, why error, now time.Time) {
	r.next = now.Add(max(r.spec.Every, deniedEvery))
	reason := why.Error()
	if r.state.Denied == reason {
		return
	}
	was := r.state
	r.state.Denied = reason
	l := &looking{a: a, r: r, now: now.UnixNano()}
	if was.Denied == "" {
		l.events = append(l.events, event{At: l.now, Kind: "denied", Note: reason})
	}
	if err := a.write(context.WithoutCancel(ctx), l, nil, 0); err != nil {
		r.state = was
		a.log.WarnContext(ctx, "alarm: that a rule is denied is not written", "alarm", r.id, "error", err)
	}
}

// status of a rule in one word.
func (r *rule) word() string {
	if r.state.Denied != "" {
		return "denied"
	}
	order := []Phase{OK, Pending, Acknowledged, Firing}
	worst := OK
	for _, i := range r.instances {
		worst = slices.MaxFunc([]Phase{worst, i.shownPhase()}, func(x, y Phase) int { return cmp.Compare(slices.Index(order, x), slices.Index(order, y)) })
	}
	return string(worst)
}

func (i *instance) shownPhase() Phase {
	if i.Phase == Firing && i.Acked != 0 {
		return Acknowledged
	}
	return i.Phase
}
