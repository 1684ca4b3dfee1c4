package outbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// State says what is to become of a webhook or a job.
type State string

// The states of webhooks and of jobs.
const (
	Active    State = "active"
	Disabled  State = "disabled" // the webhook said that it is gone for good
	Waiting   State = "waiting"
	Delivered State = "delivered"
	Dead      State = "dead" // given up
)

// Webhook is an address that is told what happens. It has no secret to show.
type Webhook struct {
	ID      holdfast.WebhookID
	Party   holdfast.PartyID
	Name    string
	Address string
	State   State
	Made    time.Time
	Rotates time.Time // until when the secret before the last rotation signs, too; zero: there is none
	Failing Failing
}

// Failing says since when a target has taken nothing; zero: it is well, or nothing
// was sent since the hub started.
type Failing struct {
	Times int
	Since time.Time
	Last  string // why, without anything that the target sent
	Next  time.Time
}

type webhookInfo struct {
	Name    string                `json:"name"`
	Address string                `json:"address"`
	Secret  []byte                `json:"secret"`
	Before  []byte                `json:"before,omitempty"` // the secret before
	Until   int64                 `json:"until,omitempty"`  // how long Before signs
	Made    int64                 `json:"made"`
	By      holdfast.CredentialID `json:"by"`
}

// secretPrefix begins a secret as its receiver keeps it.
const secretPrefix = "whsec_"

// overlap is how long both secrets sign after a rotation.
const overlap = 24 * time.Hour

func newSecret() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}

func shown(secret []byte) string { return secretPrefix + base64.StdEncoding.EncodeToString(secret) }

type webhookEvent struct {
	Webhook holdfast.WebhookID    `json:"webhook"`
	By      holdfast.CredentialID `json:"by"`
}

