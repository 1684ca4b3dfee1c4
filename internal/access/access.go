// Package access says which person or program makes a request, and what role it
// acts in.
//
// A credential is a client certificate of the hub's own authority, a bearer token,
// or a link to somebody whom an issuer vouches for each time. It belongs to one party, has one role, expires, and can be revoked with
// effect on the next request and on every open stream that asks Live.
//
// It promises that secrets are kept as hashes only; that an owner's credential
// comes from an invitation or from the owner, never from an administrator's word
// alone; and that every invitation, first or later, redeemed or not, is on the
// owner's record. It holds nobody back from inviting: an administrator who
// redeems an invitation himself acts as the owner from then on, but can't do so
// without leaving "invitation made" and "credential made" on that record.
//
// It decides nothing about data (policy does) and keeps no sessions.
package access

import (
	"context"
	"crypto/tls"
	"database/sql"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/issuer"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// sealer is the vault, as this package needs it. Neither method may be called
// within a catalog transaction.
type sealer interface {
	vault.Fields
	Hash(ctx context.Context, domain, text string) ([]byte, error)
}

// recorder is the ledger: Append is called in the caller's write transaction.
type recorder interface {
	Append(ctx context.Context, tx *sql.Tx, o vault.Owner, kind string, payload any) (uint64, error)
}

// authority is package identity: it certifies the key of a PKCS #10 request (DER)
// for a credential, and says which credential a connection's certificate names
// (signed by the authority, within its time; Denied otherwise). The fingerprint
// is the same in both.
type authority interface {
	SignCredential(ctx context.Context, id holdfast.CredentialID, csr []byte, life time.Duration) (der []byte, fingerprint [32]byte, notAfter time.Time, err error)
	Credential(ctx context.Context, cs tls.ConnectionState) (holdfast.CredentialID, [32]byte, error)
	CAPEM() []byte
	CAPin() [32]byte
}

// Deps is what an Access stands on.
type Deps struct {
	Catalog   *catalog.DB
	Vault     sealer
	Ledger    recorder
	Authority authority

	Issuers *issuer.Issuers // whose tokens are believed; nil: nobody's
	// AddParty adds the party of somebody whom an issuer vouches for: package custody.
	AddParty func(ctx context.Context, by holdfast.CredentialID, name string) (holdfast.PartyID, error)
	// Operating is the operating organisation: package custody.
	Operating func(ctx context.Context) (holdfast.PartyID, error)

	// Grant says to whom and for what a grant was made, and whether it is live: package
	// grant. Without it no credential is bound to one.
	Grant func(ctx context.Context, id holdfast.GrantID) (recipient holdfast.PartyID, purpose holdfast.Purpose, live bool, err error)
}

// Options tunes an Access; the zero value works.
type Options struct {
	Now func() time.Time // default time.Now
	Log *slog.Logger     // default: nothing is logged
}

// Access keeps the credentials of people and programs. It is safe for concurrent
// use.
type Access struct {
	catalog   *catalog.DB
	vault     sealer
	ledger    recorder
	authority authority
	grantOf   func(context.Context, holdfast.GrantID) (holdfast.PartyID, holdfast.Purpose, bool, error)
	now       func() time.Time
	log       *slog.Logger
	issuers   *issuer.Issuers
	addParty  func(ctx context.Context, by holdfast.CredentialID, name string) (holdfast.PartyID, error)
	operating func(context.Context) (holdfast.PartyID, error)
	failures  *budget.Budget // by address
	guesses   *budget.Budget // by credential
	newcomers *budget.Budget // parties made of whom an issuer vouches for
	metrics   *metrics

	making sync.Mutex // held while an unknown subject gets a link
	codes  sync.Mutex // held while a code is looked at: guesses come one after the other

	mu      sync.Mutex
	turn    uint64 // counts what invalidates known
	known   map[holdfast.CredentialID]*credential
	tracks  map[holdfast.CredentialID]map[*tracked]struct{}
	refused map[holdfast.CredentialID]struct{}  // revoked or erased, until the process ends or they expire
	used    map[holdfast.CredentialID]int64     // day of last use, not yet in the catalog
	permits map[holdfast.PartyID][]permit       // approved permissions, by whose data
	shown   map[holdfast.CredentialID]time.Time // until when a second factor counts that was shown with a credential
	links   map[[32]byte]holdfast.CredentialID  // by the hash of issuer and subject
	leaving map[holdfast.PartyID]struct{}       // whose erasure waits: Suspend
}

// Open reads which credentials are revoked.
func Open(ctx context.Context, d Deps, o Options) (*Access, error) {
	a := &Access{
		catalog: d.Catalog, vault: d.Vault, ledger: d.Ledger, authority: d.Authority, grantOf: d.Grant, now: o.Now, log: o.Log,
		issuers: d.Issuers, addParty: d.AddParty, operating: d.Operating, metrics: newMetrics(),
		failures: budget.New(1, 3*time.Second, 20), guesses: budget.New(1, time.Minute, 10), newcomers: budget.New(1, time.Second, 200),
		permits: make(map[holdfast.PartyID][]permit),
		shown:   make(map[holdfast.CredentialID]time.Time),
		links:   make(map[[32]byte]holdfast.CredentialID),
		known:   make(map[holdfast.CredentialID]*credential),
		tracks:  make(map[holdfast.CredentialID]map[*tracked]struct{}),
		refused: make(map[holdfast.CredentialID]struct{}),
		used:    make(map[holdfast.CredentialID]int64),
		leaving: make(map[holdfast.PartyID]struct{}),
	}
	if a.grantOf == nil {
		a.grantOf = func(context.Context, holdfast.GrantID) (p holdfast.PartyID, u holdfast.Purpose, _ bool, err error) {
			return p, u, false, holdfast.Errorf(holdfast.NotFound, "there are no grants")
		}
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	err := a.catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id FROM access_credential WHERE revoked <> 0 AND not_after > $1`, a.now().UnixNano())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id holdfast.CredentialID
			if err := rows.Scan(&id); err != nil {
				return err
			}
			a.refused[id] = struct{}{}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("open access: %w", err)
	}
	return a, nil
}
