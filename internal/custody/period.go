package custody

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Terms are what may change of a period.
type Terms struct {
	Basis      Basis
	From       time.Time
	To         time.Time // not in it; zero: open
	Schedule   *Schedule // nil: all hours
	EraseAfter int       // days after To when it erases itself; 0: never
}

// Terms returns those of an assignment.
func (a Assignment) Terms() Terms {
	return Terms{Basis: a.Basis, From: a.From, To: a.To, Schedule: a.Schedule, EraseAfter: a.EraseAfter}
}

// PeriodSpec says what period to add.
type PeriodSpec struct {
	Device  holdfast.DeviceID
	Owner   holdfast.PartyID // zero: the device's
	Subject holdfast.PartyID // whom the readings are about, if another than the owner
	Terms                    // a zero From is now
	Pending *Pending
}

// MaxPeriods is how many periods a device has at most, those that are over included.
const MaxPeriods = 1000

// maxEraseAfter is ten years of days.
const maxEraseAfter = 3653

// periodInfo is what stays of a period when it is erased: when readings of the
// device are nobody's.
type periodInfo struct {
	From     int64         `json:"from"`
	To       int64         `json:"to,omitempty"`
	Schedule *scheduleInfo `json:"schedule,omitempty"`
}

func (i periodInfo) window() (window, error) {
	s, err := i.Schedule.schedule()
	return windowOf(holdfast.Instant(i.From), holdfast.Instant(i.To), s), err
}

// periodEvent is what the ledger records of a period, on the record of everybody
// whom it concerns.
type periodEvent struct {
	deviceEvent
	Basis Basis `json:"basis"`
}

// AddPeriod gives a device a further assignment under its certificate. What lies in
// its time and comes from now on is its owner's; what came before stays where it is.
func (c *Custody) AddPeriod(ctx context.Context, by holdfast.CredentialID, spec PeriodSpec) (Assignment, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.readDevice(ctx, spec.Device)
	if err != nil {
		return Assignment{}, err
	}
	now := c.now().UTC()
	a := Assignment{
		ID: holdfast.NewID[holdfast.AssignmentID](), Device: d.ID, Owner: spec.Owner, Subject: spec.Subject, Period: true, State: Active, Recorded: now,
		Pending: spec.Pending,
	}
	if a.Owner.IsZero() {
		a.Owner = d.Owner
	}
	if a.Subject == a.Owner {
		a.Subject = holdfast.PartyID{}
	}
	terms := spec.Terms
	if terms.From.IsZero() {
		terms.From = now
	}
	if err := c.checkPeriod(ctx, d, &a, terms); err != nil {
		return Assignment{}, err
	}
	o := vault.OfAssignment(a.ID)
	if err := c.keys.AddOwner(ctx, o); err != nil {
		return Assignment{}, err
	}
	box, err := c.seal(ctx, o, "assignment", a.ID[:], a.info())
	if err != nil {
		return Assignment{}, err
	}
	row := holdfast.NewID[[holdfast.IDSize]byte]()
	mark, err := c.sealPeriod(ctx, d.Assignment, row, a)
	if err != nil {
		return Assignment{}, err
	}
	back, err := c.periodBack(ctx, d.Assignment, row, a, mark)
	if err != nil {
		return Assignment{}, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := stillLiving(ctx, tx, a.Owner, a.Subject); err != nil {
			return err
		}
		if err := stillOpen(ctx, tx, d); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO assignment (id, device, owner, subject, state, info_sealed) VALUES ($1, $2, $3, $4, $5, $6)`,
			a.ID, a.Device, a.Owner, a.Subject, a.State, box); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO period (id, device, assignment, info_sealed) VALUES ($1, $2, $3, $4)`,
			row[:], a.Device, a.ID, mark); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, back); err != nil {
			return err
		}
		return c.recordPeriod(ctx, tx, "period added", a, d, by)
	})
	if err != nil {
		return Assignment{}, err
	}
	c.retime(d.ID)
	return a, nil
}

// stillOpen refuses a device that was closed, claimed or erased since it was read.
func stillOpen(ctx context.Context, tx *sql.Tx, d Device) error {
	open, err := exists(ctx, tx, `SELECT count(*) FROM assignment WHERE id = $1 AND state = $2`, d.Assignment, Active)
	if err == nil && !open {
		err = holdfast.Errorf(holdfast.Conflict, "device %s is closed", d.ID)
	}
	return err
}

