package api

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/timeline"
)

// Assignment says whose a device's readings are, and when. It is one version of what
// was known.
type Assignment struct {
	ID             string     `json:"id"`
	Device         string     `json:"device"`
	Owner          *PartyRef  `json:"owner,omitempty"`
	Subject        *PartyRef  `json:"subject,omitempty" doc:"Whom the readings are about, if another than the owner."`
	Basis          string     `json:"basis" enum:"own,lease,employ,tenancy,loan,guest,child"`
	Period         bool       `json:"period" doc:"false: the device's own, to which belongs what lies in no period."`
	State          string     `json:"state" enum:"active,closed,unclaimed,erased"`
	From           *time.Time `json:"from,omitempty"`
	To             *time.Time `json:"to,omitempty" doc:"The first instant after it; left out: open."`
	Hours          string     `json:"hours,omitempty" doc:"Of the week, between the two; left out: all."`
	Zone           string     `json:"zone,omitempty"`
	EraseAfterDays int        `json:"erase_after_days,omitempty" doc:"How long after its end it erases itself."`
	Erases         *time.Time `json:"erases,omitempty" doc:"When that is."`
	Recorded       *time.Time `json:"recorded,omitempty" doc:"Since when this was known."`
	Superseded     *time.Time `json:"superseded,omitempty" doc:"Until when; left out: it is what is known now."`
	Pending        bool       `json:"pending,omitempty" doc:"Readings that were there before are still being moved or erased."`
}

// ChangedAssignment is an assignment, and what became of readings that lay in its time
// before.
type ChangedAssignment struct {
	Assignment
	Moved    uint64   `json:"moved,omitempty" doc:"How many belong to the one whose time it is now."`
	Erasures []string `json:"erasures,omitempty" doc:"By which they were erased from where they were."`
}

// Terms are what may be said of a period.
type Terms struct {
	Basis          string `json:"basis,omitempty" doc:"Why: lease, employ, tenancy, loan, guest, child or own."`
	From           string `json:"from,omitempty" doc:"When it begins; left out: now."`
	To             string `json:"to,omitempty" doc:"The first instant after it; left out: open."`
	Hours          string `json:"hours,omitempty" maxLength:"2000" doc:"Of the week: Mo-Fr 08:00-17:00, several with commas."`
	Zone           string `json:"zone,omitempty" maxLength:"64" doc:"Of the hours: Europe/Berlin."`
	EraseAfterDays int    `json:"erase_after_days,omitempty" minimum:"0" maximum:"3653" doc:"Erase it so many days after its end."`
	Already        string `json:"already,omitempty" doc:"What becomes of readings that are there already: keep, erase or move."`
}

func (a *API) assignments() {
	who := writes(access.Owner, access.Administrator)
	see := reads(access.Owner, access.Administrator)
	handle(a, route{method: "POST", path: "/v1/assignments", summary: "Give a device's time to somebody else: a period.", status: http.StatusCreated, rule: who}, a.addAssignment)
	handle(a, route{method: "GET", path: "/v1/assignments", summary: "List the assignments of a device that the caller may know of, as known now or at a time.", rule: see}, a.listAssignments)
	handle(a, route{method: "GET", path: "/v1/assignments/{id}", summary: "Show an assignment.", rule: see},
		func(ctx context.Context, by access.Principal, in *struct {
			ID string `path:"id"`
		}) (*reply[Assignment], error) {
			x, err := a.assignment(ctx, by, in.ID)
			if err != nil {
				return nil, err
			}
			n, err := a.names(ctx, by)
			return &reply[Assignment]{assignmentDoc(x, n)}, err
		})
	handle(a, route{method: "GET", path: "/v1/assignments/{id}/history", summary: "Show all that was ever known of an assignment.", rule: see}, a.assignmentHistory)
	handle(a, route{method: "POST", path: "/v1/assignments/{id}/terms", summary: "Change a period: what is left out stays as it is.", rule: who}, a.changeAssignment)
	handle(a, route{method: "POST", path: "/v1/assignments/{id}/end", summary: "End a period, now or at a time. Either side may.", rule: who}, a.endAssignment)
}

