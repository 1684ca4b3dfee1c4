package checkpoint

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
)

// proofs are of growth from one size to another.
var proofs = []struct {
	from, to int
	hashes   []string
}{
	{1, 1, nil},
	{8, 8, nil},
	{1, 8, []string{"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7", "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e", "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}},
	{2, 5, []string{"5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e", "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}},
	{3, 7, []string{"0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7", "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125", "837dbb152e9b079010717e84e865da4ebc0fa198a806d59d31bf15accef22d0e"}},
	{4, 8, []string{"6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}},
	{6, 8, []string{"0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a", "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
}

func TestGrown(t *testing.T) {
	for _, p := range proofs {
		var hashes []tlog.Hash
		for _, h := range p.hashes {
			hashes = append(hashes, hash(t, h))
		}
		name := fmt.Sprintf("%d to %d", p.from, p.to)
		from, to := root(t, p.from), root(t, p.to)
		grown := func(hashes []tlog.Hash, a int, ra tlog.Hash, b int, rb tlog.Hash) error {
			return Grown(hashes, uint64(a), ra, uint64(b), rb)
		}
		if err := grown(hashes, p.from, from, p.to, to); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i := range hashes {
			bad := append([]tlog.Hash(nil), hashes...)
			bad[i][31] ^= 1
			refused(t, name+", a bit of a hash", grown(bad, p.from, from, p.to, to))
			refused(t, name+", a hash fewer", grown(append(append([]tlog.Hash(nil), hashes[:i]...), hashes[i+1:]...), p.from, from, p.to, to))
		}
		refused(t, name+", a hash more", grown(append(hashes[:len(hashes):len(hashes)], from), p.from, from, p.to, to))
		other := from
		other[0] ^= 1
		refused(t, name+", another old root", grown(hashes, p.from, other, p.to, to))
		other = to
		other[0] ^= 1
		refused(t, name+", another new root", grown(hashes, p.from, from, p.to, other))
		if p.from < p.to {
			refused(t, name+", backwards", grown(hashes, p.to, to, p.from, from))
		}
	}
	// The empty tree is the beginning of every tree, without a proof.
	empty, err := tlog.TreeHash(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Grown(nil, 0, empty, 8, root(t, 8)); err != nil {
		t.Error(err)
	}
	refused(t, "hashes for nothing", Grown([]tlog.Hash{empty}, 0, empty, 8, root(t, 8)))
	refused(t, "two empty trees", Grown(nil, 0, empty, 0, root(t, 8)))
	refused(t, "a hash for the largest tree", Grown([]tlog.Hash{empty}, 1, root(t, 1), MaxSize, root(t, 8)))
	refused(t, "more leaves than any tree has", Grown([]tlog.Hash{empty}, 1, root(t, 1), MaxSize+1, root(t, 8)))
}

func TestConsistencyText(t *testing.T) {
	text := golden(t, "6-8.growth")
	var c Consistency
	if err := c.UnmarshalText(text); err != nil {
		t.Fatal(err)
	}
	to, err := Parse(c.Note, key(t, "log.key"))
	if err != nil || c.Old != 6 || len(c.Hashes) != 3 || !IsConsistency(text) {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := Grown(c.Hashes, c.Old, root(t, 6), to.Size, to.Root); err != nil {
		t.Error(err)
	}
	again, err := c.MarshalText()
	if err != nil || !bytes.Equal(again, text) {
		t.Errorf("it is written as\n%s\nnot\n%s", again, text)
	}
	h := root(t, 1).String()
	for name, bad := range map[string]string{
		"nothing":            "",
		"no empty line":      "old 6\n" + h + "\n",
		"no size":            "old \n\nx",
		"not a size":         "old six\n\nx",
		"negative":           "old -6\n\nx",
		"leading zero":       "old 06\n\nx",
		"more than 63 bits":  "old 9223372036854775808\n\nx",
		"another word":       "from 6\n\nx",
		"a carriage return":  "old 6\r\n\nx",
		"not a hash":         "old 6\nx\n\nx",
		"a short hash":       "old 6\n" + h[:40] + "\n\nx",
		"a hash and a space": "old 6\n" + h + " \n\nx",
		"64 hashes":          "old 6\n" + strings.Repeat(h+"\n", 64) + "\nx",
		"a checkpoint":       string(golden(t, "8.checkpoint")),
	} {
		kept := c
		refused(t, name, c.UnmarshalText([]byte(bad)))
		if diff := cmp.Diff(kept, c); diff != "" {
			t.Errorf("%s: what was refused left its traces: %s", name, diff)
		}
		c = kept
	}
	if err := c.UnmarshalText([]byte("old 6\n" + strings.Repeat(h+"\n", 63) + "\nx")); err != nil {
		t.Error("63 hashes:", err)
	}
}

func FuzzConsistency(f *testing.F) {
	f.Add(golden(f, "6-8.growth"))
	f.Add([]byte("old 0\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Consistency
		if c.UnmarshalText(b) != nil {
			return
		}
		text, err := c.MarshalText()
		var again Consistency // base64 has several words for some hashes: the text may differ
		if err != nil || again.UnmarshalText(text) != nil || !cmp.Equal(c, again) || len(c.Hashes) > maxHashes || !IsConsistency(b) {
			t.Errorf("%q is read, and written as %q", b, text)
		}
	})
}
