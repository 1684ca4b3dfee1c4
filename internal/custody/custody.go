// Package custody knows whose a thing is: parties and their members, the units a maker built, the
// devices they become in somebody's hands, the profiles that say what a device
// measures, the assignments that give its readings an owner, and its streams.
//
// It promises that
//   - every assignment and every party has an owner key of its own before
//     anything of it is stored;
//   - what identifies (names, labels, serials, a device's profile) is stored
//     sealed and looked up by keyed hash; what stands in clear are random ids and
//     states;
//   - a device that nobody has claimed, or whose assignment is closed or erased,
//     has no route: its readings have no owner, so they can't be kept;
//   - who acts in another's place does so by a membership that the one who acts has
//     accepted himself, and not a moment longer;
//   - a unit changes hands by its owner's word alone, or after he was told and did
//     not object: enrolment, codes and buttons never change the owner;
//   - the operating organisation can't be erased.
//
// It does not decide who may read (package policy does), does not keep readings,
// and does not give a device its certificate: an enrolment code and a claim code
// never do each other's work. Its caches see this process's writes only, so one
// process writes to a catalog.
package custody

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Keys is the vault, as this package needs it. None of its methods is called
// inside a catalog transaction: each may write to the catalog itself.
type Keys interface {
	AddOwner(ctx context.Context, o vault.Owner) error
	HasOwner(o vault.Owner) bool
	vault.Fields
	Hash(ctx context.Context, domain, text string) ([]byte, error)
}

// Recorder is the ledger: it appends an event to an owner's record within the
// transaction that makes it true.
type Recorder interface {
	Append(ctx context.Context, tx *sql.Tx, o vault.Owner, kind string, payload any) (uint64, error)
	AppendAll(ctx context.Context, tx *sql.Tx, all []ledger.Happening) (uint64, error)
}

// Options tunes a Custody; the zero value works.
type Options struct {
	Routes int              // devices whose route is kept in memory, default 100,000
	Now    func() time.Time // default time.Now
	// KeepOut has a new device take nothing that says it was taken before the device was
	// declared, until a time, in the transaction that adds it. Required where devices are
	// added after something was erased.
	KeepOut func(ctx context.Context, tx *sql.Tx, d Device, until time.Time) error
}

// Custody is the keeper of the words above. It is safe for concurrent use.
type Custody struct {
	db      *catalog.DB
	keys    Keys
	ledger  Recorder
	now     func() time.Time
	max     int
	keepOut func(ctx context.Context, tx *sql.Tx, d Device, until time.Time) error

	mu         sync.RWMutex
	generation uint64 // of the caches below: grows with each Forget
	routes     map[holdfast.DeviceID]*Route
	deviceOf   map[holdfast.AssignmentID]holdfast.DeviceID // of those in routes
	children   map[childKey]holdfast.DeviceID
	models     map[modelKey]*Profile // a stored version never changes
	operating  holdfast.PartyID
	acting     map[holdfast.PartyID][]acting // by who acts
	actingTurn uint64                        // counts what makes acting wrong

	changes  atomic.Uint64
	opening  sync.Mutex // one OpenStream at a time
	changing sync.Mutex // one change of a device's assignments at a time
	attempts attempts
}

type childKey struct {
	gateway holdfast.DeviceID
	name    string
}

type modelKey struct {
	name    string
	version int
}

// New returns the keeper over db.
func New(db *catalog.DB, keys Keys, ledger Recorder, o Options) *Custody {
	if o.Routes <= 0 {
		o.Routes = 100_000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Custody{
		db: db, keys: keys, ledger: ledger, now: o.Now, max: o.Routes, keepOut: o.KeepOut,
		routes:   make(map[holdfast.DeviceID]*Route),
		deviceOf: make(map[holdfast.AssignmentID]holdfast.DeviceID),
		children: make(map[childKey]holdfast.DeviceID),
		models:   make(map[modelKey]*Profile),
		acting:   make(map[holdfast.PartyID][]acting),
		attempts: attempts{made: make(map[holdfast.PartyID]attempt)},
	}
}

// Changes counts what was changed here, and what may have been. Who has seen a
// reading of a stream or an assignment has a count from after it was made.
func (c *Custody) Changes() uint64 { return c.changes.Load() }

func (c *Custody) write(ctx context.Context, f func(*sql.Tx) error) error {
	defer c.changes.Add(1)
	return c.db.Write(ctx, f)
}

// infoColumn is the one sealed column that each table has.
const infoColumn = "info_sealed"

func (c *Custody) seal(ctx context.Context, o vault.Owner, table string, row []byte, info any) ([]byte, error) {
	return vault.SealJSON(ctx, c.keys, o, table, row, infoColumn, info)
}

func (c *Custody) open(ctx context.Context, o vault.Owner, table string, row, box []byte, info any) error {
	return vault.OpenJSON(ctx, c.keys, o, table, row, infoColumn, box, info)
}

// checkName is holdfast.CheckName for things that are also called by their id: a
// name that reads as an id could be mistaken for another thing's.
func checkName(what, name string) error {
	if err := holdfast.CheckName(what, name); err != nil {
		return err
	}
	if _, err := holdfast.ParseID[holdfast.PartyID](name); err == nil {
		return holdfast.Errorf(holdfast.Invalid, "the name of a %s must not look like an id", what)
	}
	return nil
}

// one runs a statement that must change exactly one row.
func one(ctx context.Context, tx *sql.Tx, missing error, query string, args ...any) error {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n != 1 {
		return missing
	}
	return nil
}

func exists(ctx context.Context, tx *sql.Tx, query string, args ...any) (bool, error) {
	var n int
	err := tx.QueryRowContext(ctx, query, args...).Scan(&n)
	return n > 0, err
}
