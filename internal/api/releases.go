package api

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/handover"
)

// ReleaseNotice tells an owner who does not answer that his device is to be
// released.
type ReleaseNotice struct {
	ID     string     `json:"id"`
	Device string     `json:"device"`
	Owner  *PartyRef  `json:"owner"`
	State  string     `json:"state" enum:"open,objected,withdrawn,released"`
	Reason string     `json:"reason"`
	Asked  *time.Time `json:"asked"`
	Until  *time.Time `json:"until" doc:"When the device is released unless the owner objects before."`
	Ended  *time.Time `json:"ended,omitempty"`
}

// Notices are what waits for the caller, and for those in whose place he acts.
type Notices struct {
	Transfers   []Transfer      `json:"transfers" doc:"Devices offered to take."`
	Memberships []Membership    `json:"memberships" doc:"Offered, to accept or decline."`
	Releases    []ReleaseNotice `json:"releases" doc:"Own devices that are to be released, to object to."`
	Erasures    []JointErasure  `json:"erasures" doc:"Erasures of a household that wait for one's word."`
}

func (a *API) releases() {
	handle(a, route{method: "POST", path: "/v1/devices/{id}/release", summary: "Give an own device back: it becomes unclaimed, its readings stay one's own.",
		rule: settling(access.Owner)},
		func(ctx context.Context, by access.Principal, in *Named) (*nothing, error) {
			d, err := a.device(ctx, by, in.ID)
			if err != nil {
				return nil, err
			}
			if d.Owner != by.Party {
				return nil, holdfast.Errorf(holdfast.Denied, "the device is another's: its owner releases it")
			}
			_, err = a.Desk.Release(ctx, by, d.ID) // what it became is the operator's to know
			return &nothing{}, err
		})
	handle(a, route{method: "POST", path: "/v1/devices/{id}/notices", summary: "Tell an owner who does not answer that his device is to be released.",
		status: http.StatusCreated, rule: writes(access.Administrator)}, a.askRelease)
	handle(a, route{method: "GET", path: "/v1/notices", summary: "List the notices of release: an owner's own, to administrators all.",
		rule: reads(access.Administrator, access.Owner)}, a.listNotices)
	handle(a, route{method: "DELETE", path: "/v1/notices/{id}", summary: "Object to the release of an own device, or withdraw the notice.",
		rule: writes(access.Administrator, access.Owner)},
		func(ctx context.Context, by access.Principal, in *byID) (*reply[ReleaseNotice], error) {
			id, err := holdfast.ParseID[holdfast.NoticeID](in.ID)
			if err != nil {
				return nil, holdfast.Errorf(holdfast.NotFound, "there is no such notice")
			}
			n, err := a.endNotice(ctx, by, id)
			if err != nil {
				return nil, err
			}
			called, err := a.names(ctx, by)
			return &reply[ReleaseNotice]{noticeDoc(n, called)}, err
		})
	handle(a, route{method: "GET", path: "/v1/me/notices", summary: "What waits for my word.", rule: reads(access.Owner)}, a.myNotices)
}

// endNotice objects in the name of whoever owns the device: the caller, or one of
// those in whose place he acts.
func (a *API) endNotice(ctx context.Context, by access.Principal, id holdfast.NoticeID) (custody.Notice, error) {
	n, err := a.Custody.EndNotice(ctx, handover.Actor(by), id)
	if holdfast.KindOf(err) != holdfast.NotFound {
		return n, err
	}
	parties, others := a.actsFor(ctx, by)
	if others != nil {
		return n, others
	}
	for _, p := range parties {
		if n, err = a.Custody.EndNotice(ctx, custody.Actor{Credential: by.Credential, Party: p}, id); holdfast.KindOf(err) != holdfast.NotFound {
			break
		}
	}
	return n, err
}

func (a *API) askRelease(ctx context.Context, by access.Principal, in *struct {
	Named
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"1000" doc:"The owner reads it."`
		Days   int    `json:"days,omitempty" minimum:"7" maximum:"365" doc:"How long he may object, default 14."`
	}
}) (*reply[ReleaseNotice], error) {
	d, err := a.device(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	n, err := a.Custody.AskRelease(ctx, handover.Actor(by), d.ID, in.Body.Reason, in.Body.Days)
	if err != nil {
		return nil, err
	}
	called, err := a.names(ctx, by)
	return &reply[ReleaseNotice]{noticeDoc(n, called)}, err
}

func (a *API) listNotices(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[ReleaseNotice]], error) {
	of := by.Party
	if by.Role == access.Administrator {
		of = holdfast.PartyID{}
	}
	all, err := a.Custody.Notices(ctx, of)
	if err != nil {
		return nil, err
	}
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(n custody.Notice) string { return n.ID.String() }, in.Paging)
	return &reply[Page[ReleaseNotice]]{mapped(page, func(x custody.Notice) ReleaseNotice { return noticeDoc(x, n) })}, err
}

func noticeDoc(n custody.Notice, called names) ReleaseNotice {
	return ReleaseNotice{ID: n.ID.String(), Device: n.Device.String(), Owner: called.ref(n.Owner), State: n.State, Reason: n.Reason,
		Asked: moment(n.Asked), Until: moment(n.Until), Ended: moment(n.Ended)}
}

func (a *API) myNotices(ctx context.Context, by access.Principal, _ *struct{}) (*reply[Notices], error) {
	out := Notices{Transfers: []Transfer{}, Memberships: []Membership{}, Releases: []ReleaseNotice{}, Erasures: []JointErasure{}}
	parties, err := a.actsFor(ctx, by)
	if err != nil {
		return nil, err
	}
	for _, p := range append([]holdfast.PartyID{by.Party}, parties...) {
		if err := a.noticesOf(ctx, by, p, &out); err != nil {
			return nil, err
		}
	}
	return &reply[Notices]{out}, nil
}

func (a *API) noticesOf(ctx context.Context, by access.Principal, party holdfast.PartyID, out *Notices) error {
	transfers, err := a.Custody.Transfers(ctx, party)
	if err != nil {
		return err
	}
	n, err := a.transferNames(ctx, by, transfers...)
	if err != nil {
		return err
	}
	as := by
	as.Party = party
	for _, t := range transfers {
		if t.State == custody.OnOffer && t.Buyer == party && time.Now().Before(t.Until) {
			out.Transfers = append(out.Transfers, transferDoc(t, as, n))
		}
	}
	releases, err := a.Custody.Notices(ctx, party)
	if err != nil {
		return err
	}
	for _, r := range releases {
		if r.State == custody.Open {
			out.Releases = append(out.Releases, noticeDoc(r, n))
		}
	}
	joints, err := a.Custody.Joints(ctx, party)
	if err != nil {
		return err
	}
	for _, j := range joints {
		if j.State == custody.Waiting {
			out.Erasures = append(out.Erasures, jointDoc(j, n))
		}
	}
	if party != by.Party {
		return nil
	}
	memberships, err := a.Custody.Memberships(ctx, party)
	if err != nil {
		return err
	}
	called, err := a.memberNames(ctx, by, memberships...)
	if err != nil {
		return err
	}
	for _, m := range memberships {
		if m.State == custody.Offered && m.Member == party {
			out.Memberships = append(out.Memberships, memberDoc(m, called))
		}
	}
	return nil
}
