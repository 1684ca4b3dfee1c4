package custody

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Basis is why somebody has a device in his hands.
type Basis string

// The bases of an assignment.
const (
	Own     Basis = "own"
	Lease   Basis = "lease"
	Employ  Basis = "employ"
	Tenancy Basis = "tenancy"
	Loan    Basis = "loan"
	Guest   Basis = "guest"
	Child   Basis = "child"
)

// ParseBasis reads the word for a basis.
func ParseBasis(s string) (Basis, error) {
	switch b := Basis(s); b {
	case Own, Lease, Employ, Tenancy, Loan, Guest, Child:
		return b, nil
	}
	return "", holdfast.Errorf(holdfast.Invalid, "the basis of an assignment is own, lease, employ, tenancy, loan, guest or child")
}

// Assignment says that a device's readings between two times are an owner's. Its
// id is the owner of their keys. A device has one that its certificate was issued
// for, and any number of periods beside it: other assignments whose readings are
// told apart by time. Periods of a device never overlap; what no period covers
// belongs to the device's own.
//
// It is one version of what was known: from Recorded until Superseded.
type Assignment struct {
	ID      holdfast.AssignmentID
	Device  holdfast.DeviceID
	Owner   holdfast.PartyID // zero: unclaimed or erased
	Subject holdfast.PartyID // whom the readings are about, if another than the owner
	Basis   Basis
	Period  bool   // not the one that the certificate was issued for
	State   string // Unclaimed, Active, Closed or Erased

	From       time.Time // zero: not yet
	To         time.Time // not in it; zero: open
	Schedule   *Schedule // hours of the week between the two; nil: all of them
	EraseAfter int       // days after To when it erases itself; 0: never

	Recorded   time.Time // when this came to be known
	Superseded time.Time // when something else did; zero: it is what is known now

	Pending *Pending // what is still to become of readings that were sealed before a change
}

// Pending is what becomes of readings that lie in the time by which a change moved a
// period, and were sealed before it: they are erased from where they are, with Move
// after they were taken over into the assignment whose they are now.
type Pending struct {
	Move   bool                  `json:"move,omitempty"`
	Gained []holdfast.Span       `json:"gained,omitempty"` // from the device's own into the period
	Lost   []holdfast.Span       `json:"lost,omitempty"`   // the other way
	By     holdfast.CredentialID `json:"by"`               // who has asked for it
	Party  holdfast.PartyID      `json:"party"`
	Staff  bool                  `json:"staff,omitempty"` // an administrator
}

// Whose returns the one whose data the readings are.
func (a Assignment) Whose() holdfast.PartyID {
	if !a.Subject.IsZero() {
		return a.Subject
	}
	return a.Owner
}

// Contains reports whether an instant lies in the assignment's time. A device's own
// has, besides, what lies in no period.
func (a Assignment) Contains(t time.Time) bool { return a.window().contains(t.UnixNano()) }

func (a Assignment) window() window { return windowOf(a.From, a.To, a.Schedule) }

// Ends returns when the assignment erases itself, zero if it does not.
func (a Assignment) Ends() time.Time {
	if a.EraseAfter == 0 || a.To.IsZero() || a.State == Erased {
		return time.Time{}
	}
	return a.To.AddDate(0, 0, a.EraseAfter)
}

type assignmentInfo struct {
	From       int64         `json:"from,omitempty"`
	To         int64         `json:"to,omitempty"`
	Basis      Basis         `json:"basis,omitempty"` // own, if absent
	Period     bool          `json:"period,omitempty"`
	Schedule   *scheduleInfo `json:"schedule,omitempty"`
	EraseAfter int           `json:"erase_after_days,omitempty"`
	Recorded   int64         `json:"recorded,omitempty"` // from, if absent
	Superseded int64         `json:"superseded,omitempty"`
	Pending    *Pending      `json:"pending,omitempty"`
}

type scheduleInfo struct {
	Hours string `json:"hours"`
	Zone  string `json:"zone"`
}

func (s *Schedule) info() *scheduleInfo {
	if s == nil {
		return nil
	}
	return &scheduleInfo{s.String(), s.Zone}
}

func (i *scheduleInfo) schedule() (*Schedule, error) {
	if i == nil {
		return nil, nil
	}
	return ParseSchedule(i.Hours, i.Zone)
}

func (a Assignment) info() assignmentInfo {
	return assignmentInfo{
		From: holdfast.Nanoseconds(a.From), To: holdfast.Nanoseconds(a.To), Basis: a.Basis, Period: a.Period, Schedule: a.Schedule.info(),
		EraseAfter: a.EraseAfter, Recorded: holdfast.Nanoseconds(a.Recorded), Superseded: holdfast.Nanoseconds(a.Superseded), Pending: a.Pending,
	}
}

// put fills in what is sealed.
func (a *Assignment) put(i assignmentInfo) (err error) {
	a.From, a.To, a.Basis, a.Period, a.EraseAfter = holdfast.Instant(i.From), holdfast.Instant(i.To), cmp.Or(i.Basis, Own), i.Period, i.EraseAfter
	a.Recorded, a.Superseded, a.Pending = holdfast.Instant(cmp.Or(i.Recorded, i.From)), holdfast.Instant(i.Superseded), i.Pending
	a.Schedule, err = i.Schedule.schedule()
	return err
}

type assignmentRow struct {
	Assignment
	box []byte
}