// assignment returns one that the caller may know of.
func (a *API) assignment(ctx context.Context, by access.Principal, text string) (custody.Assignment, error) {
	id, err := holdfast.ParseID[holdfast.AssignmentID](text)
	if err != nil {
		return custody.Assignment{}, holdfast.Errorf(holdfast.NotFound, "there is no such assignment")
	}
	return a.Timeline.See(ctx, by, id)
}

func assignmentDoc(x custody.Assignment, n names) Assignment {
	out := Assignment{
		ID: x.ID.String(), Device: x.Device.String(), Owner: n.ref(x.Owner), Subject: n.ref(x.Subject), Basis: string(x.Basis), Period: x.Period,
		State: x.State, From: moment(x.From), To: moment(x.To), EraseAfterDays: x.EraseAfter, Erases: moment(x.Ends()),
		Recorded: moment(x.Recorded), Superseded: moment(x.Superseded), Pending: x.Pending != nil,
	}
	if x.Schedule != nil {
		out.Hours, out.Zone = x.Schedule.String(), x.Schedule.Zone
	}
	return out
}

// put reads terms over those that there are.
func (t Terms) put(into *custody.Terms, now time.Time) (timeline.Already, error) {
	if t.Basis != "" {
		var err error
		if into.Basis, err = custody.ParseBasis(t.Basis); err != nil {
			return "", err
		}
	}
	for _, at := range []struct {
		text string
		to   *time.Time
	}{{t.From, &into.From}, {t.To, &into.To}} {
		if at.text == "" {
			continue
		}
		ns, err := ParseTime(at.text, now, false)
		if err != nil {
			return "", err
		}
		*at.to = time.Unix(0, ns).UTC()
	}
	if t.Hours != "" {
		s, err := custody.ParseSchedule(t.Hours, t.Zone)
		if err != nil {
			return "", err
		}
		into.Schedule = s
	} else if t.Zone != "" {
		return "", holdfast.Errorf(holdfast.Invalid, "a zone goes with hours: say both")
	}
	if t.EraseAfterDays > 0 {
		into.EraseAfter = t.EraseAfterDays
	}
	return timeline.ParseAlready(t.Already)
}

// partyOfPeriod returns the party that a period is to be of: for an owner one that he
// knows the id of, for an administrator any.
func (a *API) partyOfPeriod(ctx context.Context, by access.Principal, text string) (holdfast.PartyID, error) {
	if text == "" {
		return holdfast.PartyID{}, nil
	}
	if p, err := a.party(ctx, by, text); err == nil || by.Role == access.Administrator {
		return p.ID, err
	}
	p, err := a.recipient(ctx, text)
	return p.ID, err
}

func (a *API) addAssignment(ctx context.Context, by access.Principal, in *struct {
	Body struct {
		Device  string `json:"device" minLength:"1" doc:"A label or an id."`
		Owner   string `json:"owner,omitempty" doc:"Whose it is meanwhile: a party by name or id; left out: the device's owner."`
		Subject string `json:"subject,omitempty" doc:"Whom the readings are about, if another."`
		Terms
	}
}) (*reply[ChangedAssignment], error) {
	b := &in.Body
	d, err := a.device(ctx, by, b.Device)
	if err != nil {
		return nil, err
	}
	spec := custody.PeriodSpec{Device: d.ID}
	if spec.Owner, err = a.partyOfPeriod(ctx, by, b.Owner); err != nil {
		return nil, err
	}
	if spec.Subject, err = a.partyOfPeriod(ctx, by, b.Subject); err != nil {
		return nil, err
	}
	already, err := b.Terms.put(&spec.Terms, time.Now())
	if err != nil {
		return nil, err
	}
	r, err := a.Timeline.Add(ctx, by, spec, already)
	return a.changed(ctx, by, r, err)
}

