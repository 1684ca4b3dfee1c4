package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Whoever passes a slice on can't change what it says, nor leave something out.
func TestTamperedSlice(t *testing.T) {
	b := open(t)
	anna, ben := b.party(), b.party()
	for i := range 12 {
		b.append(anna, "grant made", i)
		b.append(ben, "grant made", i)
		if i%5 == 0 {
			b.publish()
		}
	}
	early := b.slice(anna, 0)
	b.append(anna, "grant ended", nil)
	c := b.publish()
	b.append(ben, "grant ended", nil)
	whole, later, ofBen := b.slice(anna, 0).Bytes(), b.publish(), b.slice(ben, 0).Bytes()
	if r, err := CheckSlice(bytes.NewReader(whole), b.VerifierKey(), nil, nil); err != nil || r.Entries != 13 || r.Size != c.Size {
		t.Fatalf("%+v, %v", r, err)
	}
	// edit changes what lines 1 (the head), 2, ... say.
	edit := func(at int, with func(map[string]any)) func([]string) []string {
		return func(lines []string) []string {
			fields := map[string]any{}
			d := json.NewDecoder(strings.NewReader(lines[at]))
			d.UseNumber()
			if err := d.Decode(&fields); err != nil {
				t.Fatal(err)
			}
			with(fields)
			out, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			lines[at] = string(out) + "\n"
			return lines
		}
	}
	end := func(entries string) string { return `{"entries":` + entries + "}\n" }
	other := open(t)
	for name, alter := range map[string]func([]string) []string{
		"a line dropped":           func(l []string) []string { return slices.Delete(l, 4, 5) },
		"a line dropped, end told": func(l []string) []string { return append(slices.Delete(l[:14], 4, 5), end("12")) },
		"the first dropped":        func(l []string) []string { return append(slices.Delete(l[:14], 1, 2), end("12")) },
		"the last dropped":         func(l []string) []string { return slices.Delete(l, 13, 14) },
		"two swapped":              func(l []string) []string { l[4], l[5] = l[5], l[4]; return l },
		"one repeated":             func(l []string) []string { return append(slices.Insert(l[:14], 4, l[4]), end("14")) },
		"one repeated at the end":  func(l []string) []string { return append(l[:14], l[13], end("14")) },
		"the end dropped":          func(l []string) []string { return l[:14] },
		"an end of nothing":        func(l []string) []string { return append(l[:14], "{\"entries\":null}\n") },
		"another end":              func(l []string) []string { return append(l[:14], end("14")) },
		"a line after the end":     func(l []string) []string { return append(l, l[4]) },
		"no head":                  func(l []string) []string { return l[1:] },
		"two heads":                func(l []string) []string { return slices.Insert(l, 0, l[0]) },
		"nothing":                  func(l []string) []string { return nil },
		"not JSON":                 func(l []string) []string { l[4] = "{\n"; return l },
		"an entry of another":      func(l []string) []string { l[4] = string(bytes.Split(ofBen, []byte("\n"))[4]) + "\n"; return l },
		"an older checkpoint":      edit(0, func(m map[string]any) { m["checkpoint"] = firstCheckpoint(t, early.Bytes()) }),
		"a later checkpoint":       edit(0, func(m map[string]any) { m["checkpoint"] = string(later.Note) }),
		"another log's checkpoint": edit(0, func(m map[string]any) { m["checkpoint"] = string(other.publish().Note) }),
		"another log's, and key": edit(0, func(m map[string]any) {
			m["checkpoint"], m["verifier"] = string(other.publish().Note), other.VerifierKey()
		}),
		"a newer version":           edit(0, func(m map[string]any) { m["holdfast-ledger-slice"] = 2 }),
		"another index":             edit(4, func(m map[string]any) { m["index"] = json.Number("7") }),
		"an index beyond":           edit(4, func(m map[string]any) { m["index"] = json.Number("18446744073709551615") }),
		"no path":                   edit(4, func(m map[string]any) { m["hashes"] = nil }),
		"no payload":                edit(4, func(m map[string]any) { m["salted"] = nil }),
		"another sequence in words": edit(4, func(m map[string]any) { m["salted"] = resequence(t, m["salted"].(string)) }),
	} {
		_, err := CheckSlice(strings.NewReader(strings.Join(alter(slices.Collect(strings.Lines(string(whole)))), "")), b.VerifierKey(), nil, nil)
		if holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another origin: the key is that of another log.
	if _, err := CheckSlice(bytes.NewReader(whole), other.VerifierKey(), nil, nil); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("under another log's key: %v", err)
	}
	for at := 0; at < len(whole); at += 3 {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		r, err := CheckSlice(bytes.NewReader(bad), b.VerifierKey(), nil, nil)
		// JSON has other words for the same, and whose record it is a reader knows.
		if err == nil && (r.Entries != 13 || r.Size != c.Size) {
			t.Errorf("byte %d: %+v", at, r)
		}
	}
}

