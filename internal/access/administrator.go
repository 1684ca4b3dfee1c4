package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// AdministratorIdentity is an administrator's certificate with its key, for the
// files key.pem, cert.pem and ca.pem.
type AdministratorIdentity struct {
	ID                   holdfast.CredentialID
	NotAfter             time.Time
	Key, Certificate, CA []byte // PEM
}

// CreateAdministrator makes an administrator of the operating organisation with a
// key made here. It asks nobody: whoever has the data folder and the root key may
// do this, as `init` does for the first one.
func (a *Access) CreateAdministrator(ctx context.Context, party holdfast.PartyID, label string) (AdministratorIdentity, error) {
	s, err := Spec{Label: label, Party: party, Role: Administrator}.checked()
	if err != nil {
		return AdministratorIdentity{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return AdministratorIdentity{}, fmt.Errorf("create administrator: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return AdministratorIdentity{}, fmt.Errorf("create administrator: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return AdministratorIdentity{}, fmt.Errorf("create administrator: %w", err)
	}
	defer clear(pkcs8)
	m, err := a.prepare(ctx, newID(), s, csr)
	if err != nil {
		return AdministratorIdentity{}, fmt.Errorf("create administrator: %w", err)
	}
	if err := a.catalog.Write(ctx, func(tx *sql.Tx) error { return a.insert(ctx, tx, m) }); err != nil {
		return AdministratorIdentity{}, fmt.Errorf("create administrator: %w", err)
	}
	made := m.handOut()
	return AdministratorIdentity{
		ID: made.ID, NotAfter: made.NotAfter,
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		Certificate: made.Certificate,
		CA:          a.authority.CAPEM(),
	}, nil
}

// Renew makes a successor of a person's own credential, with the same rights and
// a full life; the old one stays until its end. A program's is added anew by who
// answers for it.
func (a *Access) Renew(ctx context.Context, p Principal, csr []byte) (Made, error) {
	if p.Role == Program {
		return Made{}, holdfast.Errorf(holdfast.Denied, "a program can't prolong its own credential")
	}
	c, err := a.lookUp(ctx, p.Credential)
	if err != nil {
		return Made{}, err
	}
	if c.kind == Link {
		return Made{}, holdfast.Errorf(holdfast.Denied, "what an issuer vouches for is renewed by logging in there")
	}
	return a.add(ctx, p, Spec{Label: c.about.Label, Party: c.party, Role: c.role, Scopes: c.scopes}, csr, c)
}
