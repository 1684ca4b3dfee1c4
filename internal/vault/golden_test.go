package vault

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/cryptotest"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

var update = flag.Bool("update", false, "write testdata anew: the format on disk has changed")

const (
	goldenDir        = "testdata/keyring"
	goldenPassphrase = "correct horse battery staple"
)

// goldenOwners are the owners in the golden page; what stands for them is the
// name that it opens to.
var goldenOwners = []Owner{Hub, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, {0xff}}

// golden is a whole keyring as docs/format/keyring.md describes it.
type golden struct {
	root, protected *FileHolder
	ring            *keyring
	owners          map[Owner]seal.Key
	list            *keyList
	listBox         []byte
}

// makeGolden writes a keyring into dir under fixed randomness: root key files
// with and without a passphrase, a head of generation 7 that both open, a page
// of three owners; and a key list of the second.
func makeGolden(t *testing.T, dir string) golden {
	t.Helper()
	cryptotest.SetGlobalRandom(t, 1)
	g := golden{owners: map[Owner]seal.Key{}}
	var err error
	if g.root, err = CreateFileHolder(filepath.Join(dir, "root.key"), nil); err != nil {
		t.Fatal(err)
	}
	if g.protected, err = CreateFileHolder(filepath.Join(dir, "root-passphrase.key"), []byte(goldenPassphrase)); err != nil {
		t.Fatal(err)
	}
	g.ring = &keyring{generation: 7, at: map[Owner]slot{}}
	rand.Read(g.ring.id[:])
	if err := g.ring.seal(t.Context(), []Holder{g.root, renamed{g.protected}}); err != nil {
		t.Fatal(err)
	}
	place := Dir(dir)
	if err := g.ring.writeHead(place); err != nil {
		t.Fatal(err)
	}
	for _, o := range goldenOwners {
		grown, err := g.ring.add(place, []Owner{o})
		if err != nil {
			t.Fatal(err)
		}
		g.ring.enter(grown)
		g.owners[o] = grown.keys[0]
	}
	o := goldenOwners[1]
	g.list = &keyList{owner: o, bucket: 202611}
	g.list.ensure(entryJournal, holdfast.StreamID{})
	g.list.ensure(entryStream, holdfast.StreamID{0xa1})
	g.list.ensure(entryStream, holdfast.StreamID{0xb2})
	row, err := wrapList(g.list, seal.NewCipher(g.owners[o]))
	if err != nil {
		t.Fatal(err)
	}
	g.listBox = row.box
	return g
}

// renamed gives the second file holder a name of its own: the head keeps a box
// for each.
type renamed struct{ *FileHolder }

func (renamed) Name() string { return "file with a passphrase" }

// plain is the list as it is sealed.
func (l *keyList) plain() []byte {
	b, err := l.encode()
	if err != nil {
		panic(err)
	}
	return b
}

func (g golden) listText() string {
	return fmt.Sprintf("plain\n%x\nsealed\n%x\n", g.list.plain(), g.listBox)
}

