package grant

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Disclosure is the record that readings of an owner left: to whom, why, which,
// when, under which grant or permission.
type Disclosure struct {
	ID         holdfast.DisclosureID
	Owner      holdfast.PartyID      // whose data
	Reader     holdfast.CredentialID // who asked
	Role       string                // of the reader's credential: administrator, owner or program
	Recipient  holdfast.PartyID      // the reader's party
	Purpose    holdfast.Purpose
	Grant      holdfast.GrantID      // zero: none was needed
	Permission holdfast.PermissionID // of staff; zero: none was needed
	Streams    []holdfast.StreamID

	// Why it was allowed, in policy's words, and what was asked of the answer.
	Reason      string
	Policies    []string
	Obligations policy.Obligations

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
	Reader      holdfast.CredentialID `json:"reader"`
	Role        string                `json:"role,omitempty"`
	Recipient   holdfast.PartyID      `json:"recipient"`
	Purpose     holdfast.Purpose      `json:"purpose"`
	Grant       holdfast.GrantID      `json:"grant"`
	Permission  holdfast.PermissionID `json:"permission,omitzero"`
	Streams     []holdfast.StreamID   `json:"streams"`
	Reason      string                `json:"reason,omitempty"`
	Policies    []string              `json:"policies,omitempty"`
	Obligations policy.Obligations    `json:"obligations,omitzero"`
	Opened      int64                 `json:"opened"`
	Last        int64                 `json:"last"`
	Reads       uint64                `json:"reads"`
	Rows        uint64                `json:"rows"`
	First       int64                 `json:"first,omitempty"`
	Final       int64                 `json:"final,omitempty"`
}

func (d Disclosure) info() disclosureInfo {
	return disclosureInfo{
		Reader: d.Reader, Role: d.Role, Recipient: d.Recipient, Purpose: d.Purpose, Grant: d.Grant, Permission: d.Permission, Streams: d.Streams,
		Reason: d.Reason, Policies: d.Policies, Obligations: d.Obligations,
		Opened: d.Opened.UnixNano(), Last: d.Last.UnixNano(), Reads: d.Reads, Rows: d.Rows, First: d.First, Final: d.Final,
	}
}

func (i disclosureInfo) disclosure(id holdfast.DisclosureID, owner holdfast.PartyID, state string) Disclosure {
	return Disclosure{
		ID: id, Owner: owner, Reader: i.Reader, Role: i.Role, Recipient: i.Recipient, Purpose: i.Purpose, Grant: i.Grant, Permission: i.Permission,
		Streams: i.Streams, Reason: i.Reason, Policies: i.Policies, Obligations: i.Obligations,
		Opened: holdfast.Instant(i.Opened), Last: holdfast.Instant(i.Last), Reads: i.Reads, Rows: i.Rows, First: i.First, Final: i.Final,
		Complete: state == stateClosed,
	}
}

const (
	stateOpen   = "open"
	stateClosed = "closed"
)

// disclosureKey is what two reads must have in common to be one disclosure.
type disclosureKey struct {
	tallyKey
	reader  holdfast.CredentialID
	streams [sha256.Size]byte
}

func (d Disclosure) key() disclosureKey {
	h := sha256.New()
	for _, s := range d.Streams {
		h.Write(s[:])
	}
	k := disclosureKey{tallyKey: d.tallyKey(), reader: d.Reader}
	h.Sum(k.streams[:0])
	return k
}

// disclosing is a disclosure of this process that is not closed yet.
type disclosing struct {
	Disclosure
	n           uint64 // its number among the owner's
	readers     int    // reads under way
	dirty       bool   // the catalog does not have the latest amount
	sealed      bool   // being closed: no read may join any more
	reads, rows uint64 // as the catalog has them, in row and tally
}

// opening is a call of OpenDisclosure that needs the catalog.
type opening struct {
	Disclosure
	at    int // in the call
	key   disclosureKey
	tally tallyID
	n     uint64
	box   []byte
	done  bool
	err   error
}

// OpenDisclosure records that readings are about to leave, and returns when that
// is durable. A read by the same reader of the same streams for the same purpose
// under the same grant within 15 minutes joins the one there is and costs no
// write; those that come while one is being written are written together next.
// Each OpenDisclosure must be followed by one CloseDisclosure.
func (r *Register) OpenDisclosure(ctx context.Context, d Disclosure) (holdfast.DisclosureID, error) {
	ids, err := r.OpenDisclosures(ctx, []Disclosure{d})
	if err != nil {
		return holdfast.DisclosureID{}, err
	}
	return ids[0], nil
}

