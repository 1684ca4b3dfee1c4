package backup

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
)

// Reader reads one backup of a folder.
type Reader struct {
	f         *Folder
	ids       []age.Identity
	Snapshot  string
	Statement Statement
	Signed    []byte // the statement's note
	entries   []Entry
}

// maxManifest bounds what is read of a manifest.
const maxManifest = 16 << 20

// Open opens a backup, the newest if id is "". trusted is the hub's verifier key, if
// the reader knows it. Its pieces are not read yet.
func (f *Folder) Open(id string, ids []age.Identity, trusted string) (*Reader, error) {
	if id == "" {
		all, err := f.Snapshots()
		if err != nil {
			return nil, err
		}
		if len(all) == 0 {
			return nil, holdfast.Errorf(holdfast.NotFound, "there is no whole backup in %s", f.dir)
		}
		id = all[0].ID
	}
	if _, ok := snapshotAt(id); !ok {
		return nil, holdfast.Errorf(holdfast.NotFound, "%q is not what a backup is called: holdfast backup list tells", id)
	}
	what := "the manifest of backup " + id
	file, err := readable(f.disk, manifestPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no backup %s in %s", id, f.dir)
	} else if err != nil {
		return nil, failure("read backup", err)
	}
	defer file.Close()
	plain, err := unseal(file, what, ids)
	if err != nil {
		return nil, err
	}
	signed, err := io.ReadAll(io.LimitReader(plain, maxManifest+1))
	if err == nil && len(signed) > maxManifest {
		err = holdfast.Errorf(holdfast.TooLarge, "it has more than %d bytes", maxManifest)
	}
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s is damaged: %w", what, err)
	}
	r := &Reader{f: f, ids: ids, Snapshot: id, Signed: signed}
	if r.Statement, err = ReadStatement(signed, trusted); err != nil {
		return nil, fmt.Errorf("open backup %s: %w", id, err)
	}
	if err := r.belongs(); err != nil {
		return nil, err
	}
	digest, err := f.eachEntry(id, func(e Entry) error {
		r.entries = append(r.entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if digest != r.Statement.List {
		return nil, holdfast.Errorf(holdfast.Invalid, "the list of pieces of backup %s is not the one that hub %s signed: it was altered, or is of another backup", id, r.Statement.Hub)
	}
	return r, r.count()
}

// belongs refuses a manifest that lies under another name, as an old one that is to
// pass for a new one, or in the folder of another hub.
func (r *Reader) belongs() error {
	st := &r.Statement
	if len(st.ID) != nameLength || !is32(st.ID) || snapshotID(st.Began, st.ID) != r.Snapshot {
		return holdfast.Errorf(holdfast.Invalid, "the manifest of backup %s is of another backup: it was renamed", r.Snapshot)
	}
	hub, err := r.f.hub()
	if err != nil {
		return err
	}
	if hub != "" && hub != st.Hub {
		return holdfast.Errorf(holdfast.Conflict, "backup %s is of hub %.64q, %s is the folder of hub %s: it was put together from two. Move what is not of that hub to a folder of its own", r.Snapshot, st.Hub, r.f.dir, hub)
	}
	return nil
}

// count compares the list with the statement.
func (r *Reader) count() error {
	var bytes, catalog, tally int64
	kinds := map[string]int{}
	for _, e := range r.entries {
		bytes += e.Size
		kinds[e.Kind]++
		switch e.Kind {
		case KindCatalog:
			catalog += e.Size
		case KindTally:
			tally += e.Size
		}
	}
	st := &r.Statement
	if len(r.entries) != st.Pieces || bytes != st.Bytes || catalog != st.CatalogBytes || kinds[KindSegment] != st.Segments ||
		tally != int64(len(tallyMagic))+tallySize*int64(st.Streams) {
		return holdfast.Errorf(holdfast.Invalid, "backup %s is not what its statement says", r.Snapshot)
	}
	return nil
}

// read gives the content of a piece, of which every bit is checked.
func (r *Reader) read(ctx context.Context, e Entry, to io.Writer) error {
	what := "piece " + e.File
	file, err := readable(r.f.disk, piecePath(e.File))
	if errors.Is(err, fs.ErrNotExist) {
		return holdfast.Errorf(holdfast.Invalid, "%s is missing from %s: the backup is not whole. Take another one; older ones may be whole", what, r.f.dir)
	} else if err != nil {
		return failure("read backup", err)
	}
	defer file.Close()
	plain, err := unseal(file, what, r.ids)
	if err != nil {
		return err
	}
	tag := tagger(r.Statement.Key, Part{Kind: e.Kind, ID: e.ID})
	out := &outcome{to: io.MultiWriter(to, tag)}
	n, err := io.Copy(out, io.LimitReader(plain, e.Size+1))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case out.err != nil && holdfast.KindOf(out.err) != holdfast.Internal:
		return fmt.Errorf("%s: %w", what, out.err)
	case out.err != nil:
		return failure("write what a backup holds", out.err)
	case err != nil:
		return holdfast.Errorf(holdfast.Invalid, "%s is damaged: %w", what, err)
	}
	if n != e.Size || !hmac.Equal([]byte(tagText(tag)), []byte(e.File[nameLength+1:])) {
		return holdfast.Errorf(holdfast.Invalid, "%s does not hold what it is named for: it was altered, or is of another hub", what)
	}
	return ctx.Err()
}

// outcome tells errors of what a piece is written to from those of the piece.
type outcome struct {
	to  io.Writer
	err error
}

func (o *outcome) Write(p []byte) (n int, err error) {
	n, o.err = o.to.Write(p)
	return n, o.err
}

// Checked is what a Check has read.
type Checked struct {
	Snapshot  string        `json:"snapshot"`
	Pieces    int           `json:"pieces"`
	Bytes     int64         `json:"bytes"`
	BadPieces int           `json:"bad_pieces"`
	Bad       []string      `json:"bad,omitempty"` // what is wrong with the first of them
	Took      time.Duration `json:"took_ns"`
	Statement Statement     `json:"statement"`
}

// mostBad is how many pieces are told what is wrong with.
const mostBad = 100

// Check reads every piece and compares it with its tag. What is wrong with pieces
// stands in Bad; the error is for what keeps it from going on.
func (r *Reader) Check(ctx context.Context, progress func(Progress)) (c Checked, err error) {
	began := time.Now()
	c = Checked{Snapshot: r.Snapshot, Statement: r.Statement}
	for _, e := range r.entries {
		err := r.read(ctx, e, io.Discard)
		if ctx.Err() != nil {
			return c, ctx.Err()
		}
		if err != nil {
			c.BadPieces++
			c.Bad = append(c.Bad, err.Error())[:min(len(c.Bad)+1, mostBad)]
		}
		c.Pieces++
		c.Bytes += e.Size
		if progress != nil {
			progress(Progress{Pieces: c.Pieces, Of: len(r.entries), Bytes: c.Bytes, Total: r.Statement.Bytes})
		}
	}
	c.Took = time.Since(began)
	return c, nil
}
