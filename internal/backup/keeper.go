package backup

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Deps is what a Keeper stands on.
type Deps struct {
	Catalog *catalog.DB
	Vault   *vault.Vault
	Ledger  *ledger.Ledger
	Series  *series.Series
	Blobs   blob.Store
	Hub     string // the hub's id
	Version string // of this program
	Staging string // a folder for copies of the catalog while backups are under way; made when it is needed

	// Keyring says which copies of the keyring hold every owner key in force, and how
	// many copies there are to be; 0: the data folder has the only one. Nil is that.
	Keyring func(ctx context.Context) (in []string, of int)
	// Keys is what a restore is to know of the root key's holders and the keyring's
	// copies, as JSON; nil: nothing.
	Keys func() ([]byte, error)
	// TakeBacks is the number of the newest take-back; nil: there are none.
	TakeBacks func(ctx context.Context) (uint64, error)
	Now       func() time.Time // default time.Now
}

// Keeper is the hub's side of backups: it offers what is to be copied, signs what
// was, and remembers until when somebody may have ciphertext of now.
type Keeper struct {
	Deps
	key []byte

	mu       sync.Mutex
	sessions map[string]*session
	last     standing
}

// How long a backup that nobody asks for any more holds up the tidying, and how many
// there are at most.
const (
	idleFor  = 5 * time.Minute
	mostRuns = 4
	mostKeep = 3660 * 24 * time.Hour
)

// DefaultKeep is how long a backup is kept if nobody says otherwise.
const DefaultKeep = 35 * 24 * time.Hour

// session is a backup under way.
type session struct {
	plan      Plan
	by        string // whose credential began it
	statement Statement
	expires   time.Time
	file      *os.File // the copy of the catalog
	held      []*series.Held
	tally     []byte
	release   func()

	mu    sync.Mutex // guards what follows
	users int        // requests under way
	used  time.Time  // when the last one ended
	over  bool
}

// Open opens the keeper and removes what an earlier process left of its backups.
func Open(ctx context.Context, d Deps) (*Keeper, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Keyring == nil {
		d.Keyring = func(context.Context) ([]string, int) { return nil, 0 }
	}
	if d.TakeBacks == nil {
		d.TakeBacks = func(context.Context) (uint64, error) { return 0, nil }
	}
	if err := os.RemoveAll(d.Staging); err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "remove what is left of backups: %w", err)
	}
	key, err := d.Vault.Hash(ctx, "backup", "")
	if err != nil {
		return nil, fmt.Errorf("open backups: %w", err)
	}
	k := &Keeper{Deps: d, key: key, sessions: map[string]*session{}}
	return k, k.load(ctx)
}

