package backup

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
	what := "the manifest of backup " + id
	file, err := os.Open(f.manifestPath(id))
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
	signed, err := io.ReadAll(io.LimitReader(plain, maxManifest))
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s is damaged: %w", what, err)
	}
	r := &Reader{f: f, ids: ids, Snapshot: id, Signed: signed}
	if r.Statement, err = ReadStatement(signed, trusted); err != nil {
		return nil, fmt.Errorf("open backup %s: %w", id, err)
	}
	entries, list, err := f.list(id)
	if err != nil {
		return nil, err
	}
	if listDigest(list) != r.Statement.List {
		return nil, holdfast.Errorf(holdfast.Invalid, "the list of pieces of backup %s is not the one that hub %s signed: it was altered, or is of another backup", id, r.Statement.Hub)
	}
	r.entries = entries
	return r, r.count()
}

// count compares the list with the statement.
func (r *Reader) count() error {
	var bytes, catalog int64
	kinds := map[string]int{}
	for _, e := range r.entries {
		bytes += e.Size
		kinds[e.Kind]++
		if e.Kind == KindCatalog {
			catalog += e.Size
		}
	}
	st := &r.Statement
	if len(r.entries) != st.Pieces || bytes != st.Bytes || catalog != st.CatalogBytes || kinds[KindSegment] != st.Segments || kinds[KindTally] != 1 {
		return holdfast.Errorf(holdfast.Invalid, "backup %s is not what its statement says", r.Snapshot)
	}
	return nil
}

// read gives the content of a piece, of which every bit is checked.
func (r *Reader) read(ctx context.Context, e Entry, to io.Writer) error {
	what := "piece " + e.File
	file, err := os.Open(r.f.piecePath(e.File))
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
	n, err := io.Copy(io.MultiWriter(to, tag), io.LimitReader(plain, e.Size+1))
	if err != nil && ctx.Err() == nil {
		if errors.Is(err, errWrite) {
			return err
		}
		return holdfast.Errorf(holdfast.Invalid, "%s is damaged: %w", what, err)
	}
	if err != nil {
		return ctx.Err()
	}
	if n != e.Size || !hmac.Equal([]byte(tagText(tag)), []byte(e.File[nameLength+1:])) {
		return holdfast.Errorf(holdfast.Invalid, "%s does not hold what it is named for: it was altered, or is of another hub", what)
	}
	return ctx.Err()
}

// errWrite marks errors of what a piece is written to.
var errWrite = errors.New("write")

// Checked is what a Check has read.
type Checked struct {
	Snapshot  string        `json:"snapshot"`
	Pieces    int           `json:"pieces"`
	Bytes     int64         `json:"bytes"`
	Bad       []string      `json:"bad,omitempty"` // what is wrong, piece by piece
	Took      time.Duration `json:"took_ns"`
	Statement Statement     `json:"statement"`
}

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
			c.Bad = append(c.Bad, err.Error())
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

// whole reads a small piece into memory.
func (r *Reader) whole(ctx context.Context, e Entry) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(e.Size, 64<<20)))
	err := r.read(ctx, e, &b)
	return b.Bytes(), err
}
