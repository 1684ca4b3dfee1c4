package custody

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// A claim code is 80 random bits in groups of four letters: guessing one of a
// million open codes at ten attempts an hour takes longer than the universe has.
const codeBytes = 10

var codeText = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding) // without l, o, 0, 1

// Wrong codes that a party may try, and in what time.
const (
	claimAttempts = 10
	claimWindow   = time.Hour
)

// attempts counts wrong claim codes by party. It lives in memory: its bound is
// the number of parties, and a restart is no way around 80 bits.
type attempts struct {
	mu   sync.Mutex
	made map[holdfast.PartyID]attempt
}

type attempt struct {
	wrong int
	since time.Time
}

// blocked reports until when a party may not try, zero if it may.
func (a *attempts) blocked(p holdfast.PartyID, now time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.made[p]
	if until := t.since.Add(claimWindow); t.wrong >= claimAttempts && now.Before(until) {
		return until
	}
	return time.Time{}
}

func (a *attempts) failed(p holdfast.PartyID, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.made[p]
	if now.Sub(t.since) >= claimWindow {
		t = attempt{since: now}
	}
	t.wrong++
	a.made[p] = t
}

// What a code is for stands in its hash: none does another's work.
const (
	claimCode    = "claim code"
	transferCode = "transfer code"
)

// newCode makes a claim code and the hash that is stored of it.
func (c *Custody) newCode(ctx context.Context) (string, []byte, error) {
	return c.newCodeFor(ctx, claimCode)
}

func (c *Custody) newCodeFor(ctx context.Context, what string) (string, []byte, error) {
	var b [codeBytes]byte
	rand.Read(b[:])
	text := codeText.EncodeToString(b[:])
	code := strings.Join([]string{text[:4], text[4:8], text[8:12], text[12:]}, "-")
	hash, err := c.hashCode(ctx, what, code)
	return code, hash, err
}

// hashCode reads a code as people type it: case and separators don't count.
func (c *Custody) hashCode(ctx context.Context, what, code string) ([]byte, error) {
	plain := strings.ToLower(strings.NewReplacer("-", "", " ", "").Replace(code))
	return c.keys.Hash(ctx, what, plain)
}

// NewClaimCode replaces the claim code of an unclaimed device, whose old one no
// longer works.
func (c *Custody) NewClaimCode(ctx context.Context, by holdfast.CredentialID, device holdfast.DeviceID) (string, error) {
	d, err := c.Device(ctx, device)
	if err != nil {
		return "", err
	}
	code, hash, err := c.newCode(ctx)
	if err != nil {
		return "", err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		// It has none if the catalog was put back to before its code was used.
		if err := one(ctx, tx, holdfast.Errorf(holdfast.Conflict, "device %s is not unclaimed", device),
			`INSERT INTO claim_code (device, code_hash) SELECT id, $1 FROM device WHERE id = $2 AND state = $3
			ON CONFLICT (device) DO UPDATE SET code_hash = excluded.code_hash`, hash, device, Unclaimed); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.ClaimCodeEnded, ID: ledger.TakenID(device)}); err != nil {
			return err
		}
		_, err := c.ledger.Append(ctx, tx, vault.Hub, "claim code made", deviceEvent{device, d.Assignment, by})
		return err
	})
	if err != nil {
		return "", err
	}
	return code, nil
}

