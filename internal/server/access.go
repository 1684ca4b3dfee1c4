package server

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
)

// grantOf tells package access of a grant that a credential is bound to. Access is
// opened before grants are; it asks when somebody shows a credential.
func (s *Server) grantOf(ctx context.Context, id holdfast.GrantID) (recipient holdfast.PartyID, purpose holdfast.Purpose, live bool, err error) {
	g, err := s.grants.Grant(ctx, id)
	return g.Recipient, g.Purpose, err == nil && g.Live(time.Now()), err
}

// addPerson makes a party of somebody whom an issuer vouches for.
func (s *Server) addPerson(ctx context.Context, by holdfast.CredentialID, name string) (holdfast.PartyID, error) {
	p, err := s.custody.AddParty(ctx, by, name, custody.Person)
	return p.ID, err
}
