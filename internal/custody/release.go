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

// States of a notice of release; it may be withdrawn, too.
const (
	Open     = "open"
	Objected = "objected"
	Released = "released"
)

// Bounds of a notice: how long an owner has to object, and how long after his
// objection there is peace.
const (
	NoticeDays    = 14
	MinNoticeDays = 7
	MaxNoticeDays = 365
	peaceDays     = 90
)

// maxReason bounds what an administrator gives as his reason.
const maxReason = 1000

// Notice tells an owner who does not answer that his device is to be released: it
// will be, at Until, unless he objects.
type Notice struct {
	ID     holdfast.NoticeID
	Device holdfast.DeviceID
	Owner  holdfast.PartyID
	State  string
	Reason string
	Asked  time.Time
	Until  time.Time
	Ended  time.Time
	By     holdfast.CredentialID
}

type noticeInfo struct {
	Reason string                `json:"reason"`
	Asked  int64                 `json:"asked"`
	Until  int64                 `json:"until"`
	Ended  int64                 `json:"ended,omitempty"`
	By     holdfast.CredentialID `json:"by"`
}

func (n Notice) info() noticeInfo {
	i := noticeInfo{Reason: n.Reason, Asked: n.Asked.UnixNano(), Until: n.Until.UnixNano(), By: n.By}
	if !n.Ended.IsZero() {
		i.Ended = n.Ended.UnixNano()
	}
	return i
}

// noticeEvent is on the owner's record: the reason is for him.
type noticeEvent struct {
	Notice holdfast.NoticeID     `json:"notice"`
	Device holdfast.DeviceID     `json:"device"`
	Until  time.Time             `json:"until"`
	Reason string                `json:"reason,omitempty"`
	By     holdfast.CredentialID `json:"by,omitzero"`
}

// Release gives a device back: its owner's readings stay his, and the unit becomes
// unclaimed as a new device. Its claim code is nobody's until an administrator
// makes one to hand out.
func (c *Custody) Release(ctx context.Context, by holdfast.CredentialID, owner holdfast.PartyID, device holdfast.DeviceID, also Within) ([]Moved, error) {
	d, err := c.mayPart(ctx, owner, device)
	if err != nil {
		return nil, err
	}
	operating, err := c.Operating(ctx)
	if err != nil {
		return nil, err
	}
	if owner == operating {
		return nil, holdfast.Errorf(holdfast.Conflict, "the device is the operating organisation's own: add it anew as unclaimed")
	}
	return c.release(ctx, by, d, also, func(*sql.Tx) error { return nil })
}

func (c *Custody) release(ctx context.Context, by holdfast.CredentialID, d Device, also Within, first func(*sql.Tx) error) ([]Moved, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	m, err := c.planMove(ctx, by, d, holdfast.PartyID{}, "", false)
	if err != nil {
		return nil, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := first(tx); err != nil {
			return err
		}
		if _, err := c.ledger.Append(ctx, tx, recordOf(d.Owner), "device released", deviceEvent{d.ID, d.Assignment, by}); err != nil {
			return err
		}
		return m.apply(ctx, tx, by, also)
	})
	m.forget()
	if err != nil {
		return nil, err
	}
	return m.moved(), nil
}

