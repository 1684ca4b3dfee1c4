package custody

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// States of a transfer.
const (
	OnOffer  = "offered"
	Taken    = "taken"   // the unit is the buyer's; the seller's wish is still to be carried out
	Settled  = "settled" // nothing is left to do
	Declined = "declined"
)

// Fate is what becomes of the seller's readings when the unit is taken.
type Fate string

// The fates. Whatever the seller chose he may erase and export as ever.
const (
	Keep   Fate = "keep"   // they stay
	Export Fate = "export" // they stay for FateDays, to be exported, then they are erased
	Erase  Fate = "erase"  // they are erased when the unit is taken
)

// FateDays is how long a seller has to export what is to be erased.
const FateDays = 30

// Bounds of an offer.
const (
	offerDays    = 7
	maxOfferDays = 60
)

// Transfer is the way of a unit from its owner to the next: offered by the one's
// own credential, taken by the other's.
type Transfer struct {
	ID       holdfast.TransferID
	Device   holdfast.DeviceID // the seller's
	Seller   holdfast.PartyID
	Buyer    holdfast.PartyID  // zero: whoever shows the code
	Next     holdfast.DeviceID // the buyer's, once taken
	State    string
	Fate     Fate
	Children bool // those of a gateway that are the seller's go along
	Profile  string
	Offered  time.Time
	Until    time.Time
	Ended    time.Time // taken, withdrawn, declined or expired
}

type transferInfo struct {
	Fate     Fate   `json:"fate"`
	Children bool   `json:"children,omitempty"`
	Profile  string `json:"profile,omitempty"`
	Offered  int64  `json:"offered"`
	Until    int64  `json:"until"`
	Ended    int64  `json:"ended,omitempty"`
}

func (t Transfer) info() transferInfo {
	i := transferInfo{Fate: t.Fate, Children: t.Children, Profile: t.Profile, Offered: t.Offered.UnixNano(), Until: t.Until.UnixNano()}
	if !t.Ended.IsZero() {
		i.Ended = t.Ended.UnixNano()
	}
	return i
}

// transferEvent is what the ledger records on the records of both.
type transferEvent struct {
	Transfer holdfast.TransferID   `json:"transfer"`
	Device   holdfast.DeviceID     `json:"device"`
	Next     holdfast.DeviceID     `json:"next,omitzero"`
	Seller   holdfast.PartyID      `json:"seller"`
	Buyer    holdfast.PartyID      `json:"buyer,omitzero"`
	Fate     Fate                  `json:"fate,omitempty"`
	By       holdfast.CredentialID `json:"by,omitzero"`
}

func (t Transfer) event(by holdfast.CredentialID) transferEvent {
	return transferEvent{Transfer: t.ID, Device: t.Device, Next: t.Next, Seller: t.Seller, Buyer: t.Buyer, By: by}
}

// TransferSpec says what to offer.
type TransferSpec struct {
	Device   holdfast.DeviceID
	Seller   holdfast.PartyID
	Buyer    holdfast.PartyID // zero: whoever shows the code
	Fate     Fate             // "": Keep
	Children bool
	Days     int // 0: 7
}

// OfferTransfer offers a device to a party, or to whoever shows the code that it
// returns, which is shown now or never.
func (c *Custody) OfferTransfer(ctx context.Context, by holdfast.CredentialID, s TransferSpec) (t Transfer, code string, err error) {
	d, err := c.mayPart(ctx, s.Seller, s.Device)
	if err != nil {
		return Transfer{}, "", err
	}
	if err := c.checkOffer(ctx, d, &s); err != nil {
		return Transfer{}, "", err
	}
	now := c.now().UTC()
	t = Transfer{ID: holdfast.NewID[holdfast.TransferID](), Device: d.ID, Seller: s.Seller, Buyer: s.Buyer, State: OnOffer, Fate: s.Fate,
		Children: s.Children, Profile: d.Profile, Offered: now, Until: now.AddDate(0, 0, s.Days)}
	var hash []byte
	if t.Buyer.IsZero() {
		if code, hash, err = c.newCodeFor(ctx, transferCode); err != nil {
			return Transfer{}, "", err
		}
	}
	box, err := c.seal(ctx, vault.OfParty(t.Seller), "transfer", t.ID[:], t.info())
	if err != nil {
		return Transfer{}, "", err
	}
	if err := c.expireTransfers(ctx); err != nil {
		return Transfer{}, "", err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := stillLiving(ctx, tx, t.Seller, t.Buyer); err != nil {
			return err
		}
		if err := stillOwned(ctx, tx, d); err != nil {
			return err
		}
		offered, err := exists(ctx, tx, `SELECT count(*) FROM transfer WHERE device = $1 AND state = 'offered'`, d.ID)
		if err != nil || offered {
			return orElse(err, holdfast.Errorf(holdfast.Conflict, "device %s is on offer already: withdraw that offer first", d.ID))
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO transfer (id, device, seller, buyer, code_hash, state, info_sealed) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			t.ID, t.Device, t.Seller, t.Buyer, hash, OnOffer, box); err != nil {
			return err
		}
		return c.recordTransfer(ctx, tx, "transfer offered", t, by)
	})
	if err != nil {
		return Transfer{}, "", err
	}
	return t, code, nil
}

