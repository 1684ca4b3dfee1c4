package grant

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Tally is what all disclosures to one recipient, for one purpose, under one grant
// or permission, by one kind of credential come to. It is kept as they are opened
// and closed, in the same transactions, so that an owner's answer costs what it
// shows and not what has ever been read.
type Tally struct {
	Recipient  holdfast.PartyID
	Purpose    holdfast.Purpose
	Grant      holdfast.GrantID
	Permission holdfast.PermissionID
	Role       string

	Readers     []holdfast.CredentialID // the latest first, at most MaxReaders
	Streams     []holdfast.StreamID     // in byte order
	Obligations policy.Obligations      // of the latest

	Disclosures uint64
	Open        uint64 // of these: amount not final, or after a crash not known
	Reads       uint64
	Rows        uint64    // at least so many, if Open > 0
	Opened      time.Time // the first
	Last        time.Time // when readings were last read
	First       int64     // time of the earliest reading that left; valid if Rows > 0
	Final       int64     // of the latest
}

// MaxReaders is how many credentials a tally names.
const MaxReaders = 20

// tallyKey is what the disclosures of a tally have in common.
type tallyKey struct {
	owner      holdfast.PartyID
	recipient  holdfast.PartyID
	purpose    holdfast.Purpose
	grant      holdfast.GrantID
	permission holdfast.PermissionID
	role       string
}

func (d Disclosure) tallyKey() tallyKey {
	return tallyKey{d.Owner, d.Recipient, d.Purpose, d.Grant, d.Permission, d.Role}
}

// tallyID names a tally's row: a keyed hash, so that it tells nobody what the
// tally is about.
type tallyID [16]byte

func (r *Register) tallyID(ctx context.Context, k tallyKey) (id tallyID, err error) {
	hash, err := r.keys.Hash(ctx, "disclosure tally", fmt.Sprintf("%s %s %s %s %s %s", k.owner, k.recipient, k.grant, k.permission, k.role, k.purpose))
	if err == nil {
		copy(id[:], hash)
	}
	return id, err
}

type tallyInfo struct {
	Recipient   holdfast.PartyID        `json:"recipient"`
	Purpose     holdfast.Purpose        `json:"purpose"`
	Grant       holdfast.GrantID        `json:"grant,omitzero"`
	Permission  holdfast.PermissionID   `json:"permission,omitzero"`
	Role        string                  `json:"role,omitempty"`
	Readers     []holdfast.CredentialID `json:"readers"`
	Streams     []holdfast.StreamID     `json:"streams"`
	Obligations policy.Obligations      `json:"obligations,omitzero"`
	Disclosures uint64                  `json:"disclosures"`
	Open        uint64                  `json:"open,omitempty"`
	Reads       uint64                  `json:"reads"`
	Rows        uint64                  `json:"rows"`
	Opened      int64                   `json:"opened"`
	Last        int64                   `json:"last"`
	First       int64                   `json:"first,omitempty"`
	Final       int64                   `json:"final,omitempty"`
}

func (i tallyInfo) tally() Tally {
	return Tally{
		Recipient: i.Recipient, Purpose: i.Purpose, Grant: i.Grant, Permission: i.Permission, Role: i.Role,
		Readers: i.Readers, Streams: i.Streams, Obligations: i.Obligations,
		Disclosures: i.Disclosures, Open: i.Open, Reads: i.Reads, Rows: i.Rows,
		Opened: holdfast.Instant(i.Opened), Last: holdfast.Instant(i.Last), First: i.First, Final: i.Final,
	}
}

// opened counts a new disclosure. Lists are copied before they change: the one
// that is in the catalog keeps its own.
func (i *tallyInfo) opened(d Disclosure) {
	if i.Disclosures == 0 {
		i.Opened, i.Last = d.Opened.UnixNano(), d.Opened.UnixNano()
	}
	i.Disclosures++
	i.Open++
	i.Reads += d.Reads
	i.Opened, i.Last = min(i.Opened, d.Opened.UnixNano()), max(i.Last, d.Last.UnixNano())
	i.Obligations = d.Obligations
	if len(i.Readers) == 0 || i.Readers[0] != d.Reader {
		readers := append([]holdfast.CredentialID{d.Reader}, slices.DeleteFunc(slices.Clone(i.Readers), func(c holdfast.CredentialID) bool { return c == d.Reader })...)
		i.Readers = readers[:min(len(readers), MaxReaders)]
	}
	if !slices.Equal(i.Streams, d.Streams) {
		i.Streams = united(i.Streams, d.Streams)
	}
}

// united merges two sorted lists.
func united(a, b []holdfast.StreamID) []holdfast.StreamID {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(a, b holdfast.StreamID) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(all)
}

// grown adds what a disclosure has that the tally does not have of it.
func (i *tallyInfo) grown(o *disclosing) {
	i.Reads += o.Reads - o.reads
	if o.Rows > 0 {
		if i.Rows == 0 {
			i.First, i.Final = o.First, o.Final
		}
		i.First, i.Final = min(i.First, o.First), max(i.Final, o.Final)
	}
	i.Rows += o.Rows - o.rows
	i.Last = max(i.Last, o.Last.UnixNano())
}

// tally is one as the catalog has it.
type tally struct {
	id   tallyID
	info tallyInfo
}

// manyTallies is how many are kept in memory.
const manyTallies = 10_000

// changes are those of tallies that one transaction makes. r.disclosing is held
// from newChanges to keep.
type changes struct {
	r    *Register
	next map[tallyKey]*change
}

