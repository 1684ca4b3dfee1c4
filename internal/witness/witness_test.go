package witness

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
)

// memory is a Memory that can be out of order.
type memory struct {
	of     map[string][]byte
	broken bool
}

func (m *memory) Last(origin string) ([]byte, error) { return m.of[origin], nil }

func (m *memory) Remember(origin string, signed []byte) error {
	if m.broken {
		return fmt.Errorf("disk full")
	}
	m.of[origin] = signed
	return nil
}

// log is a small log of numbered leaves; two with another seed differ.
type log struct {
	t      *testing.T
	signer note.Signer
	key    string
	hashes []tlog.Hash
}

func newLog(t *testing.T, name string) *log {
	t.Helper()
	secret, key, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return &log{t: t, signer: signer, key: key}
}

func (l *log) ReadHashes(at []int64) (out []tlog.Hash, err error) {
	for _, i := range at {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

// grow gives the log other leaves, of a kind, and forgets the old ones.
func (l *log) grow(kind string, leaves int64) {
	l.hashes = nil
	for n := range leaves {
		add, err := tlog.StoredHashes(n, fmt.Appendf(nil, "%s %d", kind, n), l)
		if err != nil {
			l.t.Fatal(err)
		}
		l.hashes = append(l.hashes, add...)
	}
}

// show makes the request for a checkpoint of so many leaves.
func (l *log) show(from, to int64) checkpoint.Consistency {
	l.t.Helper()
	root, err := tlog.TreeHash(to, l)
	if err != nil {
		l.t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: checkpoint.Text(l.signer.Name(), uint64(to), root)}, l.signer)
	if err != nil {
		l.t.Fatal(err)
	}
	c := checkpoint.Consistency{Old: uint64(from), Note: signed}
	if from > 0 && from < to {
		if c.Hashes, err = tlog.ProveTree(to, from, l); err != nil {
			l.t.Fatal(err)
		}
	}
	return c
}

func run(t *testing.T, m Memory, logs ...string) *Client {
	t.Helper()
	secret, verifier, err := checkpoint.NewCosigner("witness.example/w")
	if err != nil {
		t.Fatal(err)
	}
	key, err := checkpoint.ParseCosigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(key, logs, m)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	c, err := ParseClient(srv.URL + " " + verifier)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A witness cosigns what only grew, says where it is when it is asked from elsewhere,
// and never cosigns another tree.
func TestWitnessCosignsWhatOnlyGrew(t *testing.T) {
	l := newLog(t, "log.example")
	l.grow("leaf", 40)
	m := &memory{of: map[string][]byte{}}
	c := run(t, m, l.key)
	ask := func(p checkpoint.Consistency) error { _, err := c.Ask(t.Context(), p); return err }

	for _, step := range [][2]int64{{0, 5}, {5, 5}, {5, 16}, {16, 33}} {
		line, err := c.Ask(t.Context(), l.show(step[0], step[1]))
		if err != nil || !strings.HasPrefix(line.Line, "— witness.example/w ") || line.At.IsZero() {
			t.Fatalf("%v: %v, %v", step, line, err)
		}
	}
	if size, ok := AsBehind(ask(l.show(5, 40))); !ok || size != 33 {
		t.Errorf("asked from elsewhere: %d, %v", size, ok)
	}
	if size, ok := AsBehind(ask(l.show(0, 20))); !ok || size != 33 {
		t.Errorf("an older tree: %d, %v", size, ok)
	}
	bad := l.show(33, 40)
	bad.Hashes[0][0] ^= 1
	if err := ask(bad); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a proof that does not verify: %v", err)
	}
	l.grow("other", 40)
	if err := ask(l.show(33, 40)); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("another tree: %v", err)
	}
	if size, ok := AsBehind(ask(l.show(33, 33))); !ok || size != 33 {
		t.Errorf("another tree of the same size: %d, %v", size, ok)
	}
	l.grow("leaf", 40)
	m.broken = true
	if err := ask(l.show(33, 40)); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("cosigned without remembering: %v", err)
	}
	m.broken = false
	if err := ask(l.show(33, 40)); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func TestWitnessRefusesStrangers(t *testing.T) {
	l, stranger, imposter := newLog(t, "log.example"), newLog(t, "stranger.example"), newLog(t, "log.example")
	for _, x := range []*log{l, stranger, imposter} {
		x.grow("leaf", 9)
	}
	c := run(t, &memory{of: map[string][]byte{}}, l.key)
	for _, x := range []*log{stranger, imposter} {
		if _, err := c.Ask(t.Context(), x.show(0, 9)); holdfast.KindOf(err) != holdfast.Denied {
			t.Errorf("%s: %v", x.signer.Name(), err)
		}
	}
	larger := l.show(0, 5)
	larger.Old = 7
	if _, err := c.Ask(t.Context(), larger); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("an old size above the new one: %v", err)
	}
	for _, body := range []string{"", "old 0\n", "old 00\n\nx", "old -1\n\n", "old 3\nnot base64\n\n"} {
		r, err := http.Post(c.url, "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusBadRequest {
			t.Errorf("%q is answered with %d", body, r.StatusCode)
		}
	}
}

// A witness that signs with another key, or something else, is not believed.
func TestForgedCosignatureIsNotTaken(t *testing.T) {
	l := newLog(t, "log.example")
	l.grow("leaf", 9)
	honest := run(t, &memory{of: map[string][]byte{}}, l.key)
	forger := run(t, &memory{of: map[string][]byte{}}, l.key)
	forger.Key = honest.Key
	if _, err := forger.Ask(t.Context(), l.show(0, 9)); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("%v", err)
	}
}
