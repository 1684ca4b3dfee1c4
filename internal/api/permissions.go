package api

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// Permission lets an administrator read one party's data for a while, if somebody
// else approved it.
type Permission struct {
	ID          string     `json:"id"`
	State       string     `json:"state" enum:"asked,approved,refused,ended,over"`
	Whose       *PartyRef  `json:"whose"`
	Purpose     string     `json:"purpose"`
	Reason      string     `json:"reason"`
	Devices     []string   `json:"devices,omitempty" doc:"Left out: all."`
	From        *time.Time `json:"from"`
	Until       *time.Time `json:"until"`
	AskedBy     string     `json:"asked_by" doc:"A credential."`
	Asked       *time.Time `json:"asked"`
	DecidedBy   string     `json:"decided_by,omitempty"`
	DecidedRole string     `json:"decided_role,omitempty" enum:"owner,administrator,auditor"`
	Decided     *time.Time `json:"decided,omitempty"`
	EndedBy     string     `json:"ended_by,omitempty"`
	EndedRole   string     `json:"ended_role,omitempty" enum:"owner,administrator,auditor"`
	Ended       *time.Time `json:"ended,omitempty"`
}

type askPermission struct {
	Body struct {
		Whose   string   `json:"whose" minLength:"1" doc:"The party whose data: a name or an id."`
		Purpose string   `json:"purpose,omitempty" default:"operation"`
		Reason  string   `json:"reason" minLength:"1" maxLength:"500" doc:"For that party, in words."`
		Devices []string `json:"devices,omitempty" maxItems:"100" doc:"Labels or ids; left out: all."`
		From    string   `json:"from,omitempty" doc:"Default: now."`
		Until   string   `json:"until,omitempty" doc:"Default: 4 hours later; at most 7 days."`
	}
}

// permissions registers the way by which staff come to read an owner's data.
func (a *API) permissions() {
	staff := []access.Role{access.Administrator, access.Auditor}
	both := append(staff[:2:2], access.Owner)
	handle(a, route{method: "POST", path: "/v1/permissions", summary: "Ask to read a party's data. Somebody else must approve.", status: http.StatusCreated,
		rule: writes(access.Administrator)}, a.askPermission)
	handle(a, route{method: "GET", path: "/v1/permissions", summary: "List the permissions of staff.", rule: reads(staff...)},
		func(ctx context.Context, by access.Principal, in *struct {
			Whose string `query:"whose" doc:"Those about this party."`
			Paging
		}) (*reply[Page[Permission]], error) {
			var whose holdfast.PartyID
			if in.Whose != "" {
				p, err := a.party(ctx, by, in.Whose)
				if err != nil {
					return nil, err
				}
				whose = p.ID
			}
			return a.listPermissions(ctx, by, whose, in.Paging)
		})
	handle(a, route{method: "GET", path: "/v1/me/permissions", summary: "Who of the hub's staff asked to read my data, and may.", rule: reads(access.Owner)},
		func(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Permission]], error) {
			return a.listPermissions(ctx, by, by.Party, in.Paging)
		})
	handle(a, route{method: "POST", path: "/v1/permissions/{id}/approve", summary: "Approve one: the one whose data it is, or a second person of the staff.", rule: settling(both...)},
		func(ctx context.Context, by access.Principal, in *onePermission) (*reply[Permission], error) {
			return a.decidePermission(ctx, by, in.ID, true)
		})
	handle(a, route{method: "POST", path: "/v1/permissions/{id}/refuse", summary: "Refuse one.", rule: writes(both...)},
		func(ctx context.Context, by access.Principal, in *onePermission) (*reply[Permission], error) {
			return a.decidePermission(ctx, by, in.ID, false)
		})
	handle(a, route{method: "DELETE", path: "/v1/permissions/{id}", summary: "End one, or the wish for one.", rule: writes(both...)},
		func(ctx context.Context, by access.Principal, in *onePermission) (*nothing, error) {
			id, err := permissionID(in.ID)
			if err != nil {
				return nil, err
			}
			return &nothing{}, a.Access.EndPermission(ctx, by, id)
		})
}

type onePermission struct {
	ID string `path:"id"`
}

func permissionID(text string) (holdfast.PermissionID, error) {
	id, err := holdfast.ParseID[holdfast.PermissionID](text)
	if err != nil {
		return id, holdfast.Errorf(holdfast.NotFound, "there is no such permission")
	}
	return id, nil
}

func (a *API) askPermission(ctx context.Context, by access.Principal, in *askPermission) (*reply[Permission], error) {
	b := &in.Body
	p, err := a.party(ctx, by, b.Whose)
	if err != nil {
		return nil, err
	}
	s := access.PermissionSpec{Whose: p.ID, Purpose: holdfast.Purpose(b.Purpose), Reason: b.Reason}
	if !a.Grants.Live(ctx, s.Purpose) {
		return nil, holdfast.Errorf(holdfast.Invalid, "the purpose does not exist or has ended")
	}
	for _, name := range b.Devices {
		d, err := a.device(ctx, by, name)
		if err != nil {
			return nil, err
		}
		s.Devices = append(s.Devices, d.ID)
	}
	now := time.Now()
	for to, text := range map[*time.Time]string{&s.From: b.From, &s.Until: b.Until} {
		if text == "" {
			continue
		}
		ns, err := ParseTime(text, now, to == &s.Until)
		if err != nil {
			return nil, err
		}
		*to = time.Unix(0, ns)
	}
	made, err := a.Access.AskPermission(ctx, by, s)
	if err != nil {
		return nil, err
	}
	n, err := a.names(ctx, by)
	return &reply[Permission]{permissionDoc(made, n)}, err
}

func (a *API) decidePermission(ctx context.Context, by access.Principal, text string, yes bool) (*reply[Permission], error) {
	id, err := permissionID(text)
	if err != nil {
		return nil, err
	}
	p, err := a.Access.DecidePermission(ctx, by, id, yes)
	if err != nil {
		return nil, err
	}
	n, err := a.names(ctx, by)
	return &reply[Permission]{permissionDoc(p, n)}, err
}

func (a *API) listPermissions(ctx context.Context, by access.Principal, whose holdfast.PartyID, at Paging) (*reply[Page[Permission]], error) {
	all, err := a.Access.Permissions(ctx, by, whose)
	if err != nil {
		return nil, err
	}
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(p access.Permission) string { return p.ID.String() }, at)
	return &reply[Page[Permission]]{mapped(page, func(p access.Permission) Permission { return permissionDoc(p, n) })}, err
}

func permissionDoc(p access.Permission, n names) Permission {
	out := Permission{ID: p.ID.String(), State: p.State, Whose: n.ref(p.Whose), Purpose: string(p.Purpose), Reason: p.Reason, From: moment(p.From), Until: moment(p.Until),
		AskedBy: p.AskedBy.String(), Asked: moment(p.Asked), DecidedRole: p.DecidedRole, Decided: moment(p.Decided), EndedRole: p.EndedRole, Ended: moment(p.Ended)}
	for _, d := range p.Devices {
		out.Devices = append(out.Devices, d.String())
	}
	if !p.DecidedBy.IsZero() {
		out.DecidedBy = p.DecidedBy.String()
	}
	if !p.EndedBy.IsZero() {
		out.EndedBy = p.EndedBy.String()
	}
	return out
}
