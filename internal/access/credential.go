package access

import (
	"context"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Kind is how a credential is shown. The numbers stand in the catalog.
type Kind uint8

const (
	Certificate Kind = 1
	Token       Kind = 2
	Link        Kind = 3 // to a subject of an issuer, who vouches for it each time
)

func (k Kind) String() string {
	switch k {
	case Certificate:
		return "certificate"
	case Link:
		return "link"
	}
	return "token"
}

// MarshalText is String, for JSON.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Kind) UnmarshalText(b []byte) error {
	switch string(b) {
	case "certificate":
		*k = Certificate
	case "token":
		*k = Token
	case "link":
		*k = Link
	default:
		return holdfast.Errorf(holdfast.Invalid, "a credential is a certificate, a token or a link")
	}
	return nil
}

const (
	tokenLife  = 90 * 24 * time.Hour  // of a program
	personLife = 365 * 24 * time.Hour // of an administrator's or owner's credential
	maxLife    = 400 * 24 * time.Hour
	maxLive    = 1000 // credentials of one party and role at once
	maxGrants  = 32   // that one credential is bound to
)

// Spec says what a new credential is.
type Spec struct {
	Label    string // for people; sealed
	Party    holdfast.PartyID
	Role     Role
	Purposes []holdfast.Purpose // a program that reads names at least one
	Scopes   Scopes             // default: a program reads, others may do all of their role
	Life     time.Duration      // default 90 days for programs, 365 for people; at most 400
	Grants   []holdfast.GrantID // a program's may be bound to these: it reads under no other, and ends with the last of them
}

func (s Spec) checked() (Spec, error) {
	if !s.Role.valid() || s.Party.IsZero() {
		return s, holdfast.Errorf(holdfast.Invalid, "a credential has a party and a role: administrator, owner, program or auditor")
	}
	if err := holdfast.CheckName("credential", s.Label); err != nil {
		return s, err
	}
	if s.Scopes == 0 {
		s.Scopes = map[Role]Scopes{Administrator: allScopes, Owner: ScopeRead | ScopeWrite, Program: ScopeRead, Auditor: ScopeRead | ScopeWrite}[s.Role]
	}
	if s.Life == 0 {
		s.Life = personLife
		if s.Role == Program {
			s.Life = tokenLife
		}
	}
	if s.Scopes&^allScopes != 0 || s.Life < 0 || s.Life > maxLife {
		return s, holdfast.Errorf(holdfast.Invalid, "a credential has known scopes and lives at most %d days", maxLife/(24*time.Hour))
	}
	switch {
	case (s.Role == Owner || s.Role == Auditor) && s.Scopes&ScopeMetrics != 0:
		return s, holdfast.Errorf(holdfast.Invalid, "metrics are an administrator's or a program's: this credential can't have that scope")
	case s.Role != Program && len(s.Purposes)+len(s.Grants) > 0:
		return s, holdfast.Errorf(holdfast.Invalid, "only a program's credential names purposes and grants")
	case len(s.Grants) > maxGrants:
		return s, holdfast.Errorf(holdfast.Invalid, "a credential is bound to at most %d grants", maxGrants)
	case s.Role == Program && s.Scopes&ScopeRead != 0 && len(s.Purposes) == 0:
		return s, holdfast.Errorf(holdfast.Invalid, "a program that reads names its purposes")
	}
	for _, p := range s.Purposes {
		if p == holdfast.OwnAccess {
			return s, holdfast.Errorf(holdfast.Invalid, "%s is the owner's alone", holdfast.OwnAccess)
		}
		if err := holdfast.CheckName("purpose", string(p)); err != nil {
			return s, err
		}
	}
	return s, nil
}

// about is the sealed part of a credential.
type about struct {
	Label    string             `json:"label"`
	Purposes []holdfast.Purpose `json:"purposes,omitempty"`
	Grants   []holdfast.GrantID `json:"grants,omitempty"`
	Issuer   string             `json:"issuer,omitempty"`
}

// credential is a row of the catalog, opened.
type credential struct {
	id              holdfast.CredentialID
	kind            Kind
	proof           [32]byte
	party           holdfast.PartyID
	role            Role
	scopes          Scopes
	about           about
	made, notAfter  int64 // ns since 1970
	revoked         int64
	lastDay         int64
	holder, madeBy  holdfast.CredentialID
	since, settled  int64
	box, proofBytes []byte
}

func (c *credential) principal(now time.Time) Principal {
	return Principal{Credential: c.id, Party: c.party, Role: c.role, Purposes: c.about.Purposes, Scopes: c.scopes, NotAfter: time.Unix(0, c.notAfter).UTC(),
		Grants: c.about.Grants, Settled: c.settled <= now.UnixNano(), Issuer: c.about.Issuer, Holder: c.holder}
}