// OpenDisclosures opens several, in one transaction. With an error, some may be
// open: their ids are returned in the places of theirs, the others are zero.
func (r *Register) OpenDisclosures(ctx context.Context, all []Disclosure) ([]holdfast.DisclosureID, error) {
	ids := make([]holdfast.DisclosureID, len(all))
	fresh := make([]*opening, 0, len(all))
	for i, d := range all {
		if d.Owner.IsZero() || d.Recipient.IsZero() || d.Purpose == "" {
			return ids, holdfast.Errorf(holdfast.Invalid, "a disclosure has an owner, a recipient and a purpose")
		}
		d.Streams = slices.Clone(d.Streams)
		slices.SortFunc(d.Streams, func(a, b holdfast.StreamID) int { return bytes.Compare(a[:], b[:]) })
		d.Streams = slices.Compact(d.Streams)
		o := &opening{Disclosure: d, at: i, key: d.key()}
		if id, ok := r.join(o.key); ok {
			ids[i] = id
		} else {
			fresh = append(fresh, o)
		}
	}
	if len(fresh) == 0 {
		return ids, nil
	}
	r.mu.Lock()
	r.waiting = append(r.waiting, fresh...)
	r.mu.Unlock()
	r.disclosing.Lock()
	defer r.disclosing.Unlock()
	if !fresh[0].done { // nobody wrote them along with his own
		r.mu.Lock()
		batch := r.waiting
		r.waiting = nil
		r.mu.Unlock()
		r.openAll(context.WithoutCancel(ctx), batch)
	}
	var err error
	for _, o := range fresh {
		err = cmp.Or(err, o.err)
		if o.err == nil {
			ids[o.at] = o.ID
		}
	}
	return ids, err
}

// openAll opens a batch in one transaction; if that fails each in its own, so that
// one owner's fault is not another's. r.disclosing is held.
func (r *Register) openAll(ctx context.Context, batch []*opening) {
	for _, o := range batch {
		o.done = true
	}
	fresh := make([]*opening, 0, len(batch))
	first := make(map[disclosureKey]*opening, len(batch))
	var joining []*opening
	for _, o := range batch {
		if id, ok := r.join(o.key); ok {
			o.ID = id
		} else if first[o.key] != nil {
			joining = append(joining, o)
		} else {
			first[o.key] = o
			fresh = append(fresh, o)
		}
	}
	if err := r.openFresh(ctx, fresh); err != nil {
		for i, o := range fresh {
			o.err = r.openFresh(ctx, fresh[i:i+1])
		}
	}
	for _, o := range joining {
		if id, ok := r.join(o.key); ok {
			o.ID = id
		} else {
			o.err = first[o.key].err
		}
	}
}

func (r *Register) openFresh(ctx context.Context, fresh []*opening) error {
	if len(fresh) == 0 {
		return nil
	}
	now := r.now().UTC()
	changes := r.newChanges()
	for _, o := range fresh {
		o.ID = holdfast.NewID[holdfast.DisclosureID]()
		o.Opened, o.Last, o.Reads, o.Rows, o.First, o.Final, o.Complete = now, now, 1, 0, 0, 0, false
		var err error
		if o.box, err = r.seal(ctx, vault.OfParty(o.Owner), "disclosure", o.ID[:], o.info()); err != nil {
			return err
		}
		if o.tally, err = changes.opened(ctx, o.Disclosure); err != nil {
			return err
		}
	}
	if err := changes.seal(ctx); err != nil {
		return err
	}
	r.written.Add(1)
	defer r.written.Add(1)
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		for _, o := range fresh {
			if err := r.insertDisclosure(ctx, tx, o); err != nil {
				return err
			}
		}
		return changes.write(ctx, tx)
	})
	if err != nil {
		return err
	}
	changes.keep()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range fresh {
		d := &disclosing{Disclosure: o.Disclosure, n: o.n, readers: 1, reads: 1}
		r.byKey[o.key], r.byID[d.ID] = d, d
	}
	return nil
}

func (r *Register) insertDisclosure(ctx context.Context, tx *sql.Tx, o *opening) error {
	err := tx.QueryRowContext(ctx, `INSERT INTO disclosure (owner, n, hour, id, tally, state, info_sealed)
		SELECT $1, coalesce(max(n), 0) + 1, $2, $3, $4, 'open', $5 FROM disclosure WHERE owner = $1 RETURNING n`,
		o.Owner, hourOf(o.Opened), o.ID, o.tally[:], o.box).Scan(&o.n)
	if err != nil {
		return err
	}
	_, err = r.ledger.Append(ctx, tx, vault.OfParty(o.Owner), "disclosure opened", struct {
		Disclosure holdfast.DisclosureID `json:"disclosure"`
		disclosureInfo
	}{o.ID, o.info()})
	return err
}

// hourOf is the bucket that stands beside a disclosure in the clear.
func hourOf(t time.Time) int64 { return t.Unix() / int64(time.Hour/time.Second) }

func (r *Register) join(key disclosureKey) (holdfast.DisclosureID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.byKey[key]
	if o == nil || o.sealed || r.now().Sub(o.Opened) >= extendFor {
		return holdfast.DisclosureID{}, false
	}
	o.readers++
	o.Reads++
	o.touch(r.now())
	return o.ID, true
}

// touch notes that readings are read now. A clock that goes back changes nothing.
func (o *disclosing) touch(now time.Time) {
	o.dirty = true
	if now = now.UTC(); now.After(o.Last) {
		o.Last = now
	}
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
	o.touch(r.now())
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
