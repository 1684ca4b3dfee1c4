package api

import (
	"encoding/json"
	"mime"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
)

// maxUnits is that of a file of units; custody says no a little earlier.
const maxUnits = 64<<20 + 1

// UnitLine is one line of the answer to a file of units.
type UnitLine struct {
	Serial         string     `json:"serial"`
	Existing       bool       `json:"existing,omitempty" doc:"It was known already and is left as it was."`
	Device         string     `json:"device,omitempty"`
	Label          string     `json:"label,omitempty"`
	EnrolmentCode  string     `json:"enrolment_code,omitempty"`
	EnrolmentUntil *time.Time `json:"enrolment_until,omitempty"`
	ClaimCode      string     `json:"claim_code,omitempty"`
	TakesFrom      *time.Time `json:"takes_from,omitempty" doc:"As of a device that is added alone."`
}

type unitsInput struct {
	Owner     string `query:"owner" doc:"Of units whose line names none; default: the operating organisation."`
	Unclaimed bool   `query:"unclaimed" doc:"Units whose line names no owner are nobody's until claimed."`
	Profile   string `query:"profile" maxLength:"128"`
	Days      int    `query:"days" minimum:"1" maximum:"400" default:"7" doc:"How long the enrolment codes live."`
}

// units registers the import of units. All of the file is taken or nothing; then
// each device gets its code, one line of the answer at a time. Who loses the answer
// half-way makes new codes for the rest.
func (a *API) units() {
	rule := rule{needs: access.ScopeWrite, roles: []access.Role{access.Administrator}, slow: true}
	stream(a, route{method: "POST", path: "/v1/units", summary: "Add units and their devices from CSV: serial, label, profile, owner.", rule: rule},
		[]string{"application/x-ndjson"}, a.addUnits)
}

func (a *API) addUnits(w http.ResponseWriter, r *http.Request, by access.Principal, in *unitsInput) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "text/csv" {
		return problem(http.StatusUnsupportedMediaType, "send CSV, with Content-Type: text/csv")
	}
	defaults := custody.UnitDefaults{Unclaimed: in.Unclaimed, Profile: in.Profile}
	if in.Owner != "" {
		if in.Unclaimed {
			return holdfast.Errorf(holdfast.Invalid, "units have an owner or are unclaimed, not both")
		}
		p, err := a.party(r.Context(), by, in.Owner)
		if err != nil {
			return err
		}
		defaults.Owner = p.ID
	}
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(5 * time.Minute))
	report, err := a.Custody.AddUnits(r.Context(), by.Credential, http.MaxBytesReader(w, r.Body, maxUnits), defaults)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := newSink(w, r, a.Limits.StreamStall)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	for _, serial := range report.Existing {
		if err := lines.Encode(UnitLine{Serial: serial, Existing: true}); err != nil {
			return err
		}
	}
	for _, u := range report.Added {
		line := UnitLine{Serial: u.Serial, Device: u.Device.ID.String(), Label: u.Device.Label, ClaimCode: u.ClaimCode, TakesFrom: moment(u.TakesFrom)}
		if line.EnrolmentCode, line.EnrolmentUntil, err = a.enrolmentCode(r.Context(), u.Device, in.Days); err != nil {
			return err
		}
		if err := lines.Encode(line); err != nil {
			return err
		}
	}
	return out.end()
}