// recordPeriod puts what happened on the record of everybody whom it concerns: those
// of the period, and the device's owner.
func (c *Custody) recordPeriod(ctx context.Context, tx *sql.Tx, kind string, a Assignment, d Device, by holdfast.CredentialID) error {
	var told []holdfast.PartyID
	for _, p := range []holdfast.PartyID{a.Owner, a.Subject, d.Owner, d.Subject} {
		if p.IsZero() || slices.Contains(told, p) {
			continue
		}
		told = append(told, p)
		_, err := c.ledger.Append(ctx, tx, vault.OfParty(p), kind, periodEvent{deviceEvent{a.Device, a.ID, by}, a.Basis})
		if err != nil && !(d.State == Erased && vault.Gone(err)) { // who is being erased has no record any more
			return err
		}
	}
	return nil
}

func (c *Custody) sealPeriod(ctx context.Context, own holdfast.AssignmentID, row [holdfast.IDSize]byte, a Assignment) ([]byte, error) {
	return c.seal(ctx, vault.OfAssignment(own), "period", row[:], periodInfo{From: holdfast.Nanoseconds(a.From), To: holdfast.Nanoseconds(a.To), Schedule: a.Schedule.info()})
}

// CheckPeriod refuses a period that AddPeriod would refuse, and returns what it would
// make, without an id.
func (c *Custody) CheckPeriod(ctx context.Context, spec PeriodSpec) (Assignment, error) {
	d, err := c.readDevice(ctx, spec.Device)
	if err != nil {
		return Assignment{}, err
	}
	a := Assignment{Device: d.ID, Owner: spec.Owner, Subject: spec.Subject, Period: true, State: Active}
	if a.Owner.IsZero() {
		a.Owner = d.Owner
	}
	terms := spec.Terms
	if terms.From.IsZero() {
		terms.From = c.now().UTC()
	}
	return a, c.checkPeriod(ctx, d, &a, terms)
}

// checkPeriod refuses what can't be a period of a device, and puts the terms into a.
func (c *Custody) checkPeriod(ctx context.Context, d Device, a *Assignment, t Terms) error {
	if d.State != Active {
		return holdfast.Errorf(holdfast.Conflict, "the device is %s: periods are of a device that takes readings", d.State)
	}
	for _, p := range []holdfast.PartyID{a.Owner, a.Subject} {
		if !p.IsZero() {
			if err := c.livingParty(ctx, p); err != nil {
				return err
			}
		}
	}
	if _, err := ParseBasis(string(t.Basis)); err != nil {
		return err
	}
	if t.EraseAfter < 0 || t.EraseAfter > maxEraseAfter {
		return holdfast.Errorf(holdfast.Invalid, "a period erases itself 1 to %d days after its end, or never", maxEraseAfter)
	}
	for _, at := range []time.Time{t.From, t.To} {
		if at.Before(holdfast.MinTime) && !at.IsZero() || at.After(holdfast.MaxTime) {
			return holdfast.Errorf(holdfast.Invalid, "a time lies between the years 1677 and 2262")
		}
	}
	if t.Schedule != nil {
		if err := t.Schedule.check(); err != nil {
			return err
		}
	}
	own, err := c.Assignment(ctx, d.Assignment)
	if err != nil {
		return err
	}
	switch {
	case !t.To.IsZero() && !t.To.After(t.From):
		return holdfast.Errorf(holdfast.Invalid, "the period ends before it begins")
	case t.From.Before(own.From):
		return holdfast.Errorf(holdfast.Invalid, "the period begins before the device was its owner's: from %s on it can have periods", own.From.Format(time.RFC3339))
	}
	a.Basis, a.From, a.To, a.Schedule, a.EraseAfter = t.Basis, t.From.UTC(), t.To, t.Schedule, t.EraseAfter
	if !a.To.IsZero() {
		a.To = a.To.UTC()
	}
	return c.checkOverlap(ctx, d, *a)
}

