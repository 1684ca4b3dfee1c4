package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// Twin is what is wanted of a device and what it says of itself.
type Twin struct {
	Device   string          `json:"device"`
	Desired  Document        `json:"desired"`
	Reported Document        `json:"reported"`
	Delta    json.RawMessage `json:"delta" doc:"What of the desired state the device has not reported."`
}

// Document is one of a device's two states.
type Document struct {
	Version int64           `json:"version" doc:"0: never set."`
	State   json.RawMessage `json:"state"`
	Changed *time.Time      `json:"changed,omitempty"`
}

type twinReply struct {
	ETag string `header:"ETag"`
	Body Twin
}

type setDesired struct {
	Named
	IfMatch string `header:"If-Match" maxLength:"32" doc:"The version that is changed, as \"3\"; another one is a conflict. Left out: any."`
	RawBody []byte `contentType:"application/json"`
}

func (a *API) twins() {
	handle(a, route{method: "GET", path: "/v1/devices/{id}/twin", summary: "Show what is wanted of a device, what it says of itself, and what differs.", rule: reads()},
		func(ctx context.Context, by access.Principal, in *Named) (*twinReply, error) {
			d, err := a.device(ctx, by, in.ID)
			if err != nil {
				return nil, err
			}
			c, err := a.commander(ctx, by, d)
			if err != nil {
				return nil, err
			}
			t, err := a.Twin.Twin(ctx, c, d.ID)
			if err != nil {
				return nil, err
			}
			return twinDoc(t)
		})
	set := writes(access.Owner, access.Administrator, access.Program)
	set.body, set.file = twin.MaxDocument+8<<10, true
	for method, summary := range map[string]string{
		http.MethodPut:   "Say anew what is wanted of a device: the body is the whole desired state.",
		http.MethodPatch: "Change what is wanted of a device: the body is a merge patch (RFC 7396) of the desired state.",
	} {
		handle(a, route{method: method, path: "/v1/devices/{id}/twin", summary: summary, rule: set, raw: true},
			func(ctx context.Context, by access.Principal, in *setDesired) (*twinReply, error) {
				return a.setDesired(ctx, by, in, method == http.MethodPatch)
			})
	}
}

func (a *API) setDesired(ctx context.Context, by access.Principal, in *setDesired, patch bool) (*twinReply, error) {
	version := int64(-1)
	if in.IfMatch != "" && in.IfMatch != "*" {
		var err error
		if version, err = strconv.ParseInt(strings.Trim(in.IfMatch, `"`), 10, 64); err != nil || version < 0 {
			return nil, holdfast.Errorf(holdfast.Invalid, `If-Match has the version of the desired state, like "3"`)
		}
	}
	d, err := a.device(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	c, err := a.commander(ctx, by, d)
	if err != nil {
		return nil, err
	}
	t, err := a.Twin.SetDesired(ctx, c, d.ID, version, twin.Change{Patch: patch, State: in.RawBody})
	if err != nil {
		return nil, err
	}
	return twinDoc(t)
}

func twinDoc(t twin.Twin) (*twinReply, error) {
	differs, err := t.Delta()
	return &twinReply{strconv.Quote(strconv.FormatInt(t.DesiredVersion, 10)), Twin{
		Device:   t.Device.String(),
		Desired:  Document{t.DesiredVersion, t.Desired, moment(t.DesiredChanged)},
		Reported: Document{t.ReportedVersion, t.Reported, moment(t.ReportedChanged)},
		Delta:    differs,
	}}, err
}