// AskRelease begins the notice of release of a device whose owner does not answer.
// He sees it at once; days is how long he has to object, 0 for 14.
func (c *Custody) AskRelease(ctx context.Context, by Actor, device holdfast.DeviceID, reason string, days int) (Notice, error) {
	if days == 0 {
		days = NoticeDays
	}
	switch {
	case !by.Administrator:
		return Notice{}, holdfast.Errorf(holdfast.Denied, "only an administrator gives notice of a release; an owner releases his device himself")
	case days < MinNoticeDays || days > MaxNoticeDays:
		return Notice{}, holdfast.Errorf(holdfast.Invalid, "a notice runs %d to %d days", MinNoticeDays, MaxNoticeDays)
	case reason == "" || len(reason) > maxReason:
		return Notice{}, holdfast.Errorf(holdfast.Invalid, "a notice has a reason of 1 to %d bytes, which the owner reads", maxReason)
	}
	d, err := c.Device(ctx, device)
	if err != nil {
		return Notice{}, err
	}
	if d.State != Active {
		return Notice{}, holdfast.Errorf(holdfast.Conflict, "device %s is %s", device, d.State)
	}
	if operating, err := c.Operating(ctx); err != nil || d.Owner == operating {
		return Notice{}, orElse(err, holdfast.Errorf(holdfast.Conflict, "the device is the operating organisation's own"))
	}
	now := c.now().UTC()
	before, err := c.notices(ctx, `device = $1`, device)
	if err != nil {
		return Notice{}, err
	}
	for _, n := range before {
		if free := n.Ended.AddDate(0, 0, peaceDays); n.State == Objected && now.Before(free) {
			return Notice{}, holdfast.Errorf(holdfast.Conflict, "its owner objected: no new notice before %s", free.Format(time.DateOnly))
		}
	}
	n := Notice{ID: holdfast.NewID[holdfast.NoticeID](), Device: device, Owner: d.Owner, State: Open, Reason: reason, Asked: now,
		Until: now.AddDate(0, 0, days), By: by.Credential}
	box, err := c.seal(ctx, vault.OfParty(n.Owner), "release_notice", n.ID[:], n.info())
	if err != nil {
		return Notice{}, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := stillLiving(ctx, tx, n.Owner); err != nil {
			return err
		}
		if err := stillOwned(ctx, tx, d); err != nil {
			return err
		}
		runs, err := exists(ctx, tx, `SELECT count(*) FROM release_notice WHERE device = $1 AND state = 'open'`, device)
		if err != nil || runs {
			return orElse(err, holdfast.Errorf(holdfast.Conflict, "a notice of this device runs already"))
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO release_notice (id, device, owner, state, info_sealed) VALUES ($1, $2, $3, $4, $5)`,
			n.ID, n.Device, n.Owner, Open, box); err != nil {
			return err
		}
		return c.recordNotice(ctx, tx, "release asked", n, by.Credential)
	})
	if err != nil {
		return Notice{}, err
	}
	return n, nil
}

func (c *Custody) recordNotice(ctx context.Context, tx *sql.Tx, kind string, n Notice, by holdfast.CredentialID) error {
	_, err := c.ledger.Append(ctx, tx, vault.OfParty(n.Owner), kind, noticeEvent{n.ID, n.Device, n.Until, n.Reason, by})
	return err
}

// EndNotice is the owner's objection, or an administrator's withdrawal.
func (c *Custody) EndNotice(ctx context.Context, by Actor, id holdfast.NoticeID) (Notice, error) {
	n, err := c.notice(ctx, id)
	if err != nil {
		return Notice{}, err
	}
	state, what := Objected, "release objected"
	switch {
	case by.Party == n.Owner:
	case by.Administrator:
		state, what = Withdrawn, "release withdrawn"
	default:
		return Notice{}, noNotice()
	}
	if n.State != Open {
		return Notice{}, holdfast.Errorf(holdfast.Conflict, "notice %s is %s", id, n.State)
	}
	n.State, n.Ended = state, c.now().UTC()
	box, err := c.seal(ctx, vault.OfParty(n.Owner), "release_notice", n.ID[:], n.info())
	if err != nil {
		return Notice{}, err
	}
	return n, c.write(ctx, func(tx *sql.Tx) error {
		if err := n.update(ctx, tx, box); err != nil {
			return err
		}
		return c.recordNotice(ctx, tx, what, n, by.Credential)
	})
}

func (n Notice) update(ctx context.Context, tx *sql.Tx, box []byte) error {
	if err := one(ctx, tx, holdfast.Errorf(holdfast.Conflict, "notice %s runs no more", n.ID),
		`UPDATE release_notice SET state = $1, info_sealed = $2 WHERE id = $3 AND state = 'open'`, n.State, box, n.ID); err != nil {
		return err
	}
	return ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.NoticeChange, ID: ledger.TakenID(n.ID), State: n.State, Box: box})
}

// DueNotices returns those whose time is over without an objection.
func (c *Custody) DueNotices(ctx context.Context) ([]Notice, error) {
	all, err := c.notices(ctx, `state = 'open'`)
	return slices.DeleteFunc(all, func(n Notice) bool { return c.now().Before(n.Until) }), err
}

// ReleaseByNotice releases a device whose owner did not object in time.
func (c *Custody) ReleaseByNotice(ctx context.Context, n Notice, also Within) ([]Moved, error) {
	if n.State != Open || c.now().Before(n.Until) {
		return nil, holdfast.Errorf(holdfast.Conflict, "notice %s is not over", n.ID)
	}
	d, err := c.mayPart(ctx, n.Owner, n.Device)
	if err != nil {
		return nil, err
	}
	n.State, n.Ended = Released, c.now().UTC()
	box, err := c.seal(ctx, vault.OfParty(n.Owner), "release_notice", n.ID[:], n.info())
	if err != nil {
		return nil, err
	}
	return c.release(ctx, n.By, d, also, func(tx *sql.Tx) error { return n.update(ctx, tx, box) })
}

// Notices returns those to an owner, latest first; of every owner for the zero party.
func (c *Custody) Notices(ctx context.Context, owner holdfast.PartyID) ([]Notice, error) {
	if owner.IsZero() {
		return c.notices(ctx, `1 = 1`)
	}
	return c.notices(ctx, `owner = $1`, owner)
}

func noNotice() error { return holdfast.Errorf(holdfast.NotFound, "there is no such notice") }

func (c *Custody) notice(ctx context.Context, id holdfast.NoticeID) (Notice, error) {
	all, err := c.notices(ctx, `id = $1`, id)
	if err == nil && len(all) == 0 {
		err = noNotice()
	}
	if err != nil {
		return Notice{}, err
	}
	return all[0], nil
}

func (c *Custody) notices(ctx context.Context, where string, args ...any) ([]Notice, error) {
	type row struct {
		Notice
		box []byte
	}
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (r row, err error) {
		return r, q.Scan(&r.ID, &r.Device, &r.Owner, &r.State, &r.box)
	}, `SELECT id, device, owner, state, info_sealed FROM release_notice WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	out := make([]Notice, 0, len(rows))
	for _, r := range rows {
		n := r.Notice
		var info noticeInfo
		switch err := c.open(ctx, vault.OfParty(n.Owner), "release_notice", n.ID[:], r.box, &info); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		n.Reason, n.Asked, n.Until, n.Ended, n.By = info.Reason, holdfast.Instant(info.Asked), holdfast.Instant(info.Until), holdfast.Instant(info.Ended), info.By
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Notice) int { return cmp.Or(b.Asked.Compare(a.Asked), bytes.Compare(a.ID[:], b.ID[:])) })
	return out, nil
}
