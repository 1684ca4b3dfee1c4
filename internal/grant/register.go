// Package grant keeps why data may be used and what came of it: purposes, the
// grants that owners make, the holds on their data, the bars that erasures leave,
// and the disclosures that say what left, to whom and why.
//
// It promises that
//   - a grant is made with the owner's own credential for his own data, and with
//     no other;
//   - OpenDisclosure returns only when the disclosure is durable, so that not one
//     byte leaves without a record; a crash leaves one whose amount is unknown,
//     never one that is missing;
//   - each of these events stands in the ledger, on the owner's record, in the
//     transaction that makes it true;
//   - what is known about an owner is sealed under his key and goes with it; bars
//     hold ids and times alone, because they must outlive it.
//
// It does not decide (package policy does, on what For returns), and it does not
// read data.
package grant

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Keys is the vault, as this package needs it. None of its methods is called
// inside a catalog transaction: each may write to the catalog itself.
type Keys interface {
	vault.Fields
	Hash(ctx context.Context, domain, text string) ([]byte, error)
}

// Recorder is the ledger: it appends an event to an owner's record within the
// transaction that makes it true.
type Recorder interface {
	Append(ctx context.Context, tx *sql.Tx, o vault.Owner, kind string, payload any) (uint64, error)
}

// Options tunes a Register; the zero value works.
type Options struct {
	Holdings Holdings         // default: nobody has anything, and no grant can name a device or an assignment
	Now      func() time.Time // default time.Now
	// Grace is how long a purpose that has ended can be revived, and its data are not
	// destroyed for its end; default a day, negative: not at all.
	Grace time.Duration
}

// Register keeps purposes, grants, bars and disclosures. It is safe for
// concurrent use.
type Register struct {
	db       *catalog.DB
	keys     Keys
	ledger   Recorder
	now      func() time.Time
	holdings Holdings

	purposes  atomic.Pointer[map[holdfast.Purpose]Purpose]
	sets      sets
	changes   atomic.Uint64
	barsMu    sync.RWMutex
	bars      map[holdfast.AssignmentID]Bars
	holding   sync.Mutex // one change of holds at a time
	declaring sync.Mutex // of groups, one after the other: what a party has is counted
	holds     atomic.Pointer[standing]
	rules     atomic.Pointer[map[ruleKey]int] // days
	grace     time.Duration

	answering  sync.Mutex          // one answer about a group at a time is looked at and remembered
	disclosing sync.Mutex          // held by who writes disclosures and tallies to the catalog
	tallies    map[tallyKey]*tally // as they are in the catalog; guarded by disclosing
	written    atomic.Uint64       // odd while catalog and memory may disagree about amounts
	mu         sync.Mutex          // guards the three below
	waiting    []*opening          // for who holds disclosing next
	byKey      map[disclosureKey]*disclosing
	byID       map[holdfast.DisclosureID]*disclosing
}

// Open returns the register over db, with purposes and bars in memory.
func Open(ctx context.Context, db *catalog.DB, keys Keys, ledger Recorder, o Options) (*Register, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Holdings == nil {
		o.Holdings = noHoldings{}
	}
	if o.Grace == 0 {
		o.Grace = 24 * time.Hour
	}
	r := &Register{
		holdings: o.Holdings, db: db, keys: keys, ledger: ledger, now: o.Now, grace: max(0, o.Grace),
		sets:    sets{kept: make(map[holdfast.PartyID]*said)},
		tallies: make(map[tallyKey]*tally),
		byKey:   make(map[disclosureKey]*disclosing),
		byID:    make(map[holdfast.DisclosureID]*disclosing),
	}
	if err := r.loadPurposes(ctx); err != nil {
		return nil, fmt.Errorf("load purposes: %w", err)
	}
	if err := db.Read(ctx, func(tx *sql.Tx) error { return r.loadBars(ctx, tx) }); err != nil {
		return nil, fmt.Errorf("load bars: %w", err)
	}
	if err := r.loadRules(ctx); err != nil {
		return nil, fmt.Errorf("load retention rules: %w", err)
	}
	if err := r.loadHolds(ctx); err != nil {
		return nil, fmt.Errorf("load holds: %w", err)
	}
	return r, nil
}

// How often Run does what.
const (
	flushEvery = time.Minute
	barsEvery  = time.Hour
)

// Run writes the amounts of disclosures, lifts holds whose notice is over and
// drops bars that have expired, until ctx ends. What it can't write now it writes
// later: an error of the catalog is handed to report and does not end it.
func (r *Register) Run(ctx context.Context, report func(error)) error {
	flush, bars := time.NewTicker(flushEvery), time.NewTicker(barsEvery)
	defer flush.Stop()
	defer bars.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-flush.C:
			err = errors.Join(r.Flush(ctx), r.lift(ctx))
		case <-bars.C:
			err = r.expireBars(ctx)
		}
		if err != nil && ctx.Err() == nil {
			report(err)
		}
	}
}

// infoColumn is the one sealed column that each table of an owner's has.
const infoColumn = "info_sealed"

func (r *Register) seal(ctx context.Context, o vault.Owner, table string, row []byte, info any) ([]byte, error) {
	return vault.SealJSON(ctx, r.keys, o, table, row, infoColumn, info)
}

func (r *Register) open(ctx context.Context, o vault.Owner, table string, row, box []byte, info any) error {
	return vault.OpenJSON(ctx, r.keys, o, table, row, infoColumn, box, info)
}

// Erase takes what s covers out of the catalog; it may run again. With a party go
// the grants it made and the disclosures of its data; grants made to it end.
// Erasing less leaves both: the owner still sees who had what, and bars stay in
// any case.
func (r *Register) Erase(ctx context.Context, s holdfast.Scope) error {
	if !s.Whole {
		return nil
	}
	r.forget(s.Party)
	r.dropHolds(s.Party)
	defer func() { // grants of others to it end, too
		r.sets.dropAll()
		r.changes.Add(1)
	}()
	r.disclosing.Lock()
	maps.DeleteFunc(r.tallies, func(k tallyKey, _ *tally) bool { return k.owner == s.Party })
	r.disclosing.Unlock()
	return r.db.Write(ctx, func(tx *sql.Tx) error {
		for _, query := range []string{
			`DELETE FROM data_grant WHERE grantor = $1`,
			`DELETE FROM device_group WHERE party = $1`,
			`DELETE FROM group_answer WHERE recipient = $1`,
			`DELETE FROM disclosure WHERE owner = $1`,
			`DELETE FROM disclosure_tally WHERE owner = $1`,
			`DELETE FROM hold WHERE party = $1`,
			`UPDATE data_grant SET state = 'ended' WHERE recipient = $1`,
		} {
			if _, err := tx.ExecContext(ctx, query, s.Party); err != nil {
				return err
			}
		}
		return nil
	})
}
