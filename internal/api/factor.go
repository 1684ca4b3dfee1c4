package api

import (
	"context"
	"net/http"

	"github.com/holdfast-iot/holdfast/internal/access"
)

// Factor says whether there is a second factor.
type Factor struct {
	Confirmed bool `json:"confirmed"`
	Recovery  int  `json:"recovery_codes" doc:"How many are left."`
}

// NewFactor is a new second factor, whose secret is shown this once.
type NewFactor struct {
	Secret string `json:"secret" doc:"Base32, for a program that makes codes (TOTP, RFC 6238: SHA-1, six digits, 30 s)."`
	URL    string `json:"url" doc:"The same as otpauth://."`
}

// RecoveryCodes are shown this once; each does once what a code does.
type RecoveryCodes struct {
	Codes []string `json:"recovery_codes"`
}

// factor registers a person's second factor. A code of it is shown in the header
// Holdfast-Code.
func (a *API) factor() {
	people := []access.Role{access.Administrator, access.Owner, access.Auditor}
	handle(a, route{method: "GET", path: "/v1/me/factor", summary: "Have I a second factor?", rule: reads(people...)},
		func(ctx context.Context, by access.Principal, _ *struct{}) (*reply[Factor], error) {
			has, left, err := a.Access.Factor(ctx, by)
			return &reply[Factor]{Factor{has, left}}, err
		})
	handle(a, route{method: "POST", path: "/v1/me/factor", summary: "Make a second factor. It counts when a code of it is confirmed.", status: http.StatusCreated, rule: settling(people...)},
		func(ctx context.Context, by access.Principal, _ *struct{}) (*reply[NewFactor], error) {
			f, err := a.Access.AddFactor(ctx, by)
			return &reply[NewFactor]{NewFactor{f.Secret, f.URL}}, err
		})
	handle(a, route{method: "POST", path: "/v1/me/factor/confirm", summary: "Confirm it with a code.", rule: settling(people...)},
		func(ctx context.Context, by access.Principal, in *struct {
			Body struct {
				Code string `json:"code" minLength:"6" maxLength:"8"`
			}
		}) (*reply[RecoveryCodes], error) {
			codes, err := a.Access.ConfirmFactor(ctx, by, in.Body.Code)
			return &reply[RecoveryCodes]{RecoveryCodes{codes}}, err
		})
	handle(a, route{method: "DELETE", path: "/v1/me/factor", summary: "Remove it, with its recovery codes.", rule: settling(people...)},
		func(ctx context.Context, by access.Principal, _ *struct{}) (*nothing, error) {
			return &nothing{}, a.Access.RemoveFactor(ctx, by)
		})
}
