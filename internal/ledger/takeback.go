package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// A take-back is a change that a restore must never undo: what was erased,
// withdrawn, revoked, restricted, closed or used stays so, whatever older state of
// the catalog is put back.
//
// Each stands in the catalog from the transaction of its change on (TakeBack), and
// soon in every copy of the keyring, signed (SignTakeBacks, docs/format/takeback.md).
// A restore reads those copies against the catalog that it put back
// (ReadTakeBacks) and has what that one does not know carried out again by the
// keepers, each by its own Replay.

// TakeBackKind says what was taken back: the name of the keeper that carries it out
// again, a dot, and a word.
type TakeBackKind string

// The kinds. What ID and the other fields of a take-back name stands beside each.
const (
	ErasureAccepted TakeBackKind = "erasure.accepted" // Data: erasure.Accepted
	ErasureUndone   TakeBackKind = "erasure.undone"   // ID: an accepted erasure that its owner took back in time
	RecipientTold   TakeBackKind = "erasure.told"     // ID: the retraction; Of: the recipient; Data: its number and the erasure
	RecipientAcked  TakeBackKind = "erasure.acked"    // ID: the retraction

	GrantEnded      TakeBackKind = "grant.ended"     // ID: the grant
	PurposeChange   TakeBackKind = "grant.purpose"   // Hash: its name's; State: active, when it was revived, or ended
	HoldChange      TakeBackKind = "grant.hold"      // ID: the hold; Of: the party; State: active or ended
	RetentionChange TakeBackKind = "grant.retention" // Hash: the rule's; State: set or ended

	CredentialRevoked TakeBackKind = "access.credential" // ID: the credential
	InvitationEnded   TakeBackKind = "access.invitation" // ID: the invitation
	PermissionEnded   TakeBackKind = "access.permission" // ID: the permission; State: its number
	FactorEnded       TakeBackKind = "access.factor"     // ID: the holder
	RecoveryUsed      TakeBackKind = "access.recovery"   // ID: the holder; Hash: the code's

	DeviceRevoked TakeBackKind = "identity.revoked" // ID: the device
	CodeEnded     TakeBackKind = "identity.code"    // ID: the device

	DeviceClosed     TakeBackKind = "custody.device"     // ID: the device
	PeriodTerms      TakeBackKind = "custody.terms"      // ID: a period's assignment; Of: the device; State; Data: whose it is
	AssignmentChange TakeBackKind = "custody.assignment" // ID: the assignment; State
	ClaimCodeEnded   TakeBackKind = "custody.claim"      // ID: the device
	TransferChange   TakeBackKind = "custody.transfer"   // ID: the transfer; State
	MembershipEnded  TakeBackKind = "custody.membership" // ID: the membership
	NoticeChange     TakeBackKind = "custody.notice"     // ID: the notice; State
	JointChange      TakeBackKind = "custody.joint"      // ID: the joint erasure; State
	GatewayGone      TakeBackKind = "custody.gateway"    // ID: the device that lost its gateway

	WebhookChange TakeBackKind = "outbox.webhook" // ID: the webhook; State: ended, or as it is now
	AlarmEnded    TakeBackKind = "alarm.rule"     // ID: the rule
	AlarmChanged  TakeBackKind = "alarm.changed"  // ID: the rule

	BackupBegun TakeBackKind = "backup.begun"  // ID: the backup; Data: when, and until when it is kept
	DealEnded   TakeBackKind = "recovery.deal" // ID: the deal of recovery shares; State: replaced or ended

	OriginRenewed TakeBackKind = "ledger.renewed" // Data: a renewal's statement, by both keys
)

// TakeBackKinds returns every kind.
func TakeBackKinds() []TakeBackKind {
	return []TakeBackKind{
		ErasureAccepted, ErasureUndone, RecipientTold, RecipientAcked,
		GrantEnded, PurposeChange, HoldChange, RetentionChange,
		CredentialRevoked, InvitationEnded, PermissionEnded, FactorEnded, RecoveryUsed,
		DeviceRevoked, CodeEnded,
		DeviceClosed, PeriodTerms, AssignmentChange, ClaimCodeEnded, TransferChange, MembershipEnded, NoticeChange, JointChange, GatewayGone,
		WebhookChange, AlarmEnded, AlarmChanged,
		BackupBegun, DealEnded,
		OriginRenewed,
	}
}

// Keeper names who carries a take-back of this kind out again.
func (k TakeBackKind) Keeper() string {
	keeper, _, _ := strings.Cut(string(k), ".")
	return keeper
}

type taken struct{}

// TakenID is the id of whatever a take-back is about.
type TakenID = holdfast.ID[taken]

// TakeBack is one of them. It names ids, states and times alone; Box is the sealed
// column of the row that changed, as the catalog has it, under the key of whom it
// is about.
type TakeBack struct {
	Number uint64          `json:"n"`
	Kind   TakeBackKind    `json:"kind"`
	At     time.Time       `json:"at"`
	ID     TakenID         `json:"id,omitzero"`
	Of     TakenID         `json:"of,omitzero"`
	Hash   []byte          `json:"hash,omitempty"`
	State  string          `json:"state,omitempty"`
	Box    []byte          `json:"box,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
}

// AddTakeBacks writes take-backs down in the transaction of the changes that they tell of.
// Their numbers and times are given here.
func AddTakeBacks(ctx context.Context, tx *sql.Tx, all ...TakeBack) error {
	if len(all) == 0 {
		return nil
	}
	var last int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM take_back`).Scan(&last); err != nil {
		return fmt.Errorf("number take-backs: %w", err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i, t := range all {
		t.Number, t.At = uint64(last)+uint64(i)+1, now
		line, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("write take-back: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO take_back (number, line) VALUES ($1, $2)`, int64(t.Number), string(line)); err != nil {
			return fmt.Errorf("write take-back: %w", err)
		}
	}
	return nil
}

// TakeBacks returns how many take-backs there are, and how many of them are signed.
func (l *Ledger) TakeBacks(ctx context.Context) (all, signed uint64, err error) {
	err = l.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT (SELECT coalesce(max(number), 0) FROM take_back), (SELECT coalesce(max(last), 0) FROM take_back_batch)`).Scan(&all, &signed)
	})
	return all, signed, err
}