// keeper is whose key seals what a credential says: that of staff is the hub's, any
// other its party's.
func keeper(r Role, p holdfast.PartyID) vault.Owner {
	if r.staff() {
		return vault.Hub
	}
	return vault.OfParty(p)
}

const credentialTable = "access_credential"

const credentialColumns = `id, kind, proof_hash, party, role, scopes, about_sealed, made, not_after, revoked, last_day, holder, since, made_by, settled`

func scanCredential(row interface{ Scan(...any) error }) (*credential, error) {
	c := new(credential)
	err := row.Scan(&c.id, &c.kind, &c.proofBytes, &c.party, &c.role, &c.scopes, &c.box, &c.made, &c.notAfter, &c.revoked, &c.lastDay, &c.holder, &c.since, &c.madeBy, &c.settled)
	if err != nil {
		return nil, err
	}
	if len(c.proofBytes) != len(c.proof) {
		return nil, errors.New("a credential's row is damaged")
	}
	c.proof = [32]byte(c.proofBytes)
	return c, nil
}

// open opens the sealed part; NotFound when the party's key is destroyed.
func (a *Access) open(ctx context.Context, c *credential) error {
	if err := vault.OpenJSON(ctx, a.vault, keeper(c.role, c.party), credentialTable, c.id[:], "about", c.box, &c.about); err != nil {
		return fmt.Errorf("open credential %s: %w", c.id, err)
	}
	return nil
}

// CredentialMade is the ledger's payload of "credential made".
type CredentialMade struct {
	Credential holdfast.CredentialID  `json:"credential"`
	Kind       Kind                   `json:"kind"`
	Role       Role                   `json:"role"`
	By         *holdfast.CredentialID `json:"by,omitempty"` // whose credential asked for it
	Invited    bool                   `json:"invited"`      // by redeeming the invitation of the same id
	Others     int                    `json:"others"`       // live credentials of the same party and role
	Until      time.Time              `json:"until"`
}

// making is a credential about to be written.
type making struct {
	credential
	certificate []byte // DER, of a certificate
	token       Secret // of a token
	by          *holdfast.CredentialID
	invited     bool
	others      int
}

// prepare does everything about a new credential that must happen outside a
// transaction: a key or secret, and the sealed part. Without csr it is a token.
func (a *Access) prepare(ctx context.Context, id holdfast.CredentialID, s Spec, csr []byte) (*making, error) {
	now := a.now()
	m := &making{credential: credential{id: id, kind: Token, party: s.Party, role: s.Role, scopes: s.Scopes,
		about: about{Label: s.Label, Purposes: s.Purposes, Grants: s.Grants}, made: now.UnixNano(), notAfter: now.Add(s.Life).UnixNano(),
		holder: id, since: now.UnixNano()}}
	if csr != nil {
		der, fingerprint, notAfter, err := a.authority.SignCredential(ctx, id, csr, s.Life)
		if err != nil {
			return nil, err
		}
		m.kind, m.certificate, m.proof, m.notAfter = Certificate, der, fingerprint, notAfter.UnixNano()
	} else {
		m.token = newSecret(tokenPrefix, id, a.authority.CAPin())
		m.proof = m.token.hash()
	}
	var err error
	if m.box, err = vault.SealJSON(ctx, a.vault, keeper(s.Role, s.Party), credentialTable, id[:], "about", m.about); err != nil {
		return nil, fmt.Errorf("seal credential %s: %w", id, err)
	}
	return m, nil
}

