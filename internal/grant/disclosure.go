package grant

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Disclosure is the record that readings of an owner left: to whom, why, which,
// when, under which grant.
type Disclosure struct {
	ID        holdfast.DisclosureID
	Owner     holdfast.PartyID      // whose data
	Reader    holdfast.CredentialID // who asked
	Recipient holdfast.PartyID      // the reader's party
	Purpose   holdfast.Purpose
	Grant     holdfast.GrantID // zero: none was needed
	Streams   []holdfast.StreamID

	Opened time.Time
	Last   time.Time // when readings were last read
	Reads  uint64
	Rows   uint64 // at least so many, if not Complete
	First  int64  // time of the earliest reading that left, ns since 1970; valid if Rows > 0
	Final  int64  // of the latest
	// Complete: Rows says all that left. It is false while a read is under way and
	// after a crash, when the amount is not known.
	Complete bool
}

// extendFor is how long the same reader's next reads join a disclosure.
const extendFor = 15 * time.Minute

type disclosureInfo struct {
	Reader    holdfast.CredentialID `json:"reader"`
	Recipient holdfast.PartyID      `json:"recipient"`
	Purpose   holdfast.Purpose      `json:"purpose"`
	Grant     holdfast.GrantID      `json:"grant"`
	Streams   []holdfast.StreamID   `json:"streams"`
	Opened    int64                 `json:"opened"`
	Last      int64                 `json:"last"`
	Reads     uint64                `json:"reads"`
	Rows      uint64                `json:"rows"`
	First     int64                 `json:"first,omitempty"`
	Final     int64                 `json:"final,omitempty"`
}

func (d Disclosure) info() disclosureInfo {
	return disclosureInfo{
		Reader: d.Reader, Recipient: d.Recipient, Purpose: d.Purpose, Grant: d.Grant, Streams: d.Streams,
		Opened: d.Opened.UnixNano(), Last: d.Last.UnixNano(), Reads: d.Reads, Rows: d.Rows, First: d.First, Final: d.Final,
	}
}

// disclosureKey is what two reads must have in common to be one disclosure.
type disclosureKey struct {
	owner     holdfast.PartyID
	reader    holdfast.CredentialID
	recipient holdfast.PartyID
	purpose   holdfast.Purpose
	grant     holdfast.GrantID
	streams   [sha256.Size]byte
}

func (d Disclosure) key() disclosureKey {
	h := sha256.New()
	for _, s := range d.Streams {
		h.Write(s[:])
	}
	k := disclosureKey{owner: d.Owner, reader: d.Reader, recipient: d.Recipient, purpose: d.Purpose, grant: d.Grant}
	h.Sum(k.streams[:0])
	return k
}

// disclosing is a disclosure of this process that is not closed yet.
type disclosing struct {
	Disclosure
	readers int  // reads under way
	dirty   bool // the catalog does not have the latest amount
	sealed  bool // being closed: no read may join any more
}

