package ledger

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

func add(t *testing.T, l *Ledger, all ...TakeBack) {
	t.Helper()
	if err := l.db.Write(t.Context(), func(tx *sql.Tx) error { return AddTakeBacks(t.Context(), tx, all...) }); err != nil {
		t.Fatal(err)
	}
}

func files(t testing.TB, l *Ledger, generation uint64) map[string][]byte {
	t.Helper()
	if err := l.SignTakeBacks(t.Context(), generation); err != nil {
		t.Fatal(err)
	}
	sums, err := l.TakeBackFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for name := range sums {
		if out[name], err = l.TakeBackFile(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func many(n int) (out []TakeBack) {
	for range n {
		out = append(out, TakeBack{Kind: GrantEnded, ID: holdfast.NewID[TakenID]()})
	}
	return out
}

// forget takes the take-backs after a number out of the catalog: an older state.
func forget(t testing.TB, l *Ledger, after uint64) {
	t.Helper()
	err := l.db.Write(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.Exec(`DELETE FROM take_back WHERE number > $1`, int64(after)); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM take_back_batch`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTakeBacksComeBackFromACopy(t *testing.T) {
	l := open(t).Ledger
	add(t, l, many(3)...)
	files(t, l, 1)
	add(t, l, many(batchSize+7)...)
	copied := files(t, l, 4)
	if len(copied) != 2 {
		t.Fatalf("%d batches, want 2", len(copied))
	}
	forget(t, l, 5)
	got, err := l.ReadTakeBacks(t.Context(), copied, 4)
	if err != nil {
		t.Fatal(err)
	}
	if got.Short != "" || got.Last != batchSize+10 || len(got.Fresh) != batchSize+5 || got.Fresh[0].Number != 6 || got.Generation != 4 {
		t.Fatalf("read %d take-backs up to %d of generation %d, short %q", len(got.Fresh), got.Last, got.Generation, got.Short)
	}
	if later, err := l.ReadTakeBacks(t.Context(), copied, 5); err != nil || later.Short == "" {
		t.Fatalf("a keyring of a later generation: short %q, %v; want a reason", later.Short, err)
	}
	if err := l.KeepTakeBacks(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(copied, files(t, l, 4)); diff != "" {
		t.Errorf("batches that were kept are others (-copied +kept):\n%s", diff)
	}
	add(t, l, many(1)...)
	again, err := l.ReadTakeBacks(t.Context(), files(t, l, 4), 4)
	if err != nil || again.Last != batchSize+11 || len(again.Fresh) != 0 {
		t.Errorf("after one more: up to %d, %d fresh, %v", again.Last, len(again.Fresh), err)
	}
}

// A batch of long take-backs ends before it is too long to be read.
func TestLongTakeBacksAreInMoreBatches(t *testing.T) {
	l := open(t).Ledger
	long := TakeBack{Kind: GrantEnded, ID: holdfast.NewID[TakenID](), Box: make([]byte, batchBytes/4)} // a third of a batch, in base64
	add(t, l, long, long, long, long, long)
	copied := files(t, l, 1)
	if len(copied) != 2 {
		t.Errorf("%d batches of five take-backs of %d bytes", len(copied), len(long.Box))
	}
	for name, b := range copied {
		if len(b) > 2*batchBytes {
			t.Errorf("%s has %d bytes", name, len(b))
		}
	}
	add(t, l, long)
	copied = files(t, l, 1)
	forget(t, l, 0)
	got, err := l.ReadTakeBacks(t.Context(), copied, 1)
	if err != nil || got.Last != 6 || len(got.Fresh) != 6 || got.Short != "" {
		t.Errorf("read up to %d, %d fresh: %q, %v", got.Last, len(got.Fresh), got.Short, err)
	}
}

func TestTakeBacksOfARenewedName(t *testing.T) {
	l := open(t).Ledger
	add(t, l, many(2)...)
	files(t, l, 1)
	old := *l.current()
	var box []byte
	if err := l.db.Read(t.Context(), func(tx *sql.Tx) error { return tx.QueryRow(`SELECT seed_sealed FROM ledger_origin`).Scan(&box) }); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Renew(t.Context(), &keptInMemory{}); err != nil {
		t.Fatal(err)
	}
	add(t, l, many(2)...)
	copied := files(t, l, 2)
	// The catalog that is put back knows nothing of the new name.
	forget(t, l, 1)
	if err := l.db.Write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(`DELETE FROM ledger_origin WHERE n > 1`); return err }); err != nil {
		t.Fatal(err)
	}
	l.become(old)
	got, err := l.ReadTakeBacks(t.Context(), copied, 2)
	if err != nil || got.Last != 5 || len(got.Fresh) != 4 || got.Fresh[1].Kind != OriginRenewed {
		t.Fatalf("read up to %d, %d fresh, %v", got.Last, len(got.Fresh), err)
	}
}

func TestAlteredTakeBacksAreRefused(t *testing.T) {
	l := open(t).Ledger
	add(t, l, many(2*batchSize+1)...)
	whole := files(t, l, 1)
	forget(t, l, 2)
	first, second := batchName(1), batchName(batchSize+1)
	for name, alter := range map[string]func(map[string][]byte){
		"a byte":         func(m map[string][]byte) { m[first] = append([]byte{}, m[first]...); m[first][300] ^= 1 },
		"a gap":          func(m map[string][]byte) { delete(m, second) },
		"another's name": func(m map[string][]byte) { m[first] = m[second] },
		"a line less": func(m map[string][]byte) {
			text := string(m[first])
			end := strings.Index(text, "\n\n")
			cut := strings.LastIndex(text[:end], "\n")
			m[first] = []byte(text[:cut] + text[end:])
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := map[string][]byte{}
			for k, v := range whole {
				m[k] = v
			}
			alter(m)
			if _, err := l.ReadTakeBacks(t.Context(), m, 1); holdfast.KindOf(err) != holdfast.Invalid {
				t.Errorf("read: %v, want Invalid", err)
			}
		})
	}
	t.Run("the tail", func(t *testing.T) {
		forget(t, l, 1)
		got, err := l.ReadTakeBacks(t.Context(), map[string][]byte{first: whole[first]}, 1)
		if err != nil || got.Last != batchSize {
			t.Errorf("a cut tail: up to %d, %v", got.Last, err)
		}
	})
	t.Run("another history", func(t *testing.T) {
		other := open(t).Ledger
		add(t, other, many(3)...)
		if _, err := l.ReadTakeBacks(t.Context(), files(t, other, 1), 1); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("another hub's: %v, want Invalid", err)
		}
		add(t, l, many(2)...)
		if _, err := l.ReadTakeBacks(t.Context(), whole, 1); holdfast.KindOf(err) != holdfast.Conflict {
			t.Errorf("another history: %v, want Conflict", err)
		}
	})
}

const (
	goldenBatch    = "testdata/takebacks-00000000000000000001"
	goldenBatchKey = "testdata/takebacks-verifier.txt"
)

func TestGoldenTakeBacks(t *testing.T) {
	if *update {
		l := open(t).Ledger
		add(t, l, TakeBack{Kind: GrantEnded, ID: holdfast.NewID[TakenID](), Box: []byte("a box")}, TakeBack{Kind: RecoveryUsed, ID: holdfast.NewID[TakenID](), Hash: []byte("a hash")})
		for name, b := range files(t, l, 3) {
			if err := errors.Join(os.WriteFile(filepath.Join("testdata", name), b, 0o644), os.WriteFile(goldenBatchKey, []byte(l.VerifierKey()+"\n"), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	signed, err := os.ReadFile(goldenBatch)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(goldenBatchKey)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseTakeBacks(signed, strings.TrimSpace(string(key)))
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.TakeBacks()
	if err != nil || len(all) != 2 || all[0].Kind != GrantEnded || string(all[0].Box) != "a box" || string(all[1].Hash) != "a hash" || b.Generation != 3 {
		t.Errorf("the golden batch reads as %+v of generation %d, %v", all, b.Generation, err)
	}
}

func TestTakeBackKindsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/format/takeback.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range TakeBackKinds() {
		if !strings.Contains(string(page), "`"+string(k)+"`") {
			t.Errorf("docs/format/takeback.md lacks %s", k)
		}
	}
}

func FuzzParseTakeBacks(f *testing.F) {
	b := TakeBackBatch{Origin: "example.org/log", First: 3, Last: 2, Generation: 9}
	f.Add(b.text())
	b.Last, b.lines = 4, []string{`{"n":3,"kind":"grant.ended"}`, `{"n":4,"kind":"grant.ended"}`}
	f.Add(b.text())
	f.Fuzz(func(t *testing.T, text string) {
		b, err := readBatch(text)
		if err != nil {
			return
		}
		if b.text() != text {
			t.Errorf("%q reads as another text", text)
		}
		b.TakeBacks()
	})
}

type keptInMemory struct{ k Kept }

func (m *keptInMemory) Load() (Kept, error) { return m.k, nil }
func (m *keptInMemory) Save(k Kept) error   { m.k = k; return nil }