// insert writes a prepared credential and its entry on the party's record.
func (a *Access) insert(ctx context.Context, tx *sql.Tx, m *making) error {
	err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_credential WHERE party = $1 AND role = $2 AND revoked = 0 AND not_after > $3`,
		m.party, int(m.role), m.made).Scan(&m.others)
	if err != nil {
		return err
	}
	if m.others >= maxLive {
		return holdfast.Errorf(holdfast.TooLarge, "a party has at most %d live credentials of one role: revoke some", maxLive)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO access_credential (`+credentialColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, $10, $11, $12, $13)`,
		m.id, int(m.kind), m.proof[:], m.party, int(m.role), int(m.scopes), m.box, m.made, m.notAfter, m.holder, m.since, m.madeBy, m.settled)
	if err != nil {
		return err
	}
	_, err = a.ledger.Append(ctx, tx, vault.OfParty(m.party), "credential made", CredentialMade{Credential: m.id, Kind: m.kind,
		Role: m.role, By: m.by, Invited: m.invited, Others: m.others, Until: time.Unix(0, m.notAfter).UTC()})
	return err
}

// Made is a new credential, with the one copy of what its holder needs.
type Made struct {
	ID          holdfast.CredentialID
	NotAfter    time.Time
	Token       string // of a token
	Certificate []byte // PEM, of a certificate; the key stayed with who asked
	// Others counts the party's live credentials of the same role, this one apart:
	// whoever redeems an invitation and finds some he does not know has been told.
	Others int
}

func (m *making) handOut() Made {
	out := Made{ID: m.id, NotAfter: time.Unix(0, m.notAfter).UTC(), Others: m.others}
	switch m.kind {
	case Token:
		out.Token = m.token.Text()
	case Certificate:
		out.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.certificate})
	}
	return out
}

// checkGrants refuses to bind a credential to what its party was not granted.
func (a *Access) checkGrants(ctx context.Context, s Spec) error {
	for _, id := range s.Grants {
		recipient, purpose, live, err := a.grantOf(ctx, id)
		switch {
		case err != nil && holdfast.KindOf(err) != holdfast.NotFound:
			return fmt.Errorf("bind credential: %w", err)
		case err != nil || recipient != s.Party || !live:
			return holdfast.Errorf(holdfast.Invalid, "a grant that the credential is to be bound to was not made to its party, or has ended")
		case !slices.Contains(s.Purposes, purpose):
			return holdfast.Errorf(holdfast.Invalid, "a grant that the credential is to be bound to is for a purpose that it does not name")
		}
	}
	return nil
}

// grantsLive reports whether a credential that is bound to grants still has one.
func (a *Access) grantsLive(ctx context.Context, grants []holdfast.GrantID) (bool, error) {
	for _, id := range grants {
		_, _, live, err := a.grantOf(ctx, id)
		if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
			return false, fmt.Errorf("look up grant of a credential: %w", err)
		}
		if err == nil && live {
			return true, nil
		}
	}
	return len(grants) == 0, nil
}

// Add makes a credential at the wish of by: a certificate for the key of csr
// (PKCS #10, DER), or a token if csr is nil. An administrator adds administrators,
// auditors and programs of his own party; an owner adds owners' and programs'
// credentials of himself. No one gives a scope that he does not have.
func (a *Access) Add(ctx context.Context, by Principal, s Spec, csr []byte) (Made, error) {
	return a.add(ctx, by, s, csr, nil)
}

// add is Add; what succeeds another credential has the same holder.
func (a *Access) add(ctx context.Context, by Principal, s Spec, csr []byte, after *credential) (Made, error) {
	s, err := s.checked()
	if err != nil {
		return Made{}, err
	}
	if err := mayAdd(by, s); err != nil {
		return Made{}, err
	}
	if err := a.checkGrants(ctx, s); err != nil {
		return Made{}, err
	}
	m, err := a.prepare(ctx, newID(), s, csr)
	if err != nil {
		return Made{}, fmt.Errorf("add credential: %w", err)
	}
	m.by, m.madeBy, m.settled = &by.Credential, by.Holder, settledBy(by, a.now())
	if after != nil {
		m.holder, m.since, m.madeBy, m.settled = after.holder, after.since, after.madeBy, after.settled
	}
	if err := a.catalog.Write(ctx, func(tx *sql.Tx) error { return a.insert(ctx, tx, m) }); err != nil {
		return Made{}, fmt.Errorf("add credential: %w", err)
	}
	return m.handOut(), nil
}

func mayAdd(by Principal, s Spec) error {
	own := by.Party == s.Party
	switch {
	case !by.Actor.IsZero():
		return by.inPerson()
	case !by.Can(ScopeWrite):
		return errReadOnly()
	case by.Role == Administrator && s.Role == Owner:
		return holdfast.Errorf(holdfast.Denied, "an owner's credential is made by invitation only: use party invite")
	case by.Role == Administrator && !own:
		// A program's would read under the grants that others made to its party.
		return holdfast.Errorf(holdfast.Denied, "another party makes its programs' credentials itself: invite it with party invite")
	case by.Role == Administrator:
	case by.Role == Owner && own && !s.Role.staff():
	default:
		return holdfast.Errorf(holdfast.Denied, "this credential can't add one of that role and party")
	}
	if s.Scopes&^by.Scopes != 0 {
		return holdfast.Errorf(holdfast.Denied, "a credential can't give scopes that it does not have: it has %s", by.Scopes)
	}
	return nil
}

func errReadOnly() error {
	return holdfast.Errorf(holdfast.Denied, "this credential may read only")
}

func newID() holdfast.CredentialID { return holdfast.NewID[holdfast.CredentialID]() }