// Claim makes a party the owner of the unclaimed device whose code it shows. The
// code works once. If the party has a device of the same label, the new one's
// gets a number behind it. The device's key, certificate and id stay.
func (c *Custody) Claim(ctx context.Context, by holdfast.CredentialID, party holdfast.PartyID, code string) (Device, error) {
	if until := c.attempts.blocked(party, c.now()); !until.IsZero() {
		return Device{}, holdfast.Errorf(holdfast.Denied, "too many wrong claim codes: try again after %s", until.UTC().Format(time.RFC3339))
	}
	if err := c.livingParty(ctx, party); err != nil {
		return Device{}, err
	}
	hash, err := c.hashCode(ctx, claimCode, code)
	if err != nil {
		return Device{}, err
	}
	var id holdfast.DeviceID
	err = c.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT device FROM claim_code WHERE code_hash = $1`, hash).Scan(&id)
	})
	if errors.Is(err, sql.ErrNoRows) {
		c.attempts.failed(party, c.now())
		return Device{}, holdfast.Errorf(holdfast.Denied, "this claim code is wrong or was used")
	}
	if err != nil {
		return Device{}, err
	}
	d, err := c.Device(ctx, id)
	if err != nil {
		return Device{}, err
	}
	if d.State != Unclaimed {
		return Device{}, holdfast.Errorf(holdfast.Denied, "this claim code is wrong or was used")
	}
	return c.claim(ctx, by, party, d, hash)
}

func (c *Custody) claim(ctx context.Context, by holdfast.CredentialID, party holdfast.PartyID, d Device, codeHash []byte) (Device, error) {
	d.Owner, d.State = party, Active
	labelHash, err := c.freeLabel(ctx, party, &d)
	if err != nil {
		return Device{}, err
	}
	o := vault.OfAssignment(d.Assignment)
	deviceBox, err := c.seal(ctx, o, "device", d.ID[:], d.info())
	if err != nil {
		return Device{}, err
	}
	assignBox, err := c.seal(ctx, o, "assignment", d.Assignment[:], assignmentInfo{From: c.now().UnixNano()})
	if err != nil {
		return Device{}, err
	}
	used := holdfast.Errorf(holdfast.Denied, "this claim code is wrong or was used")
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := stillLiving(ctx, tx, party); err != nil {
			return err
		}
		if err := one(ctx, tx, used, `DELETE FROM claim_code WHERE device = $1 AND code_hash = $2`, d.ID, codeHash); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.ClaimCodeEnded, ID: ledger.TakenID(d.ID)}); err != nil {
			return err
		}
		if err := one(ctx, tx, used, `UPDATE device SET owner = $1, state = $2, label_hash = $3, info_sealed = $4 WHERE id = $5 AND state = $6`,
			party, Active, labelHash, deviceBox, d.ID, Unclaimed); err != nil {
			return err
		}
		if err := one(ctx, tx, used, `UPDATE assignment SET owner = $1, state = $2, info_sealed = $3 WHERE id = $4 AND state = $5`,
			party, Active, assignBox, d.Assignment, Unclaimed); err != nil {
			return err
		}
		_, err := c.ledger.Append(ctx, tx, vault.OfParty(party), "device claimed", deviceEvent{d.ID, d.Assignment, by})
		return err
	})
	if err != nil {
		return Device{}, err
	}
	c.Forget(d.Assignment)
	return d, nil
}

// freeLabel puts a number behind d's label until the owner has none of that name;
// for the zero party, until no unclaimed device has it.
func (c *Custody) freeLabel(ctx context.Context, owner holdfast.PartyID, d *Device) ([]byte, error) {
	base := d.Label
	where, args := `owner = $2 AND state = 'active'`, []any{owner}
	if owner.IsZero() {
		where, args = `state = 'unclaimed'`, nil
	}
	for n := 2; ; n++ {
		hash, err := c.labelHash(ctx, d.Label)
		if err != nil {
			return nil, err
		}
		var used bool
		err = c.db.Read(ctx, func(tx *sql.Tx) error {
			used, err = exists(ctx, tx, `SELECT count(*) FROM device WHERE label_hash = $1 AND `+where, append([]any{hash}, args...)...)
			return err
		})
		if err != nil || !used {
			return hash, err
		}
		d.Label = numbered(base, n)
	}
}

// numbered is a label with a number behind it.
func numbered(label string, n int) string {
	for len(label) > holdfast.MaxNameBytes-len(" 1000000") { // room for the number, no rune cut in two
		_, size := utf8.DecodeLastRuneInString(label)
		label = strings.TrimSpace(label[:len(label)-size])
	}
	return fmt.Sprintf("%s %d", label, n)
}