// Add makes a webhook of a party and returns its secret, which is never shown again.
func (b *Outbox) Add(ctx context.Context, p holdfast.PartyID, by holdfast.CredentialID, name, address string) (Webhook, string, error) {
	if err := holdfast.CheckName("webhook", name); err != nil {
		return Webhook{}, "", err
	}
	if err := b.checkAddress(address); err != nil {
		return Webhook{}, "", err
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	have, err := b.Webhooks(ctx, p)
	if err != nil {
		return Webhook{}, "", err
	}
	switch {
	case len(have) >= maxWebhooks:
		return Webhook{}, "", holdfast.Errorf(holdfast.TooLarge, "a party has at most %d webhooks: end some", maxWebhooks)
	case slices.ContainsFunc(have, func(w Webhook) bool { return w.Name == name }):
		return Webhook{}, "", holdfast.Errorf(holdfast.Conflict, "there is a webhook of this name already")
	}
	id := holdfast.NewID[holdfast.WebhookID]()
	i := webhookInfo{Name: name, Address: address, Secret: newSecret(), Made: b.now().UnixNano(), By: by}
	box, err := b.seal(ctx, p, webhookTable, id[:], i)
	if err != nil {
		return Webhook{}, "", err
	}
	err = b.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO outbox_webhook (id, party, state, info_sealed) VALUES ($1, $2, 'active', $3)`, id, p, box); err != nil {
			return err
		}
		_, err := b.ledger.Append(ctx, tx, vault.OfParty(p), "webhook added", webhookEvent{id, by})
		return err
	})
	return Webhook{ID: id, Party: p, Name: name, Address: address, State: Active, Made: holdfast.Instant(i.Made)}, shown(i.Secret), err
}

// webhook is a row, opened.
type webhook struct {
	id    holdfast.WebhookID
	party holdfast.PartyID
	state State
	box   []byte
	webhookInfo
}

func (b *Outbox) readWebhooks(ctx context.Context, where string, args ...any) ([]webhook, error) {
	rows, err := catalog.Rows(ctx, b.db, func(q *sql.Rows) (w webhook, err error) {
		return w, q.Scan(&w.id, &w.party, &w.state, &w.box)
	}, `SELECT id, party, state, info_sealed FROM outbox_webhook WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	var all []webhook
	for _, w := range rows {
		switch err := b.open(ctx, w.party, webhookTable, w.id[:], w.box, &w.webhookInfo); {
		case vault.Gone(err):
		case err != nil:
			return nil, err
		default:
			all = append(all, w)
		}
	}
	slices.SortFunc(all, func(x, y webhook) int { return cmp.Or(cmp.Compare(x.Name, y.Name), slices.Compare(x.id[:], y.id[:])) })
	return all, nil
}

func (b *Outbox) public(w webhook) Webhook {
	out := Webhook{ID: w.id, Party: w.party, Name: w.Name, Address: w.Address, State: w.state, Made: holdfast.Instant(w.Made)}
	if until := holdfast.Instant(w.Until); until.After(b.now()) {
		out.Rotates = until
	}
	out.Failing = b.failing(target{party: w.party, webhook: w.id})
	return out
}

// Webhooks returns those of a party, by name.
func (b *Outbox) Webhooks(ctx context.Context, p holdfast.PartyID) ([]Webhook, error) {
	rows, err := b.readWebhooks(ctx, `party = $1`, p)
	all := make([]Webhook, 0, len(rows))
	for _, w := range rows {
		all = append(all, b.public(w))
	}
	return all, err
}

func noWebhook() error { return holdfast.Errorf(holdfast.NotFound, "there is no such webhook") }

// Webhook returns a party's webhook by its name or id.
func (b *Outbox) Webhook(ctx context.Context, p holdfast.PartyID, text string) (Webhook, error) {
	w, err := b.webhook(ctx, p, text)
	return b.public(w), err
}

func (b *Outbox) webhook(ctx context.Context, p holdfast.PartyID, text string) (webhook, error) {
	all, err := b.readWebhooks(ctx, `party = $1`, p)
	if err != nil {
		return webhook{}, err
	}
	for _, w := range all {
		if w.Name == text || w.id.String() == text {
			return w, nil
		}
	}
	return webhook{}, noWebhook()
}

// Rotate gives a webhook a new secret and returns it. The one before signs beside
// it for a day, so that its receiver can change over without a gap.
func (b *Outbox) Rotate(ctx context.Context, p holdfast.PartyID, by holdfast.CredentialID, text string) (Webhook, string, error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	w, err := b.webhook(ctx, p, text)
	if err != nil {
		return Webhook{}, "", err
	}
	w.Before, w.Until, w.Secret = w.Secret, b.now().Add(overlap).UnixNano(), newSecret()
	if err := b.change(ctx, w, "webhook rotated", by); err != nil {
		return Webhook{}, "", err
	}
	return b.public(w), shown(w.Secret), nil
}

// change writes a webhook as it is now. The caller has b.changing.
func (b *Outbox) change(ctx context.Context, w webhook, event string, by holdfast.CredentialID) error {
	box, err := b.seal(ctx, w.party, webhookTable, w.id[:], w.webhookInfo)
	if err != nil {
		return err
	}
	return b.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE outbox_webhook SET state = $1, info_sealed = $2 WHERE id = $3`, string(w.state), box, w.id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, noWebhook())
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.WebhookChange, ID: ledger.TakenID(w.id), State: string(w.state), Box: box}); err != nil {
			return err
		}
		_, err = b.ledger.Append(ctx, tx, vault.OfParty(w.party), event, webhookEvent{w.id, by})
		return err
	})
}

// End ends a webhook and what waits for it.
func (b *Outbox) End(ctx context.Context, p holdfast.PartyID, by holdfast.CredentialID, text string) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	w, err := b.webhook(ctx, p, text)
	if err != nil {
		return err
	}
	err = b.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM outbox_job WHERE webhook = $1`, w.id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM outbox_webhook WHERE id = $1`, w.id); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.WebhookChange, ID: ledger.TakenID(w.id), State: webhookEnded}); err != nil {
			return err
		}
		_, err := b.ledger.Append(ctx, tx, vault.OfParty(p), "webhook ended", webhookEvent{w.id, by})
		return err
	})
	if err == nil {
		b.forget(func(j *job) bool { return j.webhook == w.id })
	}
	return err
}

// setState disables a webhook, or has it be active again.
func (b *Outbox) setState(ctx context.Context, id holdfast.WebhookID, s State) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	all, err := b.readWebhooks(ctx, `id = $1`, id)
	if err != nil || len(all) == 0 || all[0].state == s {
		return err
	}
	all[0].state = s
	event := "webhook disabled"
	if s == Active {
		event = "webhook active"
	}
	return b.change(ctx, all[0], event, holdfast.CredentialID{})
}