func (c *Custody) checkOffer(ctx context.Context, d Device, s *TransferSpec) error {
	if s.Days == 0 {
		s.Days = offerDays
	}
	if s.Fate == "" {
		s.Fate = Keep
	}
	switch {
	case s.Days < 0 || s.Days > maxOfferDays:
		return holdfast.Errorf(holdfast.Invalid, "an offer stands 1 to %d days", maxOfferDays)
	case s.Buyer == s.Seller:
		return holdfast.Errorf(holdfast.Invalid, "the device is yours already: offer it to another")
	case s.Fate != Keep && s.Fate != Export && s.Fate != Erase:
		return holdfast.Errorf(holdfast.Invalid, "your readings are to keep, export or erase")
	case s.Fate != Keep && !d.Subject.IsZero():
		return holdfast.Errorf(holdfast.Invalid, "the device's readings are about somebody else: they are his to erase; offer it with keep")
	case s.Buyer.IsZero():
		return nil
	}
	return c.livingParty(ctx, s.Buyer)
}

// mayPart returns a device that its owner may give away.
func (c *Custody) mayPart(ctx context.Context, owner holdfast.PartyID, id holdfast.DeviceID) (Device, error) {
	d, err := c.Device(ctx, id)
	switch {
	case err != nil:
		return Device{}, err
	case owner.IsZero() || d.Owner != owner:
		return Device{}, holdfast.Errorf(holdfast.NotFound, "there is no such device")
	case d.State != Active:
		return Device{}, holdfast.Errorf(holdfast.Conflict, "device %s is %s", id, d.State)
	}
	return d, nil
}

func stillOwned(ctx context.Context, tx *sql.Tx, d Device) error {
	owned, err := exists(ctx, tx, `SELECT count(*) FROM device WHERE id = $1 AND owner = $2 AND state = 'active'`, d.ID, d.Owner)
	if err == nil && !owned {
		err = holdfast.Errorf(holdfast.Conflict, "device %s has just changed: ask again", d.ID)
	}
	return err
}

func (c *Custody) recordTransfer(ctx context.Context, tx *sql.Tx, kind string, t Transfer, by holdfast.CredentialID) error {
	for _, p := range []holdfast.PartyID{t.Seller, t.Buyer} {
		if p.IsZero() {
			continue
		}
		e := t.event(by)
		if p == t.Seller {
			e.Fate = t.Fate // his own matter
		}
		if _, err := c.ledger.Append(ctx, tx, vault.OfParty(p), kind, e); err != nil {
			return err
		}
	}
	return nil
}

// OfferByCode returns the open offer of a code. Wrong ones are counted by party, as
// those of claims.
func (c *Custody) OfferByCode(ctx context.Context, party holdfast.PartyID, code string) (Transfer, error) {
	if until := c.attempts.blocked(party, c.now()); !until.IsZero() {
		return Transfer{}, holdfast.Errorf(holdfast.Denied, "too many wrong codes: try again after %s", until.UTC().Format(time.RFC3339))
	}
	hash, err := c.hashCode(ctx, transferCode, code)
	if err != nil {
		return Transfer{}, err
	}
	all, err := c.transfers(ctx, `code_hash = $1`, hash)
	if err != nil {
		return Transfer{}, err
	}
	// One that this party took is told so: the answer may have been lost.
	if len(all) == 0 || all[0].State != OnOffer && all[0].Buyer != party || all[0].State == OnOffer && !c.now().Before(all[0].Until) {
		c.attempts.failed(party, c.now())
		return Transfer{}, holdfast.Errorf(holdfast.Denied, "this transfer code is wrong, was used, or has expired")
	}
	return all[0], nil
}

