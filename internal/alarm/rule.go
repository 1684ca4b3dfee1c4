package alarm

import (
	"context"
	"database/sql"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Spec says what a rule is.
type Spec struct {
	Name     string            `json:"name"`
	Severity string            `json:"severity"`          // info | warning | critical
	Message  string            `json:"message,omitempty"` // with fields in braces; "": a sentence of ours
	Device   holdfast.DeviceID `json:"device,omitzero"`   // one device's stream, or
	Owner    holdfast.PartyID  `json:"owner,omitzero"`    // those of that name of all devices of a party, each by itself
	Stream   string            `json:"stream,omitempty"`
	Grant    holdfast.GrantID  `json:"grant,omitzero"` // to read under; zero: whichever fits
	Condition
	Every    time.Duration        `json:"every"`            // how often it looks; 0: 10 s
	Late     time.Duration        `json:"late,omitempty"`   // of Owner: how late readings may come; 0: 2 min
	Repeat   time.Duration        `json:"repeat,omitempty"` // says again what nobody acknowledged; 0: never
	Gather   time.Duration        `json:"gather,omitempty"` // how far messages of one rule are apart at least
	Webhooks []holdfast.WebhookID `json:"webhooks,omitempty"`
	Mail     []string             `json:"mail,omitempty"`
}

// Severities in rising order.
func Severities() []string { return []string{"info", "warning", "critical"} }

// The defaults of a Spec.
const (
	DefaultEvery = 10 * time.Second
	defaultLate  = 2 * time.Minute
	maxMessage   = 500
	maxTargets   = 10
)

func (s *Spec) check(e Expressions) error {
	bad := func(format string, args ...any) error { return holdfast.Errorf(holdfast.Invalid, format, args...) }
	if err := holdfast.CheckName("alarm", s.Name); err != nil {
		return err
	}
	if s.Severity == "" {
		s.Severity = "warning"
	}
	if s.Every == 0 {
		s.Every = DefaultEvery
	}
	if s.Late == 0 {
		s.Late = defaultLate
	}
	switch {
	case s.Severity != "info" && s.Severity != "warning" && s.Severity != "critical":
		return bad("a severity is info, warning or critical")
	case s.Every < time.Second || s.Every > 24*time.Hour:
		return bad("a rule looks each 1s to 24h")
	case s.Late < 0 || s.Late > 24*time.Hour:
		return bad("readings may be late by up to 24h")
	case s.Repeat != 0 && (s.Repeat < time.Minute || s.Repeat > longest):
		return bad("a message is repeated each 1m or more, or not at all")
	case s.Gather < 0 || s.Gather > 24*time.Hour:
		return bad("messages are gathered for 0s to 24h")
	case len(s.Webhooks)+len(s.Mail) > maxTargets:
		return bad("a rule tells at most %d webhooks and mail addresses", maxTargets)
	}
	if err := checkTemplate(s.Message); err != nil {
		return err
	}
	switch {
	case s.Kind == Expression && (!s.Device.IsZero() || !s.Owner.IsZero() || s.Stream != ""):
		return bad("an expression names its streams itself: leave out device and stream")
	case s.Kind != Expression && s.Device.IsZero() == s.Owner.IsZero():
		return bad("a rule is about one device, or about all of a party")
	case s.Kind != Expression && s.Stream == "":
		return bad("name the stream that the rule looks at")
	}
	return s.Condition.check(e)
}

func (s *Spec) selection() query.Selection {
	return query.Selection{Device: s.Device, Party: s.Owner, Stream: s.Stream}
}

// ruleEvent is what the ledger has of what happens to a rule.
type ruleEvent struct {
	Alarm   holdfast.AlarmID      `json:"alarm"`
	By      holdfast.CredentialID `json:"by,omitzero"`
	Purpose holdfast.Purpose      `json:"purpose,omitempty"`
	Count   int                   `json:"count,omitempty"`
	Until   *time.Time            `json:"until,omitempty"`
}

// Add makes a rule. It reads once as it will, so that what could not be read is
// refused now.
func (a *Alarms) Add(ctx context.Context, by access.Principal, p holdfast.Purpose, s Spec) (Status, error) {
	i, err := a.checked(ctx, by, p, s)
	if err != nil {
		return Status{}, err
	}
	a.adding.Lock()
	defer a.adding.Unlock()
	mine := 0
	for _, r := range a.all() {
		if r.party == by.Party {
			mine++
			r.mu.Lock()
			same := r.spec.Name == s.Name
			r.mu.Unlock()
			if same {
				return Status{}, holdfast.Errorf(holdfast.Conflict, "there is an alarm of this name already")
			}
		}
	}
	if mine >= maxRules {
		return Status{}, holdfast.Errorf(holdfast.TooLarge, "a party has at most %d alarms: end some", maxRules)
	}
	r := &rule{id: holdfast.NewID[holdfast.AlarmID](), party: by.Party, spec: i, instances: make(map[instanceID]*instance)}
	spec, err := vault.SealJSON(ctx, a.Vault, vault.OfParty(r.party), "alarm_rule", r.id[:], "info", r.spec)
	if err != nil {
		return Status{}, err
	}
	state, err := vault.SealJSON(ctx, a.Vault, vault.OfParty(r.party), "alarm_rule", r.id[:], "state", r.state)
	if err != nil {
		return Status{}, err
	}
	err = a.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO alarm_rule (id, party, info_sealed, state_sealed) VALUES ($1, $2, $3, $4)`, r.id, r.party, spec, state); err != nil {
			return err
		}
		_, err := a.Ledger.Append(ctx, tx, vault.OfParty(r.party), "alarm added", ruleEvent{Alarm: r.id, By: by.Credential, Purpose: i.Purpose})
		return err
	})
	if err != nil {
		return Status{}, err
	}
	a.mu.Lock()
	a.rules[r.id] = r
	a.mu.Unlock()
	a.awake()
	return r.status(by), nil
}

// checked is a rule as it is kept, if it can be one.
func (a *Alarms) checked(ctx context.Context, by access.Principal, p holdfast.Purpose, s Spec) (info, error) {
	if err := s.check(a.Expressions); err != nil {
		return info{}, err
	}
	have, err := a.Outbox.Webhooks(ctx, by.Party)
	if err != nil {
		return info{}, err
	}
	for _, id := range s.Webhooks {
		found := false
		for _, w := range have {
			found = found || w.ID == id
		}
		if !found {
			return info{}, holdfast.Errorf(holdfast.NotFound, "there is no such webhook")
		}
	}
	for _, to := range s.Mail {
		if err := a.Outbox.CheckMail(to); err != nil {
			return info{}, err
		}
	}
	i := info{Spec: s, Credential: by.Credential, Holder: by.Holder, Actor: by.Actor, Made: a.now().UnixNano()}
	if s.Kind == Expression {
		if i.Purpose, err = query.PurposeOf(by, p); err != nil {
			return info{}, err
		}
		if _, err := a.Expressions.Evaluate(ctx, by, i.Purpose, s.Expression, a.now()); err != nil {
			return info{}, err
		}
		return i, nil
	}
	now := a.now().UnixNano()
	res, err := a.Read(ctx, query.Request{Who: by, Purpose: p, Selection: s.selection(), Grant: s.Grant, Span: holdfast.Span{From: now, To: now}})
	if err != nil {
		return info{}, err
	}
	defer res.Close()
	for _, src := range res.Sources {
		if !s.Condition.of(src.Type) {
			return info{}, holdfast.Errorf(holdfast.Invalid, "the stream's values are of type %s: an alarm about them is of kind silence, or compares a text with equals", src.Type)
		}
	}
	i.Purpose = res.Purpose
	return i, nil
}

// Change gives a rule another Spec. It acts under the caller's credential from then
// on, and begins anew.
func (a *Alarms) Change(ctx context.Context, by access.Principal, text string, p holdfast.Purpose, s Spec) (Status, error) {
	r, err := a.find(by, text)
	if err != nil {
		return Status{}, err
	}
	i, err := a.checked(ctx, by, p, s)
	if err != nil {
		return Status{}, err
	}
	for _, o := range a.all() {
		o.mu.Lock()
		same := o != r && o.party == r.party && o.spec.Name == s.Name
		o.mu.Unlock()
		if same {
			return Status{}, holdfast.Errorf(holdfast.Conflict, "there is an alarm of this name already")
		}
	}
	spec, err := vault.SealJSON(ctx, a.Vault, vault.OfParty(r.party), "alarm_rule", r.id[:], "info", i)
	if err != nil {
		return Status{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i.Made = r.spec.Made
	state, err := vault.SealJSON(ctx, a.Vault, vault.OfParty(r.party), "alarm_rule", r.id[:], "state", standing{})
	if err != nil {
		return Status{}, err
	}
	err = a.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE alarm_rule SET info_sealed = $1, state_sealed = $2 WHERE id = $3`, spec, state, r.id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM alarm_instance WHERE rule = $1`, r.id); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.AlarmChanged, ID: ledger.TakenID(r.id), Box: spec}); err != nil {
			return err
		}
		_, err := a.Ledger.Append(ctx, tx, vault.OfParty(r.party), "alarm changed", ruleEvent{Alarm: r.id, By: by.Credential, Purpose: i.Purpose})
		return err
	})
	if err != nil {
		return Status{}, err
	}
	r.spec, r.state, r.instances, r.next = i, standing{}, make(map[instanceID]*instance), time.Time{}
	a.awake()
	return r.statusLocked(by), nil
}

// End ends a rule, with its history.
func (a *Alarms) End(ctx context.Context, by access.Principal, text string) error {
	r, err := a.find(by, text)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err = a.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM alarm_rule WHERE id = $1`, r.id); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.AlarmEnded, ID: ledger.TakenID(r.id)}); err != nil {
			return err
		}
		_, err := a.Ledger.Append(ctx, tx, vault.OfParty(r.party), "alarm ended", ruleEvent{Alarm: r.id, By: by.Credential})
		return err
	})
	if err != nil {
		return err
	}
	r.ended = true
	a.mu.Lock()
	delete(a.rules, r.id)
	a.mu.Unlock()
	return nil
}

func noAlarm() error { return holdfast.Errorf(holdfast.NotFound, "there is no such alarm") }

// sees reports whether a caller may know of a rule: his party's, of a program those
// that it has made itself.
func (r *rule) sees(by access.Principal) bool {
	return r.party == by.Party && (by.Role != access.Program || r.mine(by))
}

// mine reports whether the caller is who made the rule.
func (r *rule) mine(by access.Principal) bool {
	return r.spec.Credential == by.Credential || !by.Holder.IsZero() && r.spec.Holder == by.Holder
}

// find returns a rule by its name or id to who may know of it.
func (a *Alarms) find(by access.Principal, text string) (*rule, error) {
	for _, r := range a.all() {
		r.mu.Lock()
		is := (r.id.String() == text || r.spec.Name == text) && r.sees(by)
		r.mu.Unlock()
		if is {
			return r, nil
		}
	}
	return nil, noAlarm()
}
