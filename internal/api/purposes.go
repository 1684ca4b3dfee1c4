package api

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// Purpose is why data may be used.
type Purpose struct {
	Name          string     `json:"name"`
	IRI           string     `json:"iri" doc:"The purpose in the W3C Data Privacy Vocabulary."`
	LegalBasis    string     `json:"legal_basis" enum:"consent,contract,legal-obligation,vital-interest,public-task,legitimate-interest,none"`
	BasisIRI      string     `json:"basis_iri,omitempty" doc:"The legal basis in the same vocabulary."`
	Parent        string     `json:"parent,omitempty" doc:"The purpose that this one is a part of: a grant for it covers this one."`
	Controller    string     `json:"controller,omitempty" doc:"The id of the party that answers for it; left out: the operating organisation."`
	Categories    []string   `json:"categories,omitempty" doc:"IRIs of the data that it concerns."`
	RetentionDays int        `json:"retention_days,omitempty" minimum:"0" maximum:"36500"`
	Text          string     `json:"text" doc:"What it is, for the people whose data it is."`
	BuiltIn       bool       `json:"built_in,omitempty"`
	Added         *time.Time `json:"added,omitempty"`
	Ended         *time.Time `json:"ended,omitempty"`
	Live          bool       `json:"live" doc:"Neither it nor a purpose that it is a part of has ended."`
}

type addPurpose struct {
	Body struct {
		Name          string   `json:"name" minLength:"1"`
		IRI           string   `json:"iri" minLength:"1" doc:"A purpose of the W3C Data Privacy Vocabulary, by IRI or short form: dpv:ServiceProvision."`
		LegalBasis    string   `json:"legal_basis" minLength:"1" doc:"consent, contract, legal-obligation, vital-interest, public-task, legitimate-interest, none; or a concept for one: eu-gdpr:A6-1-b."`
		Parent        string   `json:"parent,omitempty" doc:"The purpose that it is a part of."`
		Controller    string   `json:"controller,omitempty" doc:"The organisation that answers for it, by id or name; left out: the operating organisation."`
		Categories    []string `json:"categories,omitempty" maxItems:"100" doc:"The data that it concerns, by IRI or short form: pd:Location."`
		RetentionDays int      `json:"retention_days,omitempty" minimum:"0" maximum:"36500"`
		Text          string   `json:"text" minLength:"1"`
	}
}

func (a *API) purposeDoc(p grant.Purpose) Purpose {
	out := Purpose{Name: string(p.Name), IRI: p.IRI, LegalBasis: p.LegalBasis, BasisIRI: p.BasisIRI, Parent: string(p.Parent), Categories: p.Categories,
		RetentionDays: p.RetentionDays, Text: p.Text, BuiltIn: p.BuiltIn, Added: moment(p.Added), Ended: moment(p.Ended),
		Live: a.Grants.Live(context.Background(), p.Name)}
	if !p.Controller.IsZero() {
		out.Controller = p.Controller.String()
	}
	return out
}

func (a *API) addPurpose(ctx context.Context, by access.Principal, in *addPurpose) (*reply[Purpose], error) {
	b := &in.Body
	p := grant.Purpose{Name: holdfast.Purpose(b.Name), IRI: b.IRI, LegalBasis: b.LegalBasis, Parent: holdfast.Purpose(b.Parent), Categories: b.Categories,
		RetentionDays: b.RetentionDays, Text: b.Text}
	if b.Controller != "" {
		who, err := a.recipient(ctx, b.Controller)
		if err != nil {
			return nil, err
		}
		p.Controller = who.ID
	}
	p, err := a.Grants.AddPurpose(ctx, by.Credential, p)
	return &reply[Purpose]{a.purposeDoc(p)}, err
}

func (a *API) purposes() {
	handle(a, route{method: "POST", path: "/v1/purposes", summary: "Add a purpose.", status: http.StatusCreated, rule: writes(access.Administrator)}, a.addPurpose)
	handle(a, route{method: "GET", path: "/v1/purposes", summary: "List the purposes, ended ones included.", rule: reads()},
		func(ctx context.Context, _ access.Principal, in *struct{ Paging }) (*reply[Page[Purpose]], error) {
			all, err := a.Grants.Purposes(ctx)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(p grant.Purpose) string { return string(p.Name) }, in.Paging)
			return &reply[Page[Purpose]]{mapped(page, a.purposeDoc)}, err
		})
	handle(a, route{method: "GET", path: "/v1/purposes/{name}", summary: "Show a purpose.", rule: reads()},
		func(ctx context.Context, _ access.Principal, in *struct {
			Name string `path:"name"`
		}) (*reply[Purpose], error) {
			p, err := a.Grants.Purpose(ctx, holdfast.Purpose(in.Name))
			return &reply[Purpose]{a.purposeDoc(p)}, err
		})
	handle(a, route{method: "DELETE", path: "/v1/purposes/{name}", summary: "End a purpose: nothing is read or collected for it any more.",
		rule: writes(access.Administrator)},
		func(ctx context.Context, by access.Principal, in *struct {
			Name string `path:"name"`
		}) (*nothing, error) {
			return &nothing{}, a.Grants.EndPurpose(ctx, by.Credential, holdfast.Purpose(in.Name))
		})
}
