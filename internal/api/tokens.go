package api

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// Credential is a certificate or token of a person or program. It tells no secret.
type Credential struct {
	ID       string     `json:"id"`
	Kind     string     `json:"kind" enum:"certificate,token,link"`
	Party    *PartyRef  `json:"party"`
	Role     string     `json:"role" enum:"administrator,owner,program,auditor"`
	Label    string     `json:"label,omitempty" doc:"Left out where it is another owner's own."`
	Purposes []string   `json:"purposes,omitempty"`
	Grants   []string   `json:"grants,omitempty" doc:"It reads under these and no others, and ends with the last of them."`
	Scopes   string     `json:"scopes"`
	Issuer   string     `json:"issuer,omitempty" doc:"Of a link: who vouches for its holder."`
	Made     *time.Time `json:"made"`
	Until    *time.Time `json:"until,omitempty" doc:"Of a link none: it holds until it is ended."`
	Settled  *time.Time `json:"settled,omitempty" doc:"From when it may do what can't be undone without a second factor; left out: from the start."`
	Revoked  *time.Time `json:"revoked,omitempty"`
	LastUsed string     `json:"last_used,omitempty" doc:"The day."`
}

// NewCredential is a credential that was just made, with what is shown this once.
type NewCredential struct {
	ID          string     `json:"id"`
	Until       *time.Time `json:"until"`
	Token       string     `json:"token,omitempty"`
	Certificate string     `json:"certificate,omitempty" doc:"PEM."`
	Others      int        `json:"others" doc:"Live credentials of the same party and role, this one apart."`
}

func newCredential(m access.Made) NewCredential {
	return NewCredential{ID: m.ID.String(), Until: moment(m.NotAfter), Token: m.Token, Certificate: string(m.Certificate), Others: m.Others}
}

type addToken struct {
	Body struct {
		Label    string   `json:"label" minLength:"1"`
		Party    string   `json:"party,omitempty" doc:"A name or an id; default: the caller's own."`
		Role     string   `json:"role,omitempty" enum:"administrator,owner,program,auditor" default:"program"`
		Purposes []string `json:"purposes,omitempty" maxItems:"32" doc:"What a program reads for."`
		Grants   []string `json:"grants,omitempty" maxItems:"32" doc:"A program's token may be bound to grants: it reads under no other, and ends with the last of them."`
		Scopes   []string `json:"scopes,omitempty" maxItems:"3" enum:"read,write,metrics"`
		Days     int      `json:"days,omitempty" minimum:"1" maximum:"400" doc:"How long it lives; default 90 for programs, 365 for people."`
		CSR      string   `json:"csr,omitempty" doc:"A certificate request (PKCS #10, PEM): then it is a certificate."`
	}
}

func (a *API) tokens() {
	handle(a, route{method: "POST", path: "/v1/tokens", summary: "Make a credential.", status: http.StatusCreated,
		rule: settling(access.Administrator, access.Owner)}, a.addToken)
	handle(a, route{method: "GET", path: "/v1/tokens", summary: "List credentials.", rule: reads(access.Administrator, access.Owner, access.Auditor)}, a.listTokens)
	handle(a, route{method: "DELETE", path: "/v1/tokens/{id}", summary: "Revoke a credential.", rule: writes(access.Administrator, access.Owner)},
		func(ctx context.Context, by access.Principal, in *struct {
			ID string `path:"id"`
		}) (*nothing, error) {
			id, err := holdfast.ParseID[holdfast.CredentialID](in.ID)
			if err != nil {
				return nil, holdfast.Errorf(holdfast.NotFound, "there is no such credential")
			}
			return &nothing{}, a.Access.Revoke(ctx, by, id, "revoked by "+by.Role.String())
		})
}

func (a *API) addToken(ctx context.Context, by access.Principal, in *addToken) (*reply[NewCredential], error) {
	p, err := a.party(ctx, by, in.Body.Party)
	if err != nil {
		return nil, err
	}
	role, err := access.ParseRole(in.Body.Role)
	if err != nil {
		return nil, err
	}
	s := access.Spec{Label: in.Body.Label, Party: p.ID, Role: role, Life: time.Duration(in.Body.Days) * 24 * time.Hour}
	for _, text := range in.Body.Scopes {
		scope, err := access.ParseScopes(text)
		if err != nil {
			return nil, err
		}
		s.Scopes |= scope
	}
	for _, text := range in.Body.Purposes {
		if !a.Grants.Live(ctx, holdfast.Purpose(text)) {
			return nil, holdfast.Errorf(holdfast.Invalid, "a purpose of the credential does not exist or has ended")
		}
		s.Purposes = append(s.Purposes, holdfast.Purpose(text))
	}
	for _, text := range in.Body.Grants {
		id, err := holdfast.ParseID[holdfast.GrantID](text)
		if err != nil {
			return nil, holdfast.Errorf(holdfast.Invalid, "a grant is named by its id, as grant list shows it")
		}
		s.Grants = append(s.Grants, id)
	}
	csr, err := readCSR(in.Body.CSR)
	if err != nil {
		return nil, err
	}
	m, err := a.Access.Add(ctx, by, s, csr)
	return &reply[NewCredential]{newCredential(m)}, err
}

func (a *API) listTokens(ctx context.Context, by access.Principal, in *struct {
	Party string `query:"party" doc:"A name or an id; default: the caller's own, to staff all."`
	Paging
}) (*reply[Page[Credential]], error) {
	var party holdfast.PartyID
	if in.Party != "" || by.Role == access.Owner {
		p, err := a.party(ctx, by, in.Party)
		if err != nil {
			return nil, err
		}
		party = p.ID
	}
	all, err := a.Access.Credentials(ctx, by, party)
	if err != nil {
		return nil, err
	}
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(c access.Credential) string { return c.ID.String() }, in.Paging)
	return &reply[Page[Credential]]{mapped(page, func(c access.Credential) Credential { return credentialDoc(c, n) })}, err
}

func credentialDoc(c access.Credential, n names) Credential {
	out := Credential{ID: c.ID.String(), Kind: c.Kind.String(), Party: n.ref(c.Party), Role: c.Role.String(), Label: c.Label,
		Purposes: words(c.Purposes), Scopes: c.Scopes.String(), Issuer: c.Issuer, Made: moment(c.Made), Until: moment(c.NotAfter), Settled: moment(c.Settled), Revoked: moment(c.Revoked)}
	if c.Kind == access.Link {
		out.Until = nil
	}
	for _, g := range c.Grants {
		out.Grants = append(out.Grants, g.String())
	}
	if !c.LastUsed.IsZero() {
		out.LastUsed = c.LastUsed.Format(time.DateOnly)
	}
	return out
}

func words(purposes []holdfast.Purpose) []string {
	var out []string
	for _, p := range purposes {
		out = append(out, string(p))
	}
	return out
}

// readCSR reads a certificate request in PEM; the empty text is none.
func readCSR(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the certificate request is not PEM")
	}
	if _, err := x509.ParseCertificateRequest(block.Bytes); err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the certificate request can't be read")
	}
	return block.Bytes, nil
}