// TransferOf returns a transfer to its seller and its buyer; to others there is
// none.
func (c *Custody) TransferOf(ctx context.Context, party holdfast.PartyID, id holdfast.TransferID) (Transfer, error) {
	all, err := c.transfers(ctx, `id = $1`, id)
	if err != nil {
		return Transfer{}, err
	}
	if len(all) == 0 || party.IsZero() || all[0].Seller != party && all[0].Buyer != party {
		return Transfer{}, holdfast.Errorf(holdfast.NotFound, "there is no such transfer")
	}
	return all[0], nil
}

// Transfers returns those of which a party is the seller or the buyer, latest first.
func (c *Custody) Transfers(ctx context.Context, party holdfast.PartyID) ([]Transfer, error) {
	return c.transfers(ctx, `seller = $1 OR buyer = $1`, party)
}

// EndTransfer withdraws an offer, if the seller asks, or declines it, if the named
// buyer does.
func (c *Custody) EndTransfer(ctx context.Context, by holdfast.CredentialID, party holdfast.PartyID, id holdfast.TransferID) (Transfer, error) {
	t, err := c.TransferOf(ctx, party, id)
	if err != nil {
		return Transfer{}, err
	}
	if t.State != OnOffer {
		return Transfer{}, holdfast.Errorf(holdfast.Conflict, "transfer %s is %s", id, t.State)
	}
	state := Withdrawn
	if party == t.Buyer {
		state = Declined
	}
	return c.endOffer(ctx, by, t, state)
}

func (c *Custody) endOffer(ctx context.Context, by holdfast.CredentialID, t Transfer, state string) (Transfer, error) {
	t.State, t.Ended = state, c.now().UTC()
	return t, c.changeTransfer(ctx, t, OnOffer, func(tx *sql.Tx) error { return c.recordTransfer(ctx, tx, "transfer "+state, t, by) })
}

// SettleTransfer notes that what the seller wished was done.
func (c *Custody) SettleTransfer(ctx context.Context, t Transfer) error {
	t.State = Settled
	return c.changeTransfer(ctx, t, Taken, func(*sql.Tx) error { return nil })
}

func (c *Custody) changeTransfer(ctx context.Context, t Transfer, was string, also func(*sql.Tx) error) error {
	box, err := c.seal(ctx, vault.OfParty(t.Seller), "transfer", t.ID[:], t.info())
	if err != nil {
		return err
	}
	return c.write(ctx, func(tx *sql.Tx) error {
		if err := t.update(ctx, tx, was, box); err != nil {
			return err
		}
		return also(tx)
	})
}

func (t Transfer) update(ctx context.Context, tx *sql.Tx, was string, box []byte) error {
	if err := one(ctx, tx, holdfast.Errorf(holdfast.Conflict, "transfer %s has just changed: ask again", t.ID),
		`UPDATE transfer SET state = $1, buyer = $2, next_device = $3, info_sealed = $4 WHERE id = $5 AND state = $6`,
		t.State, t.Buyer, t.Next, box, t.ID, was); err != nil {
		return err
	}
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.TransferChange, ID: ledger.TakenID(t.ID), State: t.State, Box: box})
}

// expireTransfers ends the offers whose time is over.
func (c *Custody) expireTransfers(ctx context.Context) error {
	all, err := c.transfers(ctx, `state = 'offered'`)
	if err != nil {
		return err
	}
	for _, t := range all {
		if c.now().Before(t.Until) {
			continue
		}
		if _, err := c.endOffer(ctx, holdfast.CredentialID{}, t, Expired); err != nil && holdfast.KindOf(err) != holdfast.Conflict {
			return err
		}
	}
	return nil
}

