package archive_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-iot/holdfast/internal/bundle"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// TestRecordIsChecked: who has even the hub's key for bundles, and hashes and signs
// them anew, can't change what stands in the ledger about the owner.
func TestRecordIsChecked(t *testing.T) {
	h := build(t)
	bob := h.Party("Bob")
	whole, ofBob := h.export(t), memory{fstest.MapFS{}}
	if _, err := h.Export(t.Context(), bob, bob.Party, ofBob); err != nil {
		t.Fatal(err)
	}
	drop := func(at int) func([]string) []string {
		return func(lines []string) []string { return slices.Delete(lines, at, at+1) }
	}
	edit := func(at int, with func(*ledger.SliceEntry)) func([]string) []string {
		return func(lines []string) []string {
			var e ledger.SliceEntry
			if err := json.Unmarshal([]byte(lines[at]), &e); err != nil {
				t.Fatal(err)
			}
			with(&e)
			b, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			lines[at] = string(b) + "\n"
			return lines
		}
	}
	for name, c := range map[string]struct {
		file  string
		alter func(lines []string) []string
		fault string
	}{
		"an entry dropped":          {bundle.LedgerName, drop(2), bundle.LedgerName + ": entry "},
		"the first dropped":         {bundle.LedgerName, drop(1), bundle.LedgerName + ": entry "},
		"the end dropped":           {bundle.LedgerName, func(l []string) []string { return l[:len(l)-1] }, bundle.LedgerName + ": the slice breaks off"},
		"all dropped":               {bundle.LedgerName, func([]string) []string { return nil }, bundle.LedgerName + ": the slice is empty"},
		"the last before the end":   {bundle.LedgerName, func(l []string) []string { return slices.Delete(l, len(l)-2, len(l)-1) }, bundle.LedgerName + ": the slice ends with another number"},
		"two swapped":               {bundle.LedgerName, func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }, bundle.LedgerName + ": entry "},
		"one byte of a payload":     {bundle.LedgerName, edit(2, func(e *ledger.SliceEntry) { e.Salted[40] ^= 1 }), bundle.LedgerName + ": entry "},
		"one byte of a path":        {bundle.LedgerName, edit(2, func(e *ledger.SliceEntry) { e.Hashes[0][7] ^= 1 }), bundle.LedgerName + ": entry "},
		"another index":             {bundle.LedgerName, edit(2, func(e *ledger.SliceEntry) { e.Index++ }), bundle.LedgerName + ": entry "},
		"another record":            {bundle.LedgerName, func([]string) []string { return lines(ofBob.MapFS[bundle.LedgerName].Data) }, bundle.EventsName + ": line 1 "},
		"an event in other words":   {bundle.EventsName, func(l []string) []string { l[1] = strings.Replace(l[1], `"kind":"`, `"kind":"un`, 1); return l }, bundle.EventsName + ": line 2 "},
		"an event dropped":          {bundle.EventsName, drop(1), bundle.EventsName + ": line 2 "},
		"an event too many":         {bundle.EventsName, func(l []string) []string { return append(l, l[0]) }, bundle.EventsName + ": has more lines"},
		"no event":                  {bundle.EventsName, func([]string) []string { return nil }, bundle.EventsName + ": line 1 "},
		"the checkpoint of another": {bundle.LedgerName, func(l []string) []string { l[0] = lines(build(t).export(t).MapFS[bundle.LedgerName].Data)[0]; return l }, bundle.LedgerName + ": the checkpoint's signature"},
	} {
		t.Run(name, func(t *testing.T) {
			m := whole.but(c.file, []byte(strings.Join(c.alter(lines(whole.MapFS[c.file].Data)), "")))
			if r := verified(t, m, h.Ledger.VerifierKey()); !found(r.Faults, c.file+": is not what its manifest says") {
				t.Errorf("against the manifest: %q", r.Faults)
			}
			m = h.forge(t, m)
			r := verified(t, m, h.Ledger.VerifierKey())
			if r.Signer == "" || len(r.Faults) != 1 || !found(r.Faults, c.fault) {
				t.Errorf("signed anew: %q, want one that begins with %q", r.Faults, c.fault)
			}
		})
	}
	// Both files of another: the record is not the owner's.
	m := whole.but(bundle.LedgerName, ofBob.MapFS[bundle.LedgerName].Data)
	m.MapFS[bundle.EventsName] = ofBob.MapFS[bundle.EventsName]
	if r := verified(t, h.forge(t, m), ""); len(r.Faults) != 1 || !found(r.Faults, bundle.LedgerName+": is the record of ") {
		t.Errorf("%q", r.Faults)
	}
	// Neither: they are missed.
	delete(m.MapFS, bundle.LedgerName)
	if r := verified(t, h.forge(t, m), ""); !found(r.Faults, bundle.LedgerName+": is missing") {
		t.Errorf("%q", r.Faults)
	}
	if r := verified(t, h.forge(t, whole), ""); len(r.Faults) > 0 || r.Entries < 3 {
		t.Errorf("nothing was changed: %+v", r)
	}
}

func lines(b []byte) (out []string) {
	for line := range bytes.Lines(b) {
		out = append(out, string(line))
	}
	return out
}

func found(faults []string, prefix string) bool {
	return slices.ContainsFunc(faults, func(s string) bool { return strings.HasPrefix(s, prefix) })
}

// but is the bundle with another file.
func (m memory) but(name string, content []byte) memory {
	out := memory{fstest.MapFS{}}
	for n, f := range m.MapFS {
		out.MapFS[n] = f
	}
	out.MapFS[name] = &fstest.MapFile{Data: content}
	return out
}

// forge is a bundle hashed and signed anew.
func (h *house) forge(t *testing.T, m memory) memory {
	t.Helper()
	m.hash()
	info, err := bundle.ParseInfo(m.MapFS[bundle.InfoName].Data)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := h.Ledger.Sign(bundle.SignedText(info.Get(bundle.LabelID), m.MapFS[bundle.TagManifestName].Data))
	if err != nil {
		t.Fatal(err)
	}
	return m.but(bundle.SignatureName, signature)
}