type change struct {
	tally
	fresh bool // there is no row yet
	box   []byte
}

func (r *Register) newChanges() *changes { return &changes{r: r, next: make(map[tallyKey]*change)} }

// of returns the tally of k as it is to become.
func (c *changes) of(ctx context.Context, k tallyKey) (*change, error) {
	if next := c.next[k]; next != nil {
		return next, nil
	}
	next := &change{}
	if have := c.r.tallies[k]; have != nil {
		next.tally = *have
	} else if err := c.r.loadTally(ctx, k, next); err != nil {
		return nil, err
	}
	c.next[k] = next
	return next, nil
}

func (r *Register) loadTally(ctx context.Context, k tallyKey, into *change) (err error) {
	if into.id, err = r.tallyID(ctx, k); err != nil {
		return err
	}
	var box []byte
	err = r.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT info_sealed FROM disclosure_tally WHERE owner = $1 AND id = $2`, k.owner, into.id[:]).Scan(&box)
	})
	if errors.Is(err, sql.ErrNoRows) {
		into.fresh = true
		into.info = tallyInfo{Recipient: k.recipient, Purpose: k.purpose, Grant: k.grant, Permission: k.permission, Role: k.role}
		return nil
	}
	if err != nil {
		return err
	}
	return r.open(ctx, vault.OfParty(k.owner), "disclosure_tally", into.id[:], box, &into.info)
}

// opened counts a disclosure and returns the id of its tally.
func (c *changes) opened(ctx context.Context, d Disclosure) (tallyID, error) {
	next, err := c.of(ctx, d.tallyKey())
	if err != nil {
		return tallyID{}, err
	}
	next.info.opened(d)
	return next.id, nil
}

// settled adds the amount of a disclosure that the catalog does not have, and
// takes it from the open ones if it is being closed.
func (c *changes) settled(ctx context.Context, o *disclosing) error {
	next, err := c.of(ctx, o.tallyKey())
	if err != nil {
		return err
	}
	next.info.grown(o)
	if o.sealed && next.info.Open > 0 {
		next.info.Open--
	}
	return nil
}

func (c *changes) seal(ctx context.Context) (err error) {
	for k, next := range c.next {
		if next.box, err = c.r.seal(ctx, vault.OfParty(k.owner), "disclosure_tally", next.id[:], next.info); err != nil {
			return err
		}
	}
	return nil
}

func (c *changes) write(ctx context.Context, tx *sql.Tx) error {
	for k, next := range c.next {
		query := `UPDATE disclosure_tally SET info_sealed = $3 WHERE owner = $1 AND id = $2` // no row: erased meanwhile
		if next.fresh {
			query = `INSERT INTO disclosure_tally (owner, id, info_sealed) VALUES ($1, $2, $3)`
		}
		if _, err := tx.ExecContext(ctx, query, k.owner, next.id[:], next.box); err != nil {
			return err
		}
	}
	return nil
}

// keep is called when the catalog has them.
func (c *changes) keep() {
	if len(c.r.tallies) > manyTallies {
		clear(c.r.tallies)
	}
	for k, next := range c.next {
		c.r.tallies[k] = &next.tally
	}
}

// Tallies returns what left of an owner's data, one for each recipient, purpose,
// grant or permission and kind of credential, the latest read first. It counts
// what is being read this moment, too.
func (r *Register) Tallies(ctx context.Context, owner holdfast.PartyID) ([]Tally, error) {
	var found map[tallyKey]tallyInfo
	err := r.steadily(func() (err error) {
		if found, err = r.readTallies(ctx, owner); err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, o := range r.byID {
			if o.Owner != owner {
				continue
			}
			k := o.tallyKey()
			if i, ok := found[k]; ok {
				i.grown(o)
				if o.readers == 0 && i.Open > 0 {
					i.Open--
				}
				found[k] = i
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make([]Tally, 0, len(found))
	for i := range maps.Values(found) {
		all = append(all, i.tally())
	}
	slices.SortFunc(all, func(a, b Tally) int {
		return cmp.Or(b.Last.Compare(a.Last), slices.Compare(a.Recipient[:], b.Recipient[:]), cmp.Compare(a.Purpose, b.Purpose), slices.Compare(a.Grant[:], b.Grant[:]))
	})
	return all, nil
}

func (r *Register) readTallies(ctx context.Context, owner holdfast.PartyID) (map[tallyKey]tallyInfo, error) {
	type row struct{ id, box []byte }
	rows, err := catalog.Rows(ctx, r.db, func(q *sql.Rows) (w row, err error) {
		return w, q.Scan(&w.id, &w.box)
	}, `SELECT id, info_sealed FROM disclosure_tally WHERE owner = $1`, owner)
	if err != nil {
		return nil, err
	}
	all := make(map[tallyKey]tallyInfo, len(rows))
	for _, w := range rows {
		var i tallyInfo
		switch err := r.open(ctx, vault.OfParty(owner), "disclosure_tally", w.id, w.box, &i); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		all[tallyKey{owner, i.Recipient, i.Purpose, i.Grant, i.Permission, i.Role}] = i
	}
	return all, nil
}

// steadily runs read, which looks into the catalog and then into memory, so that
// no write of amounts falls between the two: what it reads is neither missed nor
// counted twice.
func (r *Register) steadily(read func() error) error {
	for range 3 {
		before := r.written.Load()
		if err := read(); err != nil {
			return err
		}
		if before%2 == 0 && r.written.Load() == before {
			return nil
		}
	}
	r.disclosing.Lock()
	defer r.disclosing.Unlock()
	return read()
}
