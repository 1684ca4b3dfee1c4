// Package outbox sends what a hub has to say to others: webhooks, signed by
// Standard Webhooks (standardwebhooks.com), and mail.
//
// A message is a job: durable before it is tried, sealed under the key of the
// party that it is sent for, and gone with an erasure of that party, or of whose
// readings it tells. What is tried again is asked about first: it is dropped if who
// wanted it said may read no more what it tells of. A job is sent at least once, always with the same id, which a
// receiver keeps to know a repeat by. What fails is tried again, ever later, until
// it was tried 12 times or is a day old; then it is dead, and is kept a week for
// who wants to try it again. Order is not promised.
//
// A target that fails is not hammered: after three failures one job at a time
// finds out whether it is back. A webhook is asked by HTTPS at a public address
// only (address.go), its redirects are not followed and what it answers is not
// kept. Secrets are shown once, when they are made.
//
// It does not decide who may have a webhook, nor what a message says.
package outbox

import (
	"context"
	"crypto/x509"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
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

// Deps is what an Outbox stands on.
type Deps struct {
	Catalog *catalog.DB
	Vault   sealer
	Ledger  recorder
}

// Options tunes an Outbox; the zero value works, without mail.
type Options struct {
	Now   func() time.Time // default time.Now
	Log   *slog.Logger     // default: nothing is logged
	Allow []netip.Prefix   // addresses that are not public and webhooks may have
	Roots *x509.CertPool   // who certifies webhooks' servers; nil: whom the system trusts
	Mail  *Mail            // nil: no mail is sent
	// Still fails, Denied or NotFound, once a rule may say no more of some assignments:
	// package alarm. nil: it always may.
	Still func(ctx context.Context, rule holdfast.AlarmID, about []holdfast.AssignmentID) error
}

// Limits.
const (
	maxWebhooks = 50       // of one party
	maxWaiting  = 2_000    // jobs of one party
	maxBody     = 64 << 10 // of a job
	maxFlights  = 16       // jobs under way at once
	maxAttempts = 12       // of one job
	keepTrying  = 24 * time.Hour
	keepEnded   = 7   // days
	mailsAtOnce = 200 // of one party; then one each five minutes
)

// Outbox keeps webhooks and jobs, and delivers these. It is safe for concurrent use.
type Outbox struct {
	db      *catalog.DB
	vault   sealer
	ledger  recorder
	now     func() time.Time
	log     *slog.Logger
	allow   []netip.Prefix
	http    *http.Client
	mail    *Mail
	still   func(context.Context, holdfast.AlarmID, []holdfast.AssignmentID) error
	draw    func() float64 // for jitter, in [0, 1)
	mails   *budget.Budget
	metrics *metrics

	changing sync.Mutex // held while a webhook changes

	mu       sync.Mutex
	jobs     map[holdfast.DeliveryID]*job // that wait or are under way
	targets  map[target]*health
	inFlight int
	wake     chan struct{}
}

// Open reads which jobs wait.
func Open(ctx context.Context, d Deps, o Options) (*Outbox, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Outbox{
		db: d.Catalog, vault: d.Vault, ledger: d.Ledger, now: o.Now, log: o.Log, allow: o.Allow, mail: o.Mail, still: o.Still, draw: rand.Float64,
		mails: budget.New(1, 5*time.Minute, mailsAtOnce), metrics: newMetrics(),
		jobs: make(map[holdfast.DeliveryID]*job), targets: make(map[target]*health), wake: make(chan struct{}, 1),
	}
	b.http = b.client(o.Roots)
	if err := b.load(ctx); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	return b, nil
}

// HasMail reports whether mail can be sent.
func (b *Outbox) HasMail() bool { return b.mail != nil }

const (
	webhookTable = "outbox_webhook"
	jobTable     = "outbox_job"
)

func (b *Outbox) seal(ctx context.Context, p holdfast.PartyID, table string, row []byte, info any) ([]byte, error) {
	return vault.SealJSON(ctx, b.vault, vault.OfParty(p), table, row, "info", info)
}

func (b *Outbox) open(ctx context.Context, p holdfast.PartyID, table string, row, box []byte, info any) error {
	return vault.OpenJSON(ctx, b.vault, vault.OfParty(p), table, row, "info", box, info)
}
