package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
)

type addProfile struct {
	RawBody []byte `contentType:"application/json"`
}

func (a *API) profiles() {
	add := writes(access.Administrator)
	add.body, add.file = custody.MaxProfileBytes, true
	handle(a, route{method: "POST", path: "/v1/profiles", summary: "Add a version of a profile.", status: http.StatusCreated, rule: add, raw: true},
		func(ctx context.Context, by access.Principal, in *addProfile) (*reply[custody.Profile], error) {
			if len(in.RawBody) == 0 {
				return nil, holdfast.Errorf(holdfast.Invalid, "the profile is the body of the request")
			}
			if err := checkProfile(in.RawBody); err != nil {
				return nil, err
			}
			p, err := a.Custody.AddProfile(ctx, by.Credential, in.RawBody)
			return &reply[custody.Profile]{p}, err
		})
	handle(a, route{method: "GET", path: "/v1/profiles", summary: "List the profiles, the newest version of each first.", rule: reads()},
		func(ctx context.Context, _ access.Principal, in *struct{ Paging }) (*reply[Page[custody.Profile]], error) {
			all, err := a.Custody.Profiles(ctx)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, profileKey, in.Paging)
			return &reply[Page[custody.Profile]]{page}, err
		})
	handle(a, route{method: "GET", path: "/v1/profiles/{name}", summary: "Show a profile.", rule: reads()},
		func(ctx context.Context, _ access.Principal, in *struct {
			Name    string `path:"name" maxLength:"128"`
			Version int    `query:"version" minimum:"0" maximum:"1000000000" doc:"Default: the newest."`
		}) (*reply[custody.Profile], error) {
			p, err := a.Custody.Profile(ctx, in.Name, in.Version)
			return &reply[custody.Profile]{p}, err
		})
}

func profileKey(p custody.Profile) string { return fmt.Sprintf("%s@%d", p.Name, p.Version) }

// checkProfile refuses what is no profile at all without the parser's words, which
// would quote it.
func checkProfile(file []byte) error {
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	err := d.Decode(new(custody.Profile))
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return holdfast.Errorf(holdfast.Invalid, "the profile's field %s has another type", e.Field)
	}
	if err != nil {
		return holdfast.Errorf(holdfast.Invalid, "the profile has a field that is not known here")
	}
	return nil
}
