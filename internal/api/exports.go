package api

import (
	"context"
	"net/http"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/archive"
)

type exportInput struct {
	Body *struct {
		Party string `json:"party,omitempty" doc:"A name or an id; default: the caller's own."`
	}
}

// exports registers the way out in open formats. What a person takes along is
// read by the same right as everything else; nothing is kept on this side.
func (a *API) exports() {
	rule := rule{needs: access.ScopeRead, roles: []access.Role{access.Administrator, access.Owner}, body: maxBody, slow: true, settles: true}
	stream(a, route{method: "POST", path: "/v1/exports", summary: "Take everything of a party along, as a tar of a signed folder in open formats.", rule: rule},
		[]string{"application/x-tar"}, a.export)
}

func (a *API) export(w http.ResponseWriter, r *http.Request, by access.Principal, in *exportInput) error {
	name := ""
	if in.Body != nil {
		name = in.Body.Party
	}
	p, err := a.party(r.Context(), by, name)
	if err != nil {
		return err
	}
	if p.ID != by.Party {
		return holdfast.Errorf(holdfast.Denied, "what is a party's is exported with its own credential")
	}
	leave, err := a.begin(by)
	if err != nil {
		return err
	}
	defer leave()
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Content-Disposition", `attachment; filename="holdfast-export.tar"`)
	out := newSink(w, r, a.Limits.StreamStall)
	defer out.watch(r.Context(), func(context.Context) error { return a.Access.Live(by) })()
	tar := archive.NewTar(watched{out, a, by}, "holdfast-export")
	if _, err := a.Archive.Export(r.Context(), by, p.ID, tar); err != nil {
		return err
	}
	if err := tar.Close(); err != nil {
		return err
	}
	return out.end()
}

// watched ends a stream whose credential has ended.
type watched struct {
	out *sink
	a   *API
	by  access.Principal
}

func (w watched) Write(p []byte) (int, error) {
	if err := w.a.Access.Live(w.by); err != nil {
		return 0, err
	}
	return w.out.Write(p)
}