func firstCheckpoint(t *testing.T, slice []byte) string {
	t.Helper()
	var head SliceHead
	line, _, _ := bytes.Cut(slice, []byte("\n"))
	if err := json.Unmarshal(line, &head); err != nil {
		t.Fatal(err)
	}
	return head.Checkpoint
}

// resequence gives a payload the next number of its record.
func resequence(t *testing.T, salted string) []byte {
	t.Helper()
	var b []byte
	if err := json.Unmarshal([]byte(`"`+salted+`"`), &b); err != nil {
		t.Fatal(err)
	}
	out := bytes.Replace(b, []byte(`"seq":3`), []byte(`"seq":4`), 1)
	if bytes.Equal(out, b) {
		t.Fatal("the payload has no sequence 3")
	}
	return out
}

// during calls then before the n-th payload is opened.
type during struct {
	keys
	n    int
	then func()
}

func (d *during) OpenRecord(ctx context.Context, o vault.Owner, table string, row []byte, column string, box []byte) ([]byte, error) {
	if d.n--; d.n == -1 {
		d.then()
	}
	return d.keys.OpenRecord(ctx, o, table, row, column, box)
}

// An erasure that destroys a key while the ledger is verified, between any two of
// its entries, is no fault; a key that dies without one is.
func TestVerifyBesideAnErasure(t *testing.T) {
	const each = 3
	for _, c := range []struct {
		name        string
		begun, done bool
	}{{"begun", true, false}, {"done", true, true}, {"not on record", false, false}} {
		for n := range 2 * each {
			b := open(t)
			anna, ben := b.party(), b.party()
			for range each {
				b.append(ben, "grant made", nil)
				b.append(anna, "grant made", nil)
			}
			b.publish()
			id, err := b.vault.RecordKeyID(t.Context(), anna)
			if err != nil {
				t.Fatal(err)
			}
			covers := Covers{}
			covers.RecordKeys = append(covers.RecordKeys, id)
			b.keys = &during{keys: b.vault, n: n, then: func() {
				if c.begun {
					b.append(vault.Hub, KindErasureBegun, covers)
				}
				if _, err := b.vault.Destroy(t.Context(), vault.Destruction{Owners: []vault.Owner{anna}}); err != nil {
					t.Error(err)
				}
				if c.done {
					b.append(vault.Hub, KindErasure, covers)
				}
			}}
			r := b.verify()
			unread := uint64(each - n/2) // entries of hers that were not opened before
			var want [3]uint64           // faults, being erased, erased
			switch {
			case !c.begun:
				want[0] = unread
			case c.done:
				want[2] = unread
			default:
				want[1] = unread
			}
			if got := [3]uint64{uint64(len(r.Faults)), r.BeingErased, r.Erased}; got != want {
				t.Errorf("%s, before payload %d: faults, being erased, erased are %v, not %v: %v", c.name, n, got, want, r.Faults)
			}
		}
	}
}
