// Package identity says which device is at the other end of a connection.
//
// It holds the hub's certificate authority, hands devices their certificates
// (enrolment codes and EST, RFC 7030), judges the certificates that come back,
// and takes them away again: a revocation is in the catalog and the ledger in one
// transaction, is refused from then on, and cuts live connections at once.
//
// It promises that only the key of a request is ever certified, never its names;
// that a certificate without a row in the catalog, or of a device without one, is
// nobody's; that a code makes at most one key a device's; and that the
// authority's private key exists in clear in memory only. Of people and programs
// it knows certificates alone: what they may do is package access's.
//
// It does not say whose a device is (custody), nor whether its readings are
// wanted (grant, ingest). The code, the certificates and the protocol are
// described in docs/format/enrolment.md.
package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// sealer is the vault, as this package needs it. Neither method may be called
// within a catalog transaction.
type sealer interface {
	vault.Fields
}

// recorder is the ledger: Append is called in the caller's write transaction.
type recorder interface {
	Append(ctx context.Context, tx *sql.Tx, o vault.Owner, kind string, payload any) (uint64, error)
}

// Deps is what an Identity stands on.
type Deps struct {
	Catalog *catalog.DB
	Vault   sealer
	Ledger  recorder
}

// Options tunes an Identity; the zero value works.
type Options struct {
	Now func() time.Time // default time.Now
	Log *slog.Logger     // default: nothing is logged
}

// Identity is the hub's authority over device identities. It is safe for
// concurrent use.
type Identity struct {
	catalog *catalog.DB
	vault   sealer
	ledger  recorder
	now     func() time.Time
	log     *slog.Logger

	authority *authority
	hosts     atomic.Pointer[[]string]
	server    serverCertificate
	live      live

	known struct { // verified certificates, by SHA-256 of their bytes
		sync.Mutex
		leaf map[[32]byte]leaf
	}
	requests, failures, failing, issuing *budget.Budget
}

// Create makes the authority, once in a hub's life, and opens it. hosts are the
// names and addresses that server certificates carry; the first one stands in
// enrolment codes. The hub's owner key must exist.
func Create(ctx context.Context, d Deps, hosts []string, o Options) (*Identity, error) {
	if err := checkHosts(hosts); err != nil {
		return nil, err
	}
	i := newIdentity(d, o)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	root, err := selfSign(key, i.now())
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	defer clear(pkcs8)
	keyBox, err := i.vault.SealField(ctx, vault.Hub, authorityTable, authorityRow, "key", pkcs8)
	if err != nil {
		return nil, fmt.Errorf("create authority: seal key: %w", err)
	}
	hostsBox, err := i.sealHosts(ctx, hosts)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	err = i.catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO hub_authority (id, certificate, key_sealed, hosts_sealed) VALUES (1, $1, $2, $3)`,
			root.Raw, keyBox, hostsBox)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	return Open(ctx, d, o)
}

// Open opens the authority that Create made.
func Open(ctx context.Context, d Deps, o Options) (*Identity, error) {
	i := newIdentity(d, o)
	var certificate, keyBox, hostsBox []byte
	err := i.catalog.Read(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `SELECT certificate, key_sealed, hosts_sealed FROM hub_authority WHERE id = 1`).
			Scan(&certificate, &keyBox, &hostsBox)
		if err != nil {
			return err
		}
		return i.live.load(ctx, tx, i.now())
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, holdfast.Errorf(holdfast.NotFound, "this hub has no certificate authority yet: run holdfast init")
	}
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	pkcs8, err := i.vault.OpenField(ctx, vault.Hub, authorityTable, authorityRow, "key", keyBox)
	if err != nil {
		return nil, fmt.Errorf("open authority: open key: %w", err)
	}
	defer clear(pkcs8)
	if i.authority, err = newAuthority(certificate, pkcs8); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	text, err := i.vault.OpenField(ctx, vault.Hub, authorityTable, authorityRow, "hosts", hostsBox)
	if err != nil {
		return nil, fmt.Errorf("open authority: open hosts: %w", err)
	}
	var hosts []string
	if err := json.Unmarshal(text, &hosts); err != nil {
		return nil, fmt.Errorf("open authority: read hosts: %w", err)
	}
	i.hosts.Store(&hosts)
	return i, nil
}

func newIdentity(d Deps, o Options) *Identity {
	i := &Identity{catalog: d.Catalog, vault: d.Vault, ledger: d.Ledger, now: o.Now, log: o.Log}
	if i.now == nil {
		i.now = time.Now
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	i.known.leaf = make(map[[32]byte]leaf)
	// A factory enrols hundreds of devices from one address, so the limits that
	// count failures are tight and the one that counts requests is not.
	i.requests = budget.New(20, time.Second, 200)
	i.failures = budget.New(1, 30*time.Second, 10)
	i.failing = budget.New(1, time.Minute, 10)
	i.issuing = budget.New(1, 10*time.Minute, 10)
	return i
}

// Hosts returns the names and addresses in server certificates.
func (i *Identity) Hosts() []string { return append([]string(nil), *i.hosts.Load()...) }

// SetHosts changes them; the next connection sees a certificate for the new ones.
func (i *Identity) SetHosts(ctx context.Context, hosts []string) error {
	if err := checkHosts(hosts); err != nil {
		return err
	}
	box, err := i.sealHosts(ctx, hosts)
	if err != nil {
		return fmt.Errorf("set hosts: %w", err)
	}
	err = i.catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE hub_authority SET hosts_sealed = $1 WHERE id = 1`, box)
		return err
	})
	if err != nil {
		return fmt.Errorf("set hosts: %w", err)
	}
	hosts = append([]string(nil), hosts...)
	i.hosts.Store(&hosts)
	i.server.forget()
	return nil
}

const authorityTable = "hub_authority"

var authorityRow = []byte{1}

func (i *Identity) sealHosts(ctx context.Context, hosts []string) ([]byte, error) {
	text, err := json.Marshal(hosts)
	if err != nil {
		return nil, err
	}
	box, err := i.vault.SealField(ctx, vault.Hub, authorityTable, authorityRow, "hosts", text)
	if err != nil {
		return nil, fmt.Errorf("seal hosts: %w", err)
	}
	return box, nil
}

// CA returns the authority's certificate. It must not be modified.
func (i *Identity) CA() *x509.Certificate { return i.authority.root }

// CAPEM returns the authority's certificate for a ca.pem.
func (i *Identity) CAPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.authority.root.Raw})
}

// CAPin returns the SHA-256 of the authority's public key (SPKI, DER): what a
// device that knows nothing else trusts.
func (i *Identity) CAPin() [32]byte { return i.authority.pin }

func spkiHash(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }
