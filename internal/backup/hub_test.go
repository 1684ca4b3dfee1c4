package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// The keys of these tests. The age identity also opens testdata/folder1.
const (
	testHub      = "hubaaaaaaaaaaaaaaaaaaaaaaa"
	testSigner   = "PRIVATE+KEY+holdfast/hubaaaaaaaaaaaaaaaaaaaaaaa+bad64d1b+AZSu1X/gp0DEQs1165GVB2gykG5rUwdbpfHzDZOHkvRG"
	testVerifier = "holdfast/hubaaaaaaaaaaaaaaaaaaaaaaa+bad64d1b+AepwWwcIEPsWZ/cm+M5cRGl8MJD2XSZ0mWgPX02UR93z"
	testIdentity = "AGE-SECRET-KEY-1JEHEPK8G87R5PRJE5P9J40XYQZ4WGDAHNWJPG9KJR6QAAWQ7QNJS2N6DER"
)

var testKey = bytes.Repeat([]byte{7}, 32)

// hub is a source whose content a test says: each page of the catalog, each segment
// by what is named of it, and the streams.
type hub struct {
	t        testing.TB
	id       string
	pages    [][]byte
	segments []segment
	streams  []series.Tally
	run      int

	mu      sync.Mutex
	plan    Plan
	fetched []string                 // names of the parts that were asked for
	bend    func(*Plan)              // what a hostile hub makes of its plan
	alter   func(int, []byte) []byte // and of its parts
	step    func() error             // nil: nothing fails; else before what is asked
	forge   func(*Statement)
}

type segment struct {
	held    series.Held
	content []byte // what is named of it
}

func newHub(t testing.TB) *hub {
	h := &hub{t: t, id: testHub, pages: [][]byte{[]byte("page one of the catalog"), []byte("page two")}}
	for i := range 2 {
		h.grow(byte(i + 1))
	}
	return h
}

// grow adds a segment, and changes the last page of the catalog.
func (h *hub) grow(n byte) {
	h.pages[len(h.pages)-1] = fmt.Appendf(nil, "page two, %d", n)
	held := series.Held{Blob: holdfast.BlobID{n}, Bytes: 130, Ranges: []series.Range{{At: 0, Size: 8}, {At: 30, Size: 92}}}
	h.segments = append(h.segments, segment{held, append([]byte("hfseg\x00\x00\x01"), bytes.Repeat([]byte{'s', n}, 46)...)})
	h.streams = append(h.streams, series.Tally{Assignment: holdfast.AssignmentID{n}, Stream: holdfast.StreamID{n}, Chunks: 1, Readings: int64(n) * 10})
}

func (h *hub) part(n int) (Part, []byte) {
	if n < len(h.pages) {
		return tagged(testKey, Part{Kind: KindCatalog, Size: int64(len(h.pages[n]))}, h.pages[n]), h.pages[n]
	}
	if n -= len(h.pages); n < len(h.segments) {
		s := h.segments[n]
		return segmentPart(&s.held), s.content
	}
	tally := []byte(tallyMagic)
	for _, t := range h.streams {
		tally = appendTally(tally, t)
	}
	return tagged(testKey, Part{Kind: KindTally, Size: int64(len(tally))}, tally), tally
}

func (h *hub) fail() error {
	if h.step != nil {
		return h.step()
	}
	return nil
}

func (h *hub) Begin(context.Context, time.Duration) (Plan, error) {
	if err := h.fail(); err != nil {
		return Plan{}, err
	}
	h.run++
	id := sha256.Sum256([]byte{byte(h.run)})
	p := Plan{ID: text32.EncodeToString(id[:16]), Hub: h.id, Key: testKey, Began: time.Date(2026, 11, h.run, 2, 15, 0, 0, time.UTC)}
	for n := range len(h.pages) + len(h.segments) + 1 {
		part, _ := h.part(n)
		p.Parts = append(p.Parts, part)
	}
	h.plan, h.fetched = p, nil
	p.Parts = slices.Clone(p.Parts)
	if h.bend != nil {
		h.bend(&p)
	}
	return p, nil
}

func (h *hub) Parts(ctx context.Context, id string, n, count int, w io.Writer) error {
	for ; count > 0; n, count = n+1, count-1 {
		if err := h.fail(); err != nil {
			return err
		}
		part, content := h.part(n)
		if h.alter != nil {
			content = h.alter(n, content)
		}
		h.mu.Lock()
		h.fetched = append(h.fetched, name(testKey, h.to(), part))
		h.mu.Unlock()
		half := len(content) / 2
		if _, err := w.Write(content[:half]); err != nil {
			return err
		}
		if err := h.fail(); err != nil { // in the middle of a piece
			return err
		}
		if _, err := w.Write(content[half:]); err != nil {
			return err
		}
	}
	return nil
}

func (h *hub) to() []string { return recipients(h.t).Texts() }

func (h *hub) statement(d Done) Statement {
	st := Statement{Format: statementFormat, ID: h.plan.ID, Hub: h.id, Began: h.plan.Began, Ended: h.plan.Began.Add(time.Minute), Expires: h.plan.Began.Add(DefaultKeep),
		Program: "1.2.3", Catalog: 23, Ledger: "holdfast/" + testHub, Verifier: testVerifier, LedgerSize: 9, LedgerRoot: "root", TakeBacks: 4,
		Generation: 3, KeyringOwners: 5, Owners: vault.Needed{Owners: 4}, Keyring: keyringCopied, KeyringCopies: []string{"file:/mnt/usb"},
		Streams: len(h.streams), PieceSize: PieceSize, Segments: len(h.segments), Pieces: len(h.plan.Parts), Bytes: h.plan.Bytes(),
		Written: d.Written, List: d.List, Key: testKey, Recipients: d.Recipients}
	for _, t := range h.streams {
		st.Chunks += int64(t.Chunks)
		st.Readings += t.Readings
	}
	for _, p := range h.pages {
		st.CatalogBytes += int64(len(p))
	}
	return st
}

func (h *hub) Finish(ctx context.Context, id string, d Done) ([]byte, error) {
	if err := h.fail(); err != nil {
		return nil, err
	}
	st := h.statement(d)
	if h.forge != nil {
		h.forge(&st)
	}
	return sign(h.t, statementHeader, st), nil
}

func sign(t testing.TB, header string, st Statement) []byte {
	t.Helper()
	s, err := note.NewSigner(testSigner)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: header + "\n" + string(text) + "\n"}, s)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func identities(t testing.TB) []age.Identity {
	t.Helper()
	id, err := age.ParseX25519Identity(testIdentity)
	if err != nil {
		t.Fatal(err)
	}
	return []age.Identity{id}
}

func recipients(t testing.TB) Recipients {
	t.Helper()
	r, err := ParseRecipients([]string{identities(t)[0].(*age.X25519Identity).Recipient().String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newDir(t testing.TB) string { return filepath.Join(t.TempDir(), "backups") }

func takeInto(t testing.TB, h *hub, dir string) (Report, error) {
	t.Helper()
	f, err := OpenFolder(dir)
	if err != nil {
		return Report{}, err
	}
	defer f.Close()
	return Take(t.Context(), h, f, recipients(t), TakeOptions{})
}

func mustTake(t testing.TB, h *hub, dir string) Report {
	t.Helper()
	r, err := takeInto(t, h, dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkAll reads every backup of a folder and returns what is wrong.
func checkAll(t testing.TB, dir string) (snapshots []string, bad []string) {
	t.Helper()
	f, err := ReadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := f.Snapshots()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		snapshots = append(snapshots, s.ID)
		r, err := f.Open(s.ID, identities(t), testVerifier)
		if err != nil {
			bad = append(bad, s.ID+": "+err.Error())
			continue
		}
		c, err := r.Check(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range c.Bad {
			bad = append(bad, s.ID+": "+b)
		}
	}
	return snapshots, bad
}

// piecesIn returns the names, without tags, of what lies in a folder, and how many
// files are half written.
func piecesIn(t testing.TB, dir string) (names []string, half int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := filepath.Glob(filepath.Join(dir, piecesDir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(files, inner...) {
		base := filepath.Base(path)
		switch {
		case strings.HasSuffix(base, tempSuffix):
			half++
		case isPieceName(strings.TrimSuffix(base, pieceSuffix)):
			names = append(names, base[:nameLength])
		}
	}
	return names, half
}