// DueTransfers ends the offers whose time is over, and returns those that were
// taken and whose seller's wish is to be carried out now.
func (c *Custody) DueTransfers(ctx context.Context) ([]Transfer, error) {
	if err := c.expireTransfers(ctx); err != nil {
		return nil, err
	}
	all, err := c.transfers(ctx, `state = 'taken'`)
	return slices.DeleteFunc(all, func(t Transfer) bool {
		return t.Fate == Export && c.now().Before(t.Ended.AddDate(0, 0, FateDays))
	}), err
}

func (c *Custody) transfers(ctx context.Context, where string, args ...any) ([]Transfer, error) {
	type row struct {
		Transfer
		box []byte
	}
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (r row, err error) {
		return r, q.Scan(&r.ID, &r.Device, &r.Seller, &r.Buyer, &r.Next, &r.State, &r.box)
	}, `SELECT id, device, seller, buyer, next_device, state, info_sealed FROM transfer WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	out := make([]Transfer, 0, len(rows))
	for _, r := range rows {
		t := r.Transfer
		var info transferInfo
		switch err := c.open(ctx, vault.OfParty(t.Seller), "transfer", t.ID[:], r.box, &info); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		t.Fate, t.Children, t.Profile = info.Fate, info.Children, info.Profile
		t.Offered, t.Until, t.Ended = holdfast.Instant(info.Offered), holdfast.Instant(info.Until), holdfast.Instant(info.Ended)
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Transfer) int { return cmp.Or(b.Offered.Compare(a.Offered), bytes.Compare(a.ID[:], b.ID[:])) })
	return out, nil
}

// Within is what else belongs into the transaction in which a unit changes hands:
// what other keepers know of the old device and of the new one.
type Within func(ctx context.Context, tx *sql.Tx, moved []Moved) error

// Moved is a unit that has gone from one device to another.
type Moved struct{ Old, New Device }

// TakeTransfer makes the buyer the owner of an offered unit: in one transaction the
// seller's device closes and a new one of the same unit and profile, with an
// assignment and keys of its own, is the buyer's under the label that he gives it.
func (c *Custody) TakeTransfer(ctx context.Context, by holdfast.CredentialID, buyer holdfast.PartyID, t Transfer, label string, also Within) (Transfer, []Moved, error) {
	switch {
	case t.State != OnOffer && t.Buyer == buyer && !t.Next.IsZero():
		return Transfer{}, nil, holdfast.Errorf(holdfast.Conflict, "you took it already: it is your device %s, make it a new enrolment code", t.Next)
	case t.State != OnOffer || !c.now().Before(t.Until):
		return Transfer{}, nil, holdfast.Errorf(holdfast.Conflict, "transfer %s is offered no more", t.ID)
	case buyer == t.Seller:
		return Transfer{}, nil, holdfast.Errorf(holdfast.Invalid, "the device is yours already: withdraw the offer instead")
	case !t.Buyer.IsZero() && t.Buyer != buyer:
		return Transfer{}, nil, holdfast.Errorf(holdfast.NotFound, "there is no such transfer")
	}
	if err := c.livingParty(ctx, buyer); err != nil {
		return Transfer{}, nil, err
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	d, err := c.mayPart(ctx, t.Seller, t.Device)
	if kind := holdfast.KindOf(err); kind == holdfast.Conflict || kind == holdfast.NotFound {
		// Another was faster. Which device of the seller's it was is not for this one.
		err = holdfast.Errorf(holdfast.Conflict, "transfer %s is offered no more", t.ID)
	}
	if err != nil {
		return Transfer{}, nil, err
	}
	m, err := c.planMove(ctx, by, d, buyer, label, t.Children)
	if err != nil {
		return Transfer{}, nil, err
	}
	t.Buyer, t.Next, t.State, t.Ended = buyer, m.parts[0].plan.Device.ID, Taken, c.now().UTC()
	box, err := c.seal(ctx, vault.OfParty(t.Seller), "transfer", t.ID[:], t.info())
	if err != nil {
		return Transfer{}, nil, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := stillLiving(ctx, tx, t.Seller, buyer); err != nil {
			return err
		}
		if err := t.update(ctx, tx, OnOffer, box); err != nil {
			return err
		}
		if err := c.recordTransfer(ctx, tx, "transfer taken", t, by); err != nil {
			return err
		}
		return m.apply(ctx, tx, by, also)
	})
	m.forget()
	if err != nil {
		return Transfer{}, nil, err
	}
	return t, m.moved(), nil
}