// CloseAssignment ends an assignment: no more readings are taken into it, those there
// are stay its owner's. With a device's own the device is closed, and its periods
// end; a change of owner is a new device. Readings of the time of a closed period,
// should they come late, are refused.
func (c *Custody) CloseAssignment(ctx context.Context, by holdfast.CredentialID, id holdfast.AssignmentID) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	old, err := c.Assignment(ctx, id)
	if err != nil {
		return err
	}
	if old.State != Active && old.State != Unclaimed {
		return holdfast.Errorf(holdfast.Conflict, "assignment %s is not open", id)
	}
	d, err := c.readDevice(ctx, old.Device)
	if err != nil {
		return err
	}
	if old.Period {
		a := old
		a.State = Closed
		if now := c.now().UTC(); a.To.IsZero() || now.Before(a.To) {
			if a.To = now; a.To.Before(a.From) {
				a.To = a.From
			}
		}
		return c.supersede(ctx, by, "period closed", old, &a, d)
	}
	end, err := c.planClosing(ctx, by, d)
	if err != nil {
		return err
	}
	if err := c.write(ctx, func(tx *sql.Tx) error { return end(ctx, tx) }); err != nil {
		return err
	}
	c.retime(d.ID)
	return nil
}

// endPeriods seals the end of those of a device's assignments that are periods and not
// over at a time, and returns what writes it.
func (c *Custody) endPeriods(ctx context.Context, by holdfast.CredentialID, d Device, all []Assignment, at time.Time) (func(*sql.Tx) error, error) {
	var writes []func(*sql.Tx) error
	for _, old := range all {
		if !old.Period || !old.To.IsZero() && !at.Before(old.To) {
			continue
		}
		a := old
		if a.To = at; at.Before(a.From) {
			a.To = a.From
		}
		write, err := c.newVersion(ctx, old, &a, d)
		if err != nil {
			return nil, err
		}
		writes = append(writes, write, func(tx *sql.Tx) error { return c.recordPeriod(ctx, tx, "period ended", a, d, by) })
	}
	return func(tx *sql.Tx) error {
		for _, write := range writes {
			if err := write(tx); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

var errVacant = holdfast.Errorf(holdfast.Denied, "readings of this time were erased: they are not taken back in")

// loadPeriods puts a device's periods into its route: whose they are, and of those
// into which readings may still fall when they are and their streams.
func (c *Custody) loadPeriods(ctx context.Context, r *Route) error {
	rows, err := c.assignmentRows(ctx, `device = $1 AND id <> $2 AND state <> 'erased'`, r.Device, r.Assignment)
	if err != nil {
		return err
	}
	for _, row := range rows {
		a := row.Assignment
		a.Period = true
		r.holders = append(r.holders, a)
	}
	slices.SortFunc(r.holders, func(a, b Assignment) int { return slices.Compare(a.ID[:], b.ID[:]) })
	if r.device.State != Active {
		return nil
	}
	marks, err := c.marks(ctx, r.device)
	if err != nil {
		return err
	}
	// A day more than the limit: this clock may be ahead of the one that arrivals have.
	over := c.now().Add(-Spool - 24*time.Hour).UnixNano()
	var spans []span
	for _, m := range marks {
		if m.assignment.IsZero() {
			if r.nobody == nil {
				r.nobody = &Route{Device: r.Device, Gateway: r.Gateway, device: r.device, denied: errVacant}
			}
			r.vacant = append(r.vacant, m.window)
		}
		if m.to <= over {
			continue
		}
		at := slices.IndexFunc(r.holders, func(a Assignment) bool { return a.ID == m.assignment })
		p := &Route{Device: r.Device, Assignment: m.assignment, Gateway: r.Gateway, device: r.device, profile: r.profile}
		streams := make(map[string]*Stream)
		p.streams.Store(&streams)
		switch {
		case at < 0:
			p.denied = errVacant
		case r.holders[at].State != Active:
			p.Owner, p.denied = r.holders[at].Owner, holdfast.Errorf(holdfast.Denied, "the assignment that readings of this time belong to is closed")
		default:
			p.Owner, p.whose = r.holders[at].Owner, r.holders[at].Whose()
			all, err := c.streams(ctx, ofAssignment, m.assignment)
			if err != nil {
				return err
			}
			for _, s := range all {
				streams[s.Name] = s
			}
		}
		spans = append(spans, span{m.window, p})
	}
	r.periods = newTimeline(spans)
	return nil
}

// Due returns the periods that erase themselves and whose time for it has come, and
// those of which something is pending.
func (c *Custody) Due(ctx context.Context, now time.Time) (over, pending []Assignment, err error) {
	all, err := c.assignments(ctx, `state <> 'erased' AND id IN (SELECT assignment FROM period WHERE assignment IS NOT NULL)`)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range all {
		switch ends := a.Ends(); {
		case a.State == Erased:
		case !ends.IsZero() && !ends.After(now):
			over = append(over, a)
		case a.Pending != nil:
			pending = append(pending, a)
		}
	}
	return over, pending, nil
}
