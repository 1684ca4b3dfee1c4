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
	IRI           string     `json:"iri" doc:"Of the W3C Data Privacy Vocabulary, if one fits."`
	LegalBasis    string     `json:"legal_basis" enum:"consent,contract,legal-obligation,vital-interest,public-task,legitimate-interest,none"`
	RetentionDays int        `json:"retention_days,omitempty" minimum:"0" maximum:"36500"`
	Text          string     `json:"text" doc:"What it is, for the people whose data it is."`
	BuiltIn       bool       `json:"built_in,omitempty"`
	Added         *time.Time `json:"added,omitempty"`
	Ended         *time.Time `json:"ended,omitempty"`
}

func purposeDoc(p grant.Purpose) Purpose {
	return Purpose{Name: string(p.Name), IRI: p.IRI, LegalBasis: p.LegalBasis, RetentionDays: p.RetentionDays, Text: p.Text,
		BuiltIn: p.BuiltIn, Added: moment(p.Added), Ended: moment(p.Ended)}
}

func (a *API) purposes() {
	handle(a, route{method: "POST", path: "/v1/purposes", summary: "Add a purpose.", status: http.StatusCreated, rule: writes(access.Administrator)},
		func(ctx context.Context, by access.Principal, in *struct {
			Body struct {
				Name          string `json:"name" minLength:"1"`
				IRI           string `json:"iri" minLength:"1"`
				LegalBasis    string `json:"legal_basis" enum:"consent,contract,legal-obligation,vital-interest,public-task,legitimate-interest,none"`
				RetentionDays int    `json:"retention_days,omitempty" minimum:"0" maximum:"36500"`
				Text          string `json:"text" minLength:"1"`
			}
		}) (*reply[Purpose], error) {
			p, err := a.Grants.AddPurpose(ctx, by.Credential, grant.Purpose{Name: holdfast.Purpose(in.Body.Name), IRI: in.Body.IRI,
				LegalBasis: in.Body.LegalBasis, RetentionDays: in.Body.RetentionDays, Text: in.Body.Text})
			return &reply[Purpose]{purposeDoc(p)}, err
		})
	handle(a, route{method: "GET", path: "/v1/purposes", summary: "List the purposes, ended ones included.", rule: reads()},
		func(ctx context.Context, _ access.Principal, in *struct{ Paging }) (*reply[Page[Purpose]], error) {
			all, err := a.Grants.Purposes(ctx)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(p grant.Purpose) string { return string(p.Name) }, in.Paging)
			return &reply[Page[Purpose]]{mapped(page, purposeDoc)}, err
		})
	handle(a, route{method: "GET", path: "/v1/purposes/{name}", summary: "Show a purpose.", rule: reads()},
		func(ctx context.Context, _ access.Principal, in *struct {
			Name string `path:"name"`
		}) (*reply[Purpose], error) {
			p, err := a.Grants.Purpose(ctx, holdfast.Purpose(in.Name))
			return &reply[Purpose]{purposeDoc(p)}, err
		})
	handle(a, route{method: "DELETE", path: "/v1/purposes/{name}", summary: "End a purpose: nothing is read or collected for it any more.",
		rule: writes(access.Administrator)},
		func(ctx context.Context, by access.Principal, in *struct {
			Name string `path:"name"`
		}) (*nothing, error) {
			return &nothing{}, a.Grants.EndPurpose(ctx, by.Credential, holdfast.Purpose(in.Name))
		})
}
