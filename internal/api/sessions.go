package api

import (
	"context"
	"net/http"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/issuer"
)

// Issuer is one whose tokens are believed.
type Issuer struct {
	URL      string   `json:"url"`
	Use      string   `json:"use" enum:"owners,staff"`
	Audience string   `json:"audience" doc:"Whom its tokens must be for."`
	Client   string   `json:"client" doc:"The public client that holdfast login logs in with."`
	Scopes   []string `json:"scopes"`
}

// Session is what a caller can come in with.
type Session struct {
	Credential
	This bool `json:"this" doc:"The one that asks."`
}

// Ended says how many sessions were ended.
type Ended struct {
	Ended int `json:"ended"`
}

// sessions registers what a person has to come in with: issuers, links and every
// other credential of his.
func (a *API) sessions() {
	handle(a, route{method: "GET", path: "/v1/issuers", summary: "Who is believed about people. No credential is needed."},
		func(_ context.Context, _ access.Principal, in *struct{ Paging }) (*reply[Page[Issuer]], error) {
			page, err := paged(a.Access.Issuers(), func(c *issuer.Config) string { return c.URL + " " + c.Audience }, in.Paging)
			return &reply[Page[Issuer]]{mapped(page, func(c *issuer.Config) Issuer {
				return Issuer{URL: c.URL, Use: string(c.Use), Audience: c.Audience, Client: c.Client, Scopes: c.Scopes}
			})}, err
		})
	people := []access.Role{access.Administrator, access.Owner, access.Auditor}
	handle(a, route{method: "GET", path: "/v1/me/sessions", summary: "What I can come in with: certificates, tokens and logins.", rule: reads(people...)},
		func(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Session]], error) {
			all, err := a.Access.Sessions(ctx, by)
			if err != nil {
				return nil, err
			}
			n, err := a.names(ctx, by)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(c access.Credential) string { return c.ID.String() }, in.Paging)
			return &reply[Page[Session]]{mapped(page, func(c access.Credential) Session { return Session{credentialDoc(c, n), c.ID == by.Credential} })}, err
		})
	handle(a, route{method: "DELETE", path: "/v1/me/sessions", summary: "End all of them but this one, and open invitations.", rule: writes(people...)},
		func(ctx context.Context, by access.Principal, in *struct {
			Programs bool `query:"programs" doc:"Those of programs, too."`
		}) (*reply[Ended], error) {
			n, err := a.Access.EndOtherSessions(ctx, by, in.Programs)
			return &reply[Ended]{Ended{n}}, err
		})
	handle(a, route{method: "DELETE", path: "/v1/me/sessions/{id}", summary: "End one of them.", rule: writes(people...)},
		func(ctx context.Context, by access.Principal, in *struct {
			ID string `path:"id"`
		}) (*nothing, error) {
			id, err := holdfast.ParseID[holdfast.CredentialID](in.ID)
			if err != nil {
				return nil, holdfast.Errorf(holdfast.NotFound, "there is no such session")
			}
			return &nothing{}, a.Access.EndSession(ctx, by, id)
		})
	handle(a, route{method: "POST", path: "/v1/me/links", summary: "Let me log in by an issuer's word, too.", status: http.StatusCreated, rule: settling(access.Owner)},
		func(ctx context.Context, by access.Principal, in *struct {
			Body struct {
				Login string `json:"login" minLength:"1" maxLength:"8192" doc:"A token of the issuer, about me."`
			}
		}) (*reply[NewCredential], error) {
			m, err := a.Access.Link(ctx, by, in.Body.Login)
			return &reply[NewCredential]{newCredential(m)}, err
		})
}
