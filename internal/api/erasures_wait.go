package api

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// seconds is how long a caller waits, if he said so. It is a type of its own because
// huma takes a 0 that somebody gave for nothing given, and puts a default there.
type seconds struct {
	N     int
	given bool
}

// Schema is how the API's description has it.
func (seconds) Schema(huma.Registry) *huma.Schema {
	least, most := 0.0, 60.0
	s := &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &least, Maximum: &most, Description: "How many seconds to wait for the end; left out: 30. With 0 the answer comes as soon as all paths refuse it, with its id."}
	s.PrecomputeMessages()
	return s
}

// Receiver is what the parameter is read into.
func (s *seconds) Receiver() reflect.Value { return reflect.ValueOf(&s.N).Elem() }

// OnParamSet notes that the parameter was given.
func (s *seconds) OnParamSet(given bool, _ any) { s.given = given }

// or is what was given, or else the default.
func (s *seconds) or(otherwise int) int {
	if s.given {
		return s.N
	}
	return otherwise
}

// waitForErasure is how many seconds a request waits for the end of an erasure, if it
// does not say.
const waitForErasure = 30

// goneAlready adds to the refusal of an erasure that finds nothing to erase which one
// under way may have it: to the one whose data they are, and to administrators.
func (a *API) goneAlready(ctx context.Context, by access.Principal, b *wantedErasure, refused error) error {
	if holdfast.KindOf(refused) != holdfast.NotFound || b.Device == "" {
		return refused
	}
	d, err := a.device(ctx, by, b.Device)
	if err != nil {
		return refused
	}
	held, err := a.Custody.Holders(ctx, d.ID)
	if err != nil {
		return refused
	}
	all, err := a.Erasure.Undone(ctx)
	if err != nil {
		return refused
	}
	for _, e := range all {
		if by.Role == access.Owner && e.Party != by.Party {
			continue
		}
		for _, x := range held {
			if slices.Contains(e.Scope.Assignments, x.ID) {
				return fmt.Errorf("%w; erasure %s of this device is under way: holdfast erasure show %[2]s", refused, e.ID)
			}
		}
	}
	return refused
}

// everyOneWaits is why an erasure waits whose asker named no window.
const everyOneWaits = "this hub has every erasure wait, so that it can be undone"

// alone says why an erasure in bulk waits, and what there is to do: to staff with those
// who could have a word.
func alone(own, approval bool, deciders []string) string {
	who := strings.Join(deciders, ", ")
	switch {
	case approval && len(deciders) == 0:
		return "another administrator has to approve it"
	case approval:
		return "it is more than one administrator may have erased alone within 24 hours: another one has to approve it, and could be " + who
	case own && len(deciders) == 0:
		return "it counts for the administrator who invited the owner in the last 30 days, and is more than one may have erased alone within 24 hours: it begins by itself, and needs nobody's word"
	case own:
		return "it counts for the administrator who invited the owner in the last 30 days, and is more than one may have erased alone within 24 hours: it begins by itself; until then may approve or refuse it " + who
	case len(deciders) > 0:
		return "it is more than one administrator may have erased alone within 24 hours: it begins by itself; until then may approve or refuse it " + who
	}
	return "it is more than one administrator may have erased alone within 24 hours, and nobody else is here who could approve it: an administrator could whose credential is 30 days old and not from the same hand. It begins by itself, and can be undone until then"
}

// deciders names, to administrators, those of them who could have a word about an
// erasure in bulk: as they call their credentials.
func (a *API) deciders(ctx context.Context, by access.Principal, ids []holdfast.CredentialID) ([]string, error) {
	if by.Role != access.Administrator || len(ids) == 0 {
		return nil, nil
	}
	all, err := a.Access.Credentials(ctx, by, by.Party)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.String()
		for _, c := range all {
			if c.ID == id && c.Label != "" {
				out[i] = c.Label + " (" + out[i] + ")"
			}
		}
	}
	return out, nil
}

// waitsFor fills in what an erasure in bulk waits for.
func (a *API) waitsFor(ctx context.Context, by access.Principal, e erasure.Erasure, out *Erasure) error {
	bulk := e.State == erasure.Approval || e.State == erasure.Waiting && e.Safe
	if !bulk || by.Credential.IsZero() { // who has but the id is told that it waits
		return nil
	}
	ids, err := a.Erasure.Deciders(ctx, e)
	if err != nil {
		return err
	}
	if out.Deciders, err = a.deciders(ctx, by, ids); err == nil && out.Pending == "" {
		out.Pending = alone(e.OwnWord, e.State == erasure.Approval, out.Deciders)
	}
	return err
}

// unshown says what the certificate of an erasure that is done names as pending.
func unshown(e erasure.Erasure, by access.Principal) string {
	if !e.Incomplete {
		return ""
	}
	staff := by.Role == access.Administrator || by.Role == access.Auditor
	for _, h := range e.Holders {
		switch {
		case h.State != vault.HolderPending:
		case staff:
			return "the holder " + h.Holder + " has not shown that it destroyed the old root key"
		default:
			return "a holder of keys has not shown that it destroyed the old one"
		}
	}
	return "the certificate names something that is pending"
}
