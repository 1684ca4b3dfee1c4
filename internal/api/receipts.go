package api

import (
	"context"
	"net/http"

	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

const jsonLD = "application/ld+json"

// receipts registers what an owner and his recipient keep in writing of a grant.
func (a *API) receipts() {
	type which struct {
		ID string `path:"id"`
	}
	paper := func(write func(context.Context, grant.Grant) ([]byte, error), name string) func(http.ResponseWriter, *http.Request, access.Principal, *which) error {
		return func(w http.ResponseWriter, r *http.Request, by access.Principal, in *which) error {
			g, err := a.grant(r.Context(), by, in.ID)
			if err != nil {
				return err
			}
			b, err := write(r.Context(), g)
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", jsonLD)
			w.Header().Set("Content-Disposition", `attachment; filename="`+name+`-`+g.ID.String()+`.json"`)
			_, err = w.Write(b)
			return err
		}
	}
	stream(a, route{method: "GET", path: "/v1/grants/{id}/receipt", summary: "The signed receipt of a grant: ISO/IEC TS 27560, W3C DPV, JSON-LD.", rule: reads()},
		[]string{jsonLD}, paper(a.Archive.Receipt, "receipt"))
	stream(a, route{method: "GET", path: "/v1/grants/{id}/agreement", summary: "A grant in ODRL 2.2, as JSON-LD.", rule: reads()},
		[]string{jsonLD}, paper(a.Archive.Agreement, "agreement"))
}
