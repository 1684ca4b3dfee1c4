package simtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// certified is what the simulation reads of a certificate.
type certified struct {
	Destruction *struct {
		From    uint64 `json:"root_key_destroyed"`
		To      uint64 `json:"root_key_in_force"`
		Holders []struct{ Holder, State string }
	} `json:"keys_destroyed"`
}

// certificates demands of what was certified that rotations of the root key did not
// interleave, and that every holder is named; in the end none as pending.
func (w *world) certificates(texts []string) error {
	want := 1
	if w.img.guarded {
		want = 2
	}
	type rotation struct{ from, to uint64 }
	var all []rotation
	for _, text := range texts {
		at := strings.IndexByte(text, '{')
		if at < 0 {
			return fmt.Errorf("a certificate can't be read: %.100s", text)
		}
		var c certified
		if err := json.NewDecoder(strings.NewReader(text[at:])).Decode(&c); err != nil {
			return fmt.Errorf("a certificate can't be read: %w", err)
		}
		if c.Destruction == nil {
			return fmt.Errorf("a certificate says nothing of keys: %.300s", text)
		}
		if d := c.Destruction; len(d.Holders) != want || slices.ContainsFunc(d.Holders, func(h struct{ Holder, State string }) bool { return h.State != "destroyed" }) {
			return fmt.Errorf("a certificate of the rotation from %d to %d names the holders %+v", d.From, d.To, d.Holders)
		}
		all = append(all, rotation{c.Destruction.From, c.Destruction.To})
	}
	slices.SortFunc(all, func(a, b rotation) int { return cmp.Compare(a.to, b.to) })
	all = slices.Compact(all)
	for i, r := range all {
		if r.to <= r.from || i > 0 && r.from < all[i-1].to {
			return fmt.Errorf("rotations interleave: %v", all)
		}
	}
	return nil
}
