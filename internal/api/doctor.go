package api

import (
	"context"

	"github.com/holdfast-iot/holdfast/internal/access"
)

// Finding is something that is wrong or weak in a deployment, and its mend.
type Finding struct {
	Level string `json:"level" enum:"wrong,weak" doc:"wrong needs somebody soon; weak should be known."`
	What  string `json:"what"`
	Mend  string `json:"mend"`
}

// Levels of a finding.
const (
	Wrong = "wrong"
	Weak  = "weak"
)

// doctor registers what the hub thinks of itself.
func (a *API) doctor() {
	handle(a, route{method: "GET", path: "/v1/doctor", summary: "What is wrong or weak in this deployment, each with its mend.",
		rule: reads(access.Administrator)},
		func(ctx context.Context, _ access.Principal, _ *struct{}) (*reply[Page[Finding]], error) {
			all, err := a.Doctor(ctx)
			if all == nil {
				all = []Finding{}
			}
			return &reply[Page[Finding]]{Page[Finding]{Items: all}}, err
		})
}