func (c *Custody) assignmentRows(ctx context.Context, where string, args ...any) ([]assignmentRow, error) {
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (r assignmentRow, err error) {
		return r, q.Scan(&r.ID, &r.Device, &r.Owner, &r.Subject, &r.State, &r.box)
	}, `SELECT id, device, owner, subject, state, info_sealed FROM assignment WHERE `+where, args...)
	return rows, err
}

func (c *Custody) assignments(ctx context.Context, where string, args ...any) ([]Assignment, error) {
	rows, err := c.assignmentRows(ctx, where, args...)
	if err != nil {
		return nil, err
	}
	all := make([]Assignment, 0, len(rows))
	for _, r := range rows {
		a := r.Assignment
		if a.State != Erased {
			var info assignmentInfo
			switch err := c.open(ctx, vault.OfAssignment(a.ID), "assignment", a.ID[:], r.box, &info); {
			case vault.Gone(err):
				a.State = Erased
			case err != nil:
				return nil, err
			default:
				if err := a.put(info); err != nil {
					return nil, err
				}
			}
		}
		all = append(all, a)
	}
	return all, nil
}

// Assignment returns an assignment, an erased one with its id and state alone.
func (c *Custody) Assignment(ctx context.Context, id holdfast.AssignmentID) (Assignment, error) {
	all, err := c.assignments(ctx, `id = $1`, id)
	if err != nil {
		return Assignment{}, err
	}
	if len(all) == 0 {
		return Assignment{}, holdfast.Errorf(holdfast.NotFound, "there is no such assignment")
	}
	return all[0], nil
}

// Assignments returns those in which a party is the owner or the data subject.
func (c *Custody) Assignments(ctx context.Context, party holdfast.PartyID) ([]Assignment, error) {
	return c.assignments(ctx, `owner = $1 OR subject = $1`, party)
}

// AssignmentsAbout returns those of which a party is the data subject, another
// being the owner.
func (c *Custody) AssignmentsAbout(ctx context.Context, subject holdfast.PartyID) ([]Assignment, error) {
	return c.assignments(ctx, `subject = $1`, subject)
}

// Holdings is Assignments of the living without what is sealed: whose they are and
// of which devices.
func (c *Custody) Holdings(ctx context.Context, party holdfast.PartyID) ([]Assignment, error) {
	rows, err := c.assignmentRows(ctx, `(owner = $1 OR subject = $1) AND state <> 'erased'`, party)
	if err != nil {
		return nil, err
	}
	all := make([]Assignment, len(rows))
	for i, r := range rows {
		all[i] = r.Assignment
	}
	return all, nil
}

// Holders returns the assignments of a device that are not erased without what is
// sealed, its own first: whose they are. They are in memory after the first question.
func (c *Custody) Holders(ctx context.Context, device holdfast.DeviceID) ([]Assignment, error) {
	r, err := c.route(ctx, device)
	if err != nil {
		return nil, err
	}
	all := make([]Assignment, 0, 1+len(r.holders))
	if d := r.device; d.State != Erased {
		all = append(all, Assignment{ID: d.Assignment, Device: d.ID, Owner: d.Owner, Subject: d.Subject, State: d.State})
	}
	return append(all, r.holders...), nil
}

// AssignmentsOf returns a device's assignments that are not erased as they are known
// now: its own first, then its periods by their beginning.
func (c *Custody) AssignmentsOf(ctx context.Context, device holdfast.DeviceID) ([]Assignment, error) {
	all, err := c.assignments(ctx, `device = $1 AND state <> 'erased'`, device)
	if err != nil {
		return nil, err
	}
	return inOrder(all), nil
}

func inOrder(all []Assignment) []Assignment {
	all = slices.DeleteFunc(all, func(a Assignment) bool { return a.State == Erased })
	slices.SortFunc(all, func(a, b Assignment) int {
		if a.Period != b.Period {
			if b.Period {
				return -1
			}
			return 1
		}
		return cmp.Or(a.From.Compare(b.From), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return all
}

// AssignmentsKnown returns a device's assignments as they were known at a time, but
// for those that were erased since. State is that of now.
func (c *Custody) AssignmentsKnown(ctx context.Context, device holdfast.DeviceID, at time.Time) ([]Assignment, error) {
	now, err := c.AssignmentsOf(ctx, device)
	if err != nil {
		return nil, err
	}
	var all []Assignment
	for _, a := range now {
		versions, err := c.History(ctx, a)
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			if !v.Recorded.After(at) && (v.Superseded.IsZero() || v.Superseded.After(at)) {
				all = append(all, v)
			}
		}
	}
	return inOrder(all), nil
}

// History returns all that was ever known of an assignment, oldest first; what is
// known now is the last.
func (c *Custody) History(ctx context.Context, a Assignment) ([]Assignment, error) {
	type version struct {
		number int64
		box    []byte
	}
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (v version, err error) {
		return v, q.Scan(&v.number, &v.box)
	}, `SELECT number, info_sealed FROM assignment_version WHERE assignment = $1 ORDER BY number`, a.ID)
	if err != nil {
		return nil, err
	}
	all := make([]Assignment, 0, len(rows)+1)
	for _, r := range rows {
		v := a
		var info assignmentInfo
		if err := c.open(ctx, vault.OfAssignment(a.ID), versionTable, versionRow(a.ID, r.number), r.box, &info); err != nil {
			return nil, err
		}
		if err := v.put(info); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return append(all, a), nil
}

const versionTable = "assignment_version"

func versionRow(a holdfast.AssignmentID, number int64) []byte {
	return binary.BigEndian.AppendUint64(slices.Clone(a[:]), uint64(number))
}
