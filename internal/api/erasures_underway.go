package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// What an erasure covers is refused long before its keys are dead where a holder does
// not answer. An owner who then looks for his readings is told why they are not there;
// everybody else hears what he would hear if they had never been.

// erasingHeader names the erasures of the reader's own that are under way.
const erasingHeader = "Holdfast-Erasing"

// UnderWay is an erasure of one's own that refuses already what it covers, and whose
// keys still live.
type UnderWay struct {
	ID      string     `json:"id"`
	State   string     `json:"state" doc:"asked, or waiting: that can be undone."`
	Refused time.Time  `json:"refused" doc:"Since when what it covers is given to nobody."`
	Until   *time.Time `json:"until,omitempty" doc:"Of one that waits: until when it can be undone."`
}

// underWay returns the erasures under way of the party that somebody asks as, if he is
// its owner. What he asks about has no part in it.
func (a *API) underWay(ctx context.Context, by access.Principal) ([]UnderWay, error) {
	if by.Role != access.Owner {
		return nil, nil
	}
	all, err := a.Erasure.UnderWay(ctx, by.Party)
	if err != nil {
		return nil, fmt.Errorf("look for erasures under way: %w", err)
	}
	var out []UnderWay
	for _, e := range all {
		u := UnderWay{ID: e.ID.String(), State: e.State, Refused: e.RefusedAt}
		if e.State == erasure.Waiting {
			u.Until = moment(e.Until)
		}
		out = append(out, u)
	}
	return out, nil
}

// sayErasing names in an answer's header the erasures that may be why something is not
// in it.
func (a *API) sayErasing(ctx context.Context, by access.Principal, h http.Header) error {
	all, err := a.underWay(ctx, by)
	if err != nil || len(all) == 0 {
		return err
	}
	var ids []string
	for _, u := range all {
		ids = append(ids, u.ID)
	}
	h.Set(erasingHeader, strings.Join(ids, ", "))
	return nil
}

// maybeErasing adds to the refusal of a read that an erasure of the reader's own is under
// way, which may be why.
func (a *API) maybeErasing(ctx context.Context, by access.Principal, refused error) error {
	if k := holdfast.KindOf(refused); k != holdfast.Denied && k != holdfast.NotFound {
		return refused
	}
	all, err := a.underWay(ctx, by)
	if err != nil || len(all) == 0 {
		return refused
	}
	return holdfast.Errorf(holdfast.KindOf(refused), "%w. Erasure %s of yours is under way: what it covers is refused already (holdfast erasure show %[2]s)", refused, all[len(all)-1].ID)
}
