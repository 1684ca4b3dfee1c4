package api

import (
	"context"
	"net/http"

	"github.com/holdfast-iot/holdfast/internal/access"
)

func (a *API) claims() {
	handle(a, route{method: "POST", path: "/v1/claims", summary: "Become the owner of an unclaimed device.", status: http.StatusCreated,
		rule: writes(access.Owner)},
		func(ctx context.Context, by access.Principal, in *struct {
			Body struct {
				Code string `json:"code" minLength:"1" maxLength:"64"`
			}
		}) (*reply[Device], error) {
			d, err := a.Custody.Claim(ctx, by.Credential, by.Party, in.Body.Code)
			if err != nil {
				return nil, err
			}
			if err := a.Identity.Bind(ctx, d.ID, d.Assignment); err != nil {
				return nil, err
			}
			n, err := a.names(ctx, by)
			return &reply[Device]{deviceDoc(d, n)}, err
		})
}
