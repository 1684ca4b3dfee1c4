package api

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast/internal/access"
)

// Finding is something that is wrong, weak or worth knowing in a deployment, and its
// mend. docs/doctor.md has every id.
type Finding struct {
	ID    string    `json:"id" doc:"What was found; it stays the same from version to version."`
	Level string    `json:"level" enum:"wrong,weak,note" doc:"wrong needs somebody soon, weak should be mended, a note should be known."`
	What  string    `json:"what"`
	Mend  string    `json:"mend"`
	Since time.Time `json:"since,omitzero" doc:"Since when, where that is known."`
}

// Levels of a finding.
const (
	Wrong = "wrong"
	Weak  = "weak"
	Note  = "note"
)

// doctor registers what the hub thinks of itself.
func (a *API) doctor() {
	handle(a, route{method: "GET", path: "/v1/doctor", summary: "What is wrong, weak or worth knowing in this deployment, the most urgent first, each with its mend.",
		rule: reads(access.Administrator)},
		func(ctx context.Context, _ access.Principal, _ *struct{}) (*reply[Page[Finding]], error) {
			all, err := a.Doctor(ctx)
			if all == nil {
				all = []Finding{}
			}
			return &reply[Page[Finding]]{Page[Finding]{Items: all}}, err
		})
}
