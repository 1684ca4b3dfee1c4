package api

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// Rule says how long readings of a category are kept for a purpose.
type Rule struct {
	Category string `json:"category,omitempty" maxLength:"512" doc:"IRI; left out: every category."`
	Purpose  string `json:"purpose,omitempty" doc:"Left out: every purpose."`
	Days     int    `json:"days" minimum:"1" maximum:"36500"`
}

// Expiry is how the daily run of retention stands.
type Expiry struct {
	Last    *time.Time `json:"last,omitempty" doc:"When the last run ended."`
	Doubted bool       `json:"clock_doubted,omitempty" doc:"The clock is too far ahead of the last run: nothing dies by age until somebody vouches for it."`
	Due     []Due      `json:"due" doc:"What is due now, or was in this run."`
}

// Due is what of a stream has outlived its retention. It names ids only.
type Due struct {
	Assignment string   `json:"assignment"`
	Stream     string   `json:"stream"`
	Buckets    []uint32 `json:"buckets" doc:"Months or days of arrival: YYYYMM or YYYYMMDD."`
	Held       bool     `json:"held,omitempty" doc:"A hold keeps it."`
}

func (a *API) retention() {
	handle(a, route{method: "GET", path: "/v1/retention/rules", summary: "List the rules of retention.", rule: reads()},
		func(_ context.Context, _ access.Principal, in *struct{ Paging }) (*reply[Page[Rule]], error) {
			page, err := paged(a.Grants.Rules(), func(r grant.Rule) string { return string(r.Purpose) + " " + r.Category }, in.Paging)
			return &reply[Page[Rule]]{mapped(page, func(r grant.Rule) Rule { return Rule{r.Category, string(r.Purpose), r.Days} })}, err
		})
	handle(a, route{method: "PUT", path: "/v1/retention/rules", summary: "Set a rule of retention, also for what is stored.", rule: writes(access.Administrator)},
		func(ctx context.Context, by access.Principal, in *struct{ Body Rule }) (*reply[Rule], error) {
			b := in.Body
			return &reply[Rule]{b}, a.Grants.SetRule(ctx, by.Credential, grant.Rule{Category: b.Category, Purpose: holdfast.Purpose(b.Purpose), Days: b.Days})
		})
	handle(a, route{method: "DELETE", path: "/v1/retention/rules", summary: "Take a rule of retention back.", rule: writes(access.Administrator)},
		func(ctx context.Context, by access.Principal, in *struct {
			Category string `query:"category" maxLength:"512"`
			Purpose  string `query:"purpose" maxLength:"128"`
		}) (*nothing, error) {
			return &nothing{}, a.Grants.DropRule(ctx, by.Credential, in.Category, holdfast.Purpose(in.Purpose))
		})
	handle(a, route{method: "GET", path: "/v1/retention/due", summary: "Show what the next run destroys, and what holds keep.", rule: reads(access.Administrator)},
		func(ctx context.Context, _ access.Principal, _ *struct{}) (*reply[Expiry], error) {
			x, err := a.Erasure.Expiring(ctx)
			return &reply[Expiry]{expiryDoc(x)}, err
		})
	run := writes(access.Administrator)
	run.slow = true
	handle(a, route{method: "POST", path: "/v1/retention/runs", summary: "Destroy now what is due.", rule: run},
		func(ctx context.Context, by access.Principal, in *struct {
			Body struct {
				ClockIsRight bool `json:"clock_is_right,omitempty" doc:"Vouches for a clock that is far ahead of the last run."`
			}
		}) (*reply[Expiry], error) {
			if err := by.MustBeSettled(); err != nil {
				return nil, err
			}
			x, err := a.Erasure.Expire(ctx, in.Body.ClockIsRight)
			return &reply[Expiry]{expiryDoc(x)}, err
		})
	handle(a, route{method: "POST", path: "/v1/purposes/{name}/revival", summary: "Take back the end of a purpose, before its data are destroyed.",
		rule: writes(access.Administrator)},
		func(ctx context.Context, by access.Principal, in *struct {
			Name string `path:"name"`
		}) (*nothing, error) {
			return &nothing{}, a.Grants.RevivePurpose(ctx, by.Credential, holdfast.Purpose(in.Name))
		})
}

func expiryDoc(x erasure.Expiry) Expiry {
	out := Expiry{Last: moment(x.Last), Doubted: x.Doubted, Due: []Due{}}
	for _, d := range x.Due {
		doc := Due{Assignment: d.Assignment.String(), Stream: d.Stream.String(), Held: d.Held}
		for _, b := range d.Buckets {
			doc.Buckets = append(doc.Buckets, uint32(b))
		}
		out.Due = append(out.Due, doc)
	}
	return out
}