// copyGolden copies the golden keyring to a folder of which nobody else may read
// the files: git does not keep that.
func copyGolden(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(goldenDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(goldenDir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestGoldenKeyring(t *testing.T) {
	dir := t.TempDir()
	g := makeGolden(t, dir)
	if *update {
		if err := errors.Join(os.RemoveAll(goldenDir), os.MkdirAll(goldenDir, 0o755), os.CopyFS(goldenDir, os.DirFS(dir)),
			os.WriteFile("testdata/list.hex", []byte(g.listText()), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := files(goldenDir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := files(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the keyring is written differently than testdata and docs/format/keyring.md say: %s", diff)
	}
	list, err := os.ReadFile("testdata/list.hex")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(list), g.listText()); diff != "" {
		t.Errorf("a key list is written differently: %s", diff)
	}
}

func files(dir string) (map[string]string, error) {
	out := map[string]string{}
	return out, fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		if text := string(b); strings.HasSuffix(path, ".key") {
			out[path] = text
		} else {
			out[path] = hex.Dump(b)
		}
		return err
	})
}

// What is in testdata opens, from either holder, to the keys that were put in.
func TestGoldenKeyringOpens(t *testing.T) {
	want := makeGolden(t, t.TempDir())
	dir := copyGolden(t)
	root, err := OpenFileHolder(filepath.Join(dir, "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	protected, err := OpenFileHolder(filepath.Join(dir, "root-passphrase.key"), []byte(goldenPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	heads, err := readHeads(Dir(dir))
	if err != nil || len(heads) != 1 || heads[0].generation != 7 {
		t.Fatalf("heads %v, %v", heads, err)
	}
	for _, holder := range []Holder{root, renamed{protected}} {
		ring, err := openRing(t.Context(), Dir(dir), heads[0], []Holder{holder})
		if err != nil {
			t.Fatalf("%s: %v", holder.Name(), err)
		}
		if len(ring.at) != len(goldenOwners) {
			t.Errorf("%s: %d owners", holder.Name(), len(ring.at))
		}
		for o, k := range want.owners {
			if got, err := ring.key(Dir(dir), o); err != nil || got.ID() != k.ID() {
				t.Errorf("%s: the key of %s: %v", holder.Name(), o, err)
			}
		}
	}
	if _, err := OpenFileHolder(filepath.Join(dir, "root-passphrase.key"), []byte("another")); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("with a wrong passphrase: %v", err)
	}
	text, err := os.ReadFile("testdata/list.hex")
	if err != nil {
		t.Fatal(err)
	}
	box, err := hex.DecodeString(strings.Split(string(text), "\n")[3])
	if err != nil {
		t.Fatal(err)
	}
	l := &keyList{owner: goldenOwners[1], bucket: 202611}
	if err := l.open(box, seal.NewCipher(want.owners[goldenOwners[1]])); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(l.plain(), want.list.plain()) {
		t.Error("the golden list opens to other keys")
	}
}

// Every byte of a head and of an entry counts.
func TestGoldenKeyringAltered(t *testing.T) {
	dir := copyGolden(t)
	root, err := OpenFileHolder(filepath.Join(dir, "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, headName(7))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := range b {
		bad := bytes.Clone(b)
		bad[at] ^= 1
		h, err := parseHead(bad)
		if err == nil {
			_, err = openRing(t.Context(), Dir(dir), h, []Holder{root})
		}
		if err == nil {
			t.Errorf("a head with byte %d altered opens", at)
		}
	}
}

// onePage is a place with a single page in it.
type onePage struct {
	Place
	data []byte
}

func (p onePage) Read(string) ([]byte, error) { return p.data, nil }

func FuzzPage(f *testing.F) {
	names, err := filepath.Glob(goldenDir + "/page-*")
	if err != nil || len(names) != 1 {
		f.Fatalf("%d golden pages: %v", len(names), err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		f.Fatal(err)
	}
	var ringID, pageID [16]byte
	copy(ringID[:], b[5:])
	copy(pageID[:], b[21:])
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(b[:pageHeaderSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &page{id: pageID}
		r := &keyring{id: ringID, at: map[Owner]slot{}}
		if err := r.readPage(onePage{data: b}, p, true); err != nil {
			return
		}
		// What was read is what the file begins with; what can't be read comes behind.
		end := int(entryOffset(p.entries))
		if end > len(b) || p.torn >= 0 && p.torn != end {
			t.Errorf("%d entries of %d bytes, torn at %d", p.entries, len(b), p.torn)
		}
		for o, at := range r.at {
			if e, ok := parseEntry(b[at.offset():]); !ok || e.owner != o {
				t.Errorf("owner %s is not where its slot says", o)
			}
		}
	})
}

func FuzzList(f *testing.F) {
	text, err := os.ReadFile("testdata/list.hex")
	if err != nil {
		f.Fatal(err)
	}
	plain, err := hex.DecodeString(strings.Split(string(text), "\n")[1])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte{listVersion, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l keyList
		if err := l.decode(b); err != nil {
			if len(l.keys) > 0 {
				t.Error("a refused list left keys")
			}
			return
		}
		if !bytes.Equal(l.plain(), b) {
			t.Error("a list is written back with other bytes")
		}
	})
}
