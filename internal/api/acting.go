package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// forHeader names the party in whose place an owner asks: a household whose adult
// he is, or a child whose guardian he is.
const forHeader = "Holdfast-For"

// actingPaths are those that may be asked in another's place. Credentials,
// invitations and memberships are not among them: what somebody makes in another's
// place must not outlive his standing there.
func actingPaths() []string {
	return []string{"/api/v1/", "/v1/assignments", "/v1/claims", "/v1/commands", "/v1/decisions", "/v1/devices", "/v1/erasures", "/v1/exports", "/v1/feed", "/v1/grants", "/v1/holds", "/v1/ledger", "/v1/me/",
		"/v1/readings", "/v1/transfers"}
}

// standIn returns the caller in the place of the party that he names. A party for
// which he does not act is refused like one that does not exist.
func (a *API) standIn(ctx context.Context, by access.Principal, pattern, text string) (access.Principal, error) {
	_, path, _ := strings.Cut(pattern, " ")
	if !slices.ContainsFunc(actingPaths(), func(p string) bool { return strings.HasPrefix(path, p) }) {
		return by, holdfast.Errorf(holdfast.Invalid, "this is asked for oneself: leave out %s", forHeader)
	}
	if by.Role != access.Owner {
		return by, holdfast.Errorf(holdfast.Denied, "only a person with his own credential acts for another")
	}
	if text == by.Party.String() {
		return by, nil
	}
	parties, err := a.actsFor(ctx, by)
	if err != nil {
		return by, err
	}
	for _, id := range parties {
		p, err := a.Custody.Party(ctx, id)
		if err != nil {
			return by, err
		}
		if text == id.String() || text == p.Name {
			return a.inPlaceOf(ctx, by, id)
		}
	}
	return by, noParty()
}

// actsFor returns the parties in whose place a caller acts.
func (a *API) actsFor(ctx context.Context, by access.Principal) ([]holdfast.PartyID, error) {
	if by.Role != access.Owner || !by.Actor.IsZero() {
		return nil, nil
	}
	return a.Custody.ActsFor(ctx, by.Party)
}

// stands reports whether a caller is a party, or acts in its place.
func (a *API) stands(ctx context.Context, by access.Principal, party holdfast.PartyID) (bool, error) {
	if party.IsZero() || party == by.Party {
		return !party.IsZero(), nil
	}
	parties, err := a.actsFor(ctx, by)
	return slices.Contains(parties, party), err
}

// inPlaceOf is the caller as the party in whose place he acts, if he does. A second
// factor is his own and settles nothing there.
func (a *API) inPlaceOf(ctx context.Context, by access.Principal, party holdfast.PartyID) (access.Principal, error) {
	parties, err := a.actsFor(ctx, by)
	if err != nil || !slices.Contains(parties, party) {
		return by, err
	}
	settled, err := a.Custody.SettledFor(ctx, by.Party, party)
	by.Actor, by.Party, by.Settled = by.Party, party, by.Settled && settled
	return by, err
}

func forOf(req *http.Request) string { return strings.TrimSpace(req.Header.Get(forHeader)) }