// OpenDisclosure records that readings are about to leave, and returns when that
// is durable. A read by the same reader of the same streams for the same purpose
// under the same grant within 15 minutes joins the one there is and costs no
// write. Each OpenDisclosure must be followed by one CloseDisclosure.
func (r *Register) OpenDisclosure(ctx context.Context, d Disclosure) (holdfast.DisclosureID, error) {
	if d.Owner.IsZero() || d.Recipient.IsZero() || d.Purpose == "" {
		return d.ID, holdfast.Errorf(holdfast.Invalid, "a disclosure has an owner, a recipient and a purpose")
	}
	d.Streams = slices.Clone(d.Streams)
	slices.SortFunc(d.Streams, func(a, b holdfast.StreamID) int { return bytes.Compare(a[:], b[:]) })
	d.Streams = slices.Compact(d.Streams)
	key := d.key()
	if id, ok := r.join(key); ok {
		return id, nil
	}
	r.disclosing.Lock()
	defer r.disclosing.Unlock()
	if id, ok := r.join(key); ok {
		return id, nil
	}
	now := r.now().UTC()
	d.ID = holdfast.NewID[holdfast.DisclosureID]()
	d.Opened, d.Last, d.Reads, d.Rows, d.First, d.Final, d.Complete = now, now, 1, 0, 0, 0, false
	owner := vault.OfParty(d.Owner)
	box, err := r.seal(ctx, owner, "disclosure", d.ID[:], d.info())
	if err != nil {
		return d.ID, err
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO disclosure (id, owner, state, info_sealed) VALUES ($1, $2, 'open', $3)`, d.ID, d.Owner, box); err != nil {
			return err
		}
		_, err := r.ledger.Append(ctx, tx, owner, "disclosure opened", struct {
			Disclosure holdfast.DisclosureID `json:"disclosure"`
			disclosureInfo
		}{d.ID, d.info()})
		return err
	})
	if err != nil {
		return d.ID, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o := &disclosing{Disclosure: d, readers: 1}
	r.byKey[key], r.byID[d.ID] = o, o
	return d.ID, nil
}

func (r *Register) join(key disclosureKey) (holdfast.DisclosureID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.byKey[key]
	if o == nil || o.sealed || r.now().Sub(o.Opened) >= extendFor {
		return holdfast.DisclosureID{}, false
	}
	o.readers++
	o.Reads++
	o.Last, o.dirty = r.now().UTC(), true
	return o.ID, true
}

// CloseDisclosure ends a read: so many rows left, with readings from first to
// last (ns since 1970). The amount is in the catalog within a minute, at Flush or
// at Close.
func (r *Register) CloseDisclosure(_ context.Context, id holdfast.DisclosureID, rows uint64, first, last int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.byID[id]
	if o == nil || o.readers == 0 {
		return holdfast.Errorf(holdfast.NotFound, "disclosure %s is not open", id)
	}
	o.readers--
	o.dirty = true
	o.Last = r.now().UTC()
	if rows == 0 {
		return nil
	}
	if o.Rows == 0 {
		o.First, o.Final = first, last
	}
	o.First, o.Final = min(o.First, first), max(o.Final, last)
	o.Rows += rows
	return nil
}

// Flush writes the amounts that the catalog does not have, and closes the
// disclosures that no read can join any more.
func (r *Register) Flush(ctx context.Context) error { return r.flush(ctx, false) }

// Close is Flush at the end of the process: it closes every disclosure that no
// read is using. Those in use stay open, their amount unknown.
func (r *Register) Close(ctx context.Context) error { return r.flush(ctx, true) }

func (r *Register) flush(ctx context.Context, all bool) error {
	r.mu.Lock()
	var due []disclosing
	for _, o := range r.byID {
		if o.readers == 0 && (all || r.now().Sub(o.Opened) >= extendFor) {
			o.sealed = true
		}
		if o.sealed || o.dirty {
			due = append(due, *o)
		}
	}
	r.mu.Unlock()

	var errs []error
	for batch := range slices.Chunk(due, 200) {
		if r.settle(ctx, batch) == nil {
			continue
		}
		for i := range batch { // one by one, so that one doesn't hold up the others
			errs = append(errs, r.settle(ctx, batch[i:i+1]))
		}
	}
	return errors.Join(errs...)
}

// settle writes a batch of disclosures as they are.
func (r *Register) settle(ctx context.Context, batch []disclosing) error {
	boxes := make(map[holdfast.DisclosureID][]byte, len(batch))
	for _, o := range batch {
		box, err := r.seal(ctx, vault.OfParty(o.Owner), "disclosure", o.ID[:], o.info())
		switch {
		case gone(err):
			r.forget(o.Owner) // erased meanwhile: there is no record left to write to
		case err != nil:
			return err
		default:
			boxes[o.ID] = box
		}
	}
	if len(boxes) == 0 {
		return nil
	}
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		for _, o := range batch {
			if box, ok := boxes[o.ID]; ok {
				if err := r.update(ctx, tx, o, box); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, was := range batch {
		o := r.byID[was.ID]
		switch {
		case o == nil:
		case was.sealed:
			r.drop(o)
		default: // a read that ended since keeps it dirty
			o.dirty = o.Reads != was.Reads || o.Rows != was.Rows || o.readers != was.readers
		}
	}
	return nil
}

func (r *Register) update(ctx context.Context, tx *sql.Tx, o disclosing, box []byte) error {
	state := "open"
	if o.sealed {
		state = "closed"
	}
	res, err := tx.ExecContext(ctx, `UPDATE disclosure SET state = $1, info_sealed = $2 WHERE id = $3`, state, box, o.ID)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 || !o.sealed {
		return err // no row: erased meanwhile
	}
	_, err = r.ledger.Append(ctx, tx, vault.OfParty(o.Owner), "disclosure closed", struct {
		Disclosure holdfast.DisclosureID `json:"disclosure"`
		disclosureInfo
	}{o.ID, o.info()})
	return err
}

// drop takes o out of memory; r.mu is held.
func (r *Register) drop(o *disclosing) {
	delete(r.byID, o.ID)
	if k := o.key(); r.byKey[k] == o {
		delete(r.byKey, k)
	}
}

// forget drops what is in memory of an owner. A read under way then finds its
// disclosure not open, and stops.
func (r *Register) forget(owner holdfast.PartyID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.byID {
		if o.Owner == owner {
			r.drop(o)
		}
	}
}

// Disclosures returns what left of an owner's data, the latest first.
func (r *Register) Disclosures(ctx context.Context, owner holdfast.PartyID) ([]Disclosure, error) {
	type row struct {
		id    holdfast.DisclosureID
		state string
		box   []byte
	}
	var rows []row
	err := r.db.Read(ctx, func(tx *sql.Tx) error {
		q, err := tx.QueryContext(ctx, `SELECT id, state, info_sealed FROM disclosure WHERE owner = $1`, owner)
		if err != nil {
			return err
		}
		defer q.Close()
		for q.Next() {
			var w row
			if err := q.Scan(&w.id, &w.state, &w.box); err != nil {
				return err
			}
			rows = append(rows, w)
		}
		return q.Err()
	})
	if err != nil {
		return nil, err
	}
	all := make([]Disclosure, 0, len(rows))
	for _, w := range rows {
		if d, ok := r.underWay(w.id); ok {
			all = append(all, d)
			continue
		}
		var i disclosureInfo
		switch err := r.open(ctx, vault.OfParty(owner), "disclosure", w.id[:], w.box, &i); {
		case gone(err):
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, Disclosure{
			ID: w.id, Owner: owner, Reader: i.Reader, Recipient: i.Recipient, Purpose: i.Purpose, Grant: i.Grant, Streams: i.Streams,
			Opened: instant(i.Opened), Last: instant(i.Last), Reads: i.Reads, Rows: i.Rows, First: i.First, Final: i.Final,
			Complete: w.state == "closed",
		})
	}
	slices.SortFunc(all, func(a, b Disclosure) int { return cmp.Or(b.Last.Compare(a.Last), bytes.Compare(a.ID[:], b.ID[:])) })
	return all, nil
}

// underWay returns a disclosure of this process with the amount as it is now.
func (r *Register) underWay(id holdfast.DisclosureID) (Disclosure, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.byID[id]
	if o == nil {
		return Disclosure{}, false
	}
	d := o.Disclosure
	d.Complete = o.readers == 0
	return d, true
}