func (a *API) changed(ctx context.Context, by access.Principal, r timeline.Result, err error) (*reply[ChangedAssignment], error) {
	if err != nil {
		return nil, err
	}
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	out := ChangedAssignment{Assignment: assignmentDoc(r.Assignment, n), Moved: r.Moved}
	for _, e := range r.Erasures {
		out.Erasures = append(out.Erasures, e.String())
	}
	return &reply[ChangedAssignment]{out}, nil
}

func (a *API) listAssignments(ctx context.Context, by access.Principal, in *struct {
	Device string `query:"device" required:"true" doc:"A label or an id."`
	Known  string `query:"known" doc:"As it was known then; left out: now."`
	Paging
}) (*reply[Page[Assignment]], error) {
	d, err := a.device(ctx, by, in.Device)
	if err != nil {
		return nil, err
	}
	var known time.Time
	if in.Known != "" {
		ns, err := ParseTime(in.Known, time.Now(), true)
		if err != nil {
			return nil, err
		}
		known = time.Unix(0, ns)
	}
	all, err := a.Timeline.Of(ctx, by, d.ID, known)
	if err != nil {
		return nil, err
	}
	return a.assignmentPage(ctx, by, all, in.Paging)
}

func (a *API) assignmentPage(ctx context.Context, by access.Principal, all []custody.Assignment, p Paging) (*reply[Page[Assignment]], error) {
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(x custody.Assignment) string { return x.ID.String() + x.Recorded.Format(time.RFC3339Nano) }, p)
	return &reply[Page[Assignment]]{mapped(page, func(x custody.Assignment) Assignment { return assignmentDoc(x, n) })}, err
}

func (a *API) assignmentHistory(ctx context.Context, by access.Principal, in *struct {
	ID string `path:"id"`
	Paging
}) (*reply[Page[Assignment]], error) {
	x, err := a.assignment(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	all, err := a.Custody.History(ctx, x)
	if err != nil {
		return nil, err
	}
	return a.assignmentPage(ctx, by, all, in.Paging)
}

func (a *API) changeAssignment(ctx context.Context, by access.Principal, in *struct {
	ID   string `path:"id"`
	Body struct {
		Terms
		Open bool `json:"open,omitempty" doc:"No end any more."`
		Keep bool `json:"never_erase,omitempty" doc:"It does not erase itself any more."`
		All  bool `json:"all_hours,omitempty" doc:"No hours any more: all of the time."`
	}
}) (*reply[ChangedAssignment], error) {
	x, err := a.assignment(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	t := x.Terms()
	already, err := in.Body.Terms.put(&t, time.Now())
	if err != nil {
		return nil, err
	}
	if in.Body.Open {
		t.To = time.Time{}
	}
	if in.Body.Keep {
		t.EraseAfter = 0
	}
	if in.Body.All {
		t.Schedule = nil
	}
	r, err := a.Timeline.Change(ctx, by, x.ID, t, already)
	return a.changed(ctx, by, r, err)
}

func (a *API) endAssignment(ctx context.Context, by access.Principal, in *struct {
	ID   string `path:"id"`
	Body *struct {
		At      string `json:"at,omitempty" doc:"The first instant after it; left out: now."`
		Already string `json:"already,omitempty" doc:"What becomes of readings from then on that are there already: keep, erase or move."`
	}
}) (*reply[ChangedAssignment], error) {
	x, err := a.assignment(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	var at time.Time
	var already timeline.Already
	if in.Body != nil {
		if in.Body.At != "" {
			ns, err := ParseTime(in.Body.At, time.Now(), false)
			if err != nil {
				return nil, err
			}
			at = time.Unix(0, ns)
		}
		if already, err = timeline.ParseAlready(in.Body.Already); err != nil {
			return nil, err
		}
	}
	r, err := a.Timeline.End(ctx, by, x.ID, at, already)
	return a.changed(ctx, by, r, err)
}