// Begin begins a backup that is kept for a while: it rolls the journal and takes a
// copy of the catalog. by is whose credential asks.
func (k *Keeper) Begin(ctx context.Context, by string, keep time.Duration) (_ Plan, err error) {
	if keep == 0 {
		keep = DefaultKeep
	}
	if keep < 24*time.Hour || keep > mostKeep {
		return Plan{}, holdfast.Errorf(holdfast.Invalid, "a backup is kept for 1 to %d days", mostKeep/(24*time.Hour))
	}
	if err := k.room(); err != nil {
		return Plan{}, err
	}
	s := &session{by: by}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := k.Series.Roll(ctx); err != nil {
		return Plan{}, fmt.Errorf("roll before backup: %w", err)
	}
	var id [16]byte
	rand.Read(id[:])
	now := k.Now().UTC()
	s.plan = Plan{ID: text32.EncodeToString(id[:]), Hub: k.Hub, Key: k.key, Began: now}
	s.expires, s.used = now.Add(keep), now
	// From the catalog's moment on, what it names stays.
	s.release = k.Series.Pin()
	if err := k.copyCatalog(ctx, s); err != nil {
		return Plan{}, err
	}
	if err := k.describe(ctx, s); err != nil {
		return Plan{}, err
	}
	// It is on record before a byte of it leaves.
	err = k.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO backup (id, began, expires, ended, bytes, written, keyring) VALUES ($1, $2, $3, 0, $4, 0, $5)`,
			id[:], now.UnixNano(), s.expires.UnixNano(), s.plan.Bytes(), s.statement.Keyring); err != nil {
			return err
		}
		if err := takeBack(ctx, tx, id, now, s.expires); err != nil {
			return err
		}
		_, err := k.Ledger.Append(ctx, tx, vault.Hub, "backup begun", map[string]any{"backup": s.plan.ID, "by": by, "expires": s.expires})
		return err
	})
	if err != nil {
		return Plan{}, fmt.Errorf("record backup: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sessions[s.plan.ID] = s
	return s.plan, k.reload(ctx)
}

// expire ends backups that nobody asks for any more, and returns the one of the others
// that nobody has asked for the longest. The caller holds mu.
func (k *Keeper) expire() (idlest *session) {
	now := k.Now()
	for id, s := range k.sessions {
		s.mu.Lock()
		idle := s.users == 0
		used := s.used
		s.mu.Unlock()
		switch {
		case idle && now.Sub(used) > idleFor:
			delete(k.sessions, id)
			s.close()
		case idle && (idlest == nil || used.Before(idlest.used)):
			idlest = s
		}
	}
	return idlest
}

// room makes room for another backup.
func (k *Keeper) room() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	idlest := k.expire()
	if len(k.sessions) < mostRuns {
		return nil
	}
	if idlest == nil {
		return holdfast.Errorf(holdfast.Unavailable, "%d backups are under way: wait for one to end", len(k.sessions))
	}
	delete(k.sessions, idlest.plan.ID)
	idlest.close()
	return nil
}

// Run ends backups that nobody asks for any more.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.mu.Lock()
			defer k.mu.Unlock()
			for id, s := range k.sessions {
				delete(k.sessions, id)
				s.close()
			}
			return nil
		case <-tick.C:
			k.mu.Lock()
			k.expire()
			k.mu.Unlock()
		}
	}
}

func (k *Keeper) sessionIDs() (ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.sessions {
		ids = append(ids, id)
	}
	return ids
}

func (k *Keeper) copyCatalog(ctx context.Context, s *session) error {
	if err := os.MkdirAll(k.Staging, 0o700); err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "make folder for the catalog's copy: %w", err)
	}
	path := filepath.Join(k.Staging, s.plan.ID)
	if err := k.Catalog.Snapshot(ctx, path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return errors.Join(fmt.Errorf("open the catalog's copy: %w", err), os.Remove(path))
	}
	s.file = f
	return nil
}

// describe says what the backup consists of, from the copy of the catalog.
func (k *Keeper) describe(ctx context.Context, s *session) error {
	st := &s.statement
	*st = Statement{Format: statementFormat, ID: s.plan.ID, Hub: k.Hub, Began: s.plan.Began, Expires: s.expires, Program: k.Version, Catalog: catalog.Known(),
		PieceSize: PieceSize, Generation: k.Vault.Generation(), KeyringOwners: k.Vault.Owners(), Key: k.key, Ledger: k.Ledger.Origin(), Verifier: k.Ledger.VerifierKey()}
	// Copies are asked after the catalog was copied: what it names is in those in step.
	switch in, of := k.Keyring(ctx); {
	case len(in) > 0:
		st.Keyring, st.KeyringCopies = keyringCopied, in
	case of > 0:
		st.Keyring = CopiesLate
	default:
		st.Keyring = keyringFolderOnly
	}
	var err error
	if k.Deps.Keys != nil {
		if st.Keys, err = k.Deps.Keys(); err != nil {
			return fmt.Errorf("write down holders and copies: %w", err)
		}
	}
	if st.TakeBacks, err = k.TakeBacks(ctx); err != nil {
		return fmt.Errorf("number of the newest take-back: %w", err)
	}
	head, err := k.Ledger.Published(ctx)
	if err != nil {
		return err
	}
	st.LedgerSize, st.LedgerRoot = head.Size, head.Root.String()
	err = catalog.Look(ctx, s.file.Name(), func(tx *sql.Tx) error {
		if st.Owners, err = vault.NeededIn(ctx, tx); err != nil {
			return err
		}
		for h, err := range series.HeldIn(ctx, tx) {
			if err != nil {
				return err
			}
			s.held = append(s.held, h)
		}
		s.tally = []byte(tallyMagic)
		for t, err := range k.Series.TallyIn(ctx, tx, false) {
			if err != nil {
				return err
			}
			s.tally = appendTally(s.tally, t)
			st.Streams++
			st.Chunks += int64(t.Chunks)
			st.Readings += t.Readings
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the catalog's copy: %w", err)
	}
	return s.parts(k.key)
}

// parts lists the pieces in order: the catalog, the segments, the tally.
func (s *session) parts(key []byte) error {
	info, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("read the catalog's copy: %w", err)
	}
	buf := make([]byte, PieceSize)
	for at := int64(0); at < info.Size(); at += PieceSize {
		b := buf[:min(PieceSize, info.Size()-at)]
		if _, err := s.file.ReadAt(b, at); err != nil {
			return fmt.Errorf("read the catalog's copy: %w", err)
		}
		s.plan.Parts = append(s.plan.Parts, tagged(key, Part{Kind: KindCatalog, Size: int64(len(b))}, b))
	}
	for _, h := range s.held {
		s.plan.Parts = append(s.plan.Parts, segmentPart(h))
	}
	s.plan.Parts = append(s.plan.Parts, tagged(key, Part{Kind: KindTally, Size: int64(len(s.tally))}, s.tally))
	s.statement.CatalogBytes, s.statement.Segments = info.Size(), len(s.held)
	s.statement.Pieces, s.statement.Bytes = len(s.plan.Parts), s.plan.Bytes()
	return s.plan.sound()
}

func tagged(key []byte, p Part, content []byte) Part {
	h := tagger(key, p)
	h.Write(content)
	p.Tag = tagText(h)
	return p
}

// segmentPart is the piece of a segment: the ranges that the catalog names, one
// behind the other.
func segmentPart(h *series.Held) Part {
	ranges := binary.BigEndian.AppendUint64(nil, uint64(h.Bytes))
	for _, r := range h.Ranges {
		ranges = binary.BigEndian.AppendUint64(ranges, uint64(r.At))
		ranges = binary.BigEndian.AppendUint64(ranges, uint64(r.Size))
	}
	return Part{Kind: KindSegment, ID: stateOf(h.Blob.String(), ranges), Size: h.Kept()}
}

// tallyMagic opens the piece of tallies: a word and the version. Of each stream
// follow assignment, stream, chunks in 4 bytes, readings in 8.
const (
	tallyMagic = "hftal\x00\x00\x01"
	tallySize  = 16 + 16 + 4 + 8
)

func appendTally(b []byte, t series.Tally) []byte {
	b = append(append(b, t.Assignment[:]...), t.Stream[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(t.Chunks))
	return binary.BigEndian.AppendUint64(b, uint64(t.Readings))
}

// use finds a backup under way and keeps it until done is called.
func (k *Keeper) use(id string) (s *session, done func(), err error) {
	k.mu.Lock()
	s = k.sessions[id]
	k.mu.Unlock()
	gone := holdfast.Errorf(holdfast.NotFound, "there is no such backup under way: it ended, or nothing was asked for it for %d minutes. Begin again; what is written already is not written again", idleFor/time.Minute)
	if s == nil {
		return nil, nil, gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil, nil, gone
	}
	s.users++
	return s, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.users--
		s.used = k.Now()
		if s.over && s.users == 0 {
			s.letGo()
		}
	}, nil
}

// close ends a session; its last user lets go of what it holds.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if s.over = true; s.users == 0 {
		s.letGo()
	}
}

func (s *session) letGo() {
	if s.release != nil {
		s.release()
	}
	if s.file != nil {
		s.file.Close()
		os.Remove(s.file.Name()) // what stays goes at the next start
	}
}

// Mine is NotFound for a backup under way that another credential has begun: what
// was looked at then is not looked at with each piece.
func (k *Keeper) Mine(id, by string) error {
	s, done, err := k.use(id)
	if err != nil {
		return err
	}
	defer done()
	if s.by != by {
		return holdfast.Errorf(holdfast.NotFound, "this credential has begun no such backup")
	}
	return nil
}

// End gives a backup up.
func (k *Keeper) End(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.sessions[id]; s != nil {
		delete(k.sessions, id)
		s.close()
	}
}

// Parts writes parts of a plan one behind the other: count of them from the n-th on.
func (k *Keeper) Parts(ctx context.Context, id string, n, count int, w io.Writer) error {
	s, done, err := k.use(id)
	if err != nil {
		return err
	}
	defer done()
	if n < 0 || count < 1 || n >= len(s.plan.Parts) || count > len(s.plan.Parts)-n {
		return holdfast.Errorf(holdfast.NotFound, "the backup has %d pieces", len(s.plan.Parts))
	}
	pages := len(s.plan.Parts) - 1 - len(s.held) // of the catalog
	for ; count > 0; n, count = n+1, count-1 {
		switch p := s.plan.Parts[n]; p.Kind {
		case KindCatalog:
			_, err = io.Copy(w, io.NewSectionReader(s.file, int64(n)*PieceSize, p.Size))
		case KindTally:
			_, err = w.Write(s.tally)
		default:
			err = k.writeSegment(ctx, w, s.held[n-pages])
		}
		if err != nil {
			return fmt.Errorf("write piece of backup: %w", err)
		}
	}
	return nil
}

// writeSegment writes what the catalog's copy names of a segment. What an erasure
// took in the meantime is zeros; a segment that is not there without an erasure is
// damage.
func (k *Keeper) writeSegment(ctx context.Context, w io.Writer, h *series.Held) error {
	buf := make([]byte, 256<<10)
	gone := false
	for _, r := range h.Ranges {
		for at, end := r.At, r.At+r.Size; at < end; {
			b := buf[:min(int64(len(buf)), end-at)]
			if gone {
				clear(b)
			} else if err := k.Blobs.ReadAt(ctx, h.Blob, b, at); holdfast.KindOf(err) == holdfast.NotFound {
				named, nerr := k.Series.Named(ctx, h.Blob)
				if nerr != nil || named {
					return errors.Join(holdfast.Errorf(holdfast.Internal, "segment %s is missing", h.Blob), nerr)
				}
				gone = true
				continue
			} else if err != nil {
				return err
			}
			if _, err := w.Write(b); err != nil {
				return err
			}
			at += int64(len(b))
		}
	}
	return nil
}

// Finish ends a backup all of whose pieces are where they belong, and returns the
// statement of it, signed.
func (k *Keeper) Finish(ctx context.Context, id string, d Done) ([]byte, error) {
	s, done, err := k.use(id)
	if err != nil {
		return nil, err
	}
	defer done()
	if len(d.List) != 2*sha256.Size || len(d.Recipients) == 0 || d.Written < 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "say what was written: list, written and recipients")
	}
	st := s.statement
	st.List, st.Written, st.Recipients, st.Ended = d.List, d.Written, d.Recipients, k.Now().UTC()
	text, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	signed, err := k.Ledger.Sign(statementHeader + "\n" + string(text) + "\n")
	if err != nil {
		return nil, fmt.Errorf("sign backup: %w", err)
	}
	raw, err := text32.DecodeString(id)
	if err != nil {
		return nil, err
	}
	err = k.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE backup SET ended = $1, written = $2 WHERE id = $3`, st.Ended.UnixNano(), d.Written, raw); err != nil {
			return err
		}
		// What was sealed again before is in it as it is now.
		if _, err := tx.ExecContext(ctx, `DELETE FROM backup_resealed WHERE at <= $1`, st.Began.UnixNano()); err != nil {
			return err
		}
		_, err := k.Ledger.Append(ctx, tx, vault.Hub, "backup ended", map[string]any{"backup": id, "bytes": st.Bytes, "list": st.List})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("record backup: %w", err)
	}
	k.End(id)
	k.mu.Lock()
	defer k.mu.Unlock()
	return signed, k.reload(ctx)
}
