package vault

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// recovered is the keyring that is in force, and what else was found.
type recovered struct {
	ring    *keyring
	highest uint64     // generation that anybody knows
	older   *head      // of a rotation past its commit point, whose end is not known
	held    [][]uint64 // generations, by holder
}

// recoverRing opens the keyring that is in force. The rule is that of the commit
// point: if any holder has destroyed RK_n, go forward to n+1; if none has, what is
// of n+1 is litter, for the caller to clear. So the oldest head that every holder
// still opens is in force. But not one that the catalog has left behind: then
// somebody had destroyed RK_n who is fenced now.
//
// A holder that does not answer, or does not open what all open, stops the start:
// it might know better.
func recoverRing(ctx context.Context, db *catalog.DB, place Place, holders []Holder, fenced []Fenced) (*recovered, error) {
	heads, err := readHeads(place)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	known, err := knownGenerations(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	found := &recovered{}
	for _, n := range known {
		found.highest = max(found.highest, n)
	}
	for _, h := range holders {
		gens, err := h.Generations(ctx)
		if err != nil {
			return nil, fmt.Errorf("open keyring: %w%s", err, wayOut(holders, h))
		}
		found.held = append(found.held, gens)
		for _, n := range gens {
			found.highest = max(found.highest, n)
		}
	}
	var live *head
	for i := range heads {
		h := &heads[i]
		found.highest = max(found.highest, h.generation)
		if !found.heldByAll(h.generation) {
			continue
		}
		if live == nil || !slices.Contains(known, live.generation) && slices.Contains(known, h.generation) {
			live = h
		}
	}
	if live == nil {
		return nil, holdfast.Errorf(holdfast.Unavailable,
			"no holder opens the keyring (its generations: %s; %s): is the root key the one of this data folder, and of the same time? (an erasure replaces it) Put back the file that has the keyring's generation, and never an older one over a newer%s", generations(heads), found.whoHolds(holders), wayOut(holders, nil))
	}
	if err := checkParts(live, holders, fenced); err != nil {
		return nil, fmt.Errorf("open keyring: %w (unless %s is damaged)", err, where(place, headName(live.generation)))
	}
	if i := slices.IndexFunc(heads, func(h head) bool { return h.generation == live.generation }); i > 0 {
		found.older = &heads[i-1]
	}
	if found.ring, err = openRing(ctx, place, *live, holders); err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	return found, nil
}

// wayOut says what to do about a holder that stops the start.
func wayOut(holders []Holder, h Holder) string {
	switch {
	case len(holders) < 2:
		return ""
	case h == nil:
		return ". Nothing was changed. If one of them is lost: holdfast holder fence NAME, with its name"
	}
	return fmt.Sprintf(". Nothing was changed. Bring it back, or go on without it: holdfast holder fence %s (certificates name it as pending until it returns)", h.Name())
}

// waitFor says what to do about a holder that did not end its part of a rotation that
// is past its commit point.
func waitFor(holders []Holder, h Holder) string {
	if len(holders) < 2 {
		return ". Nothing is certified until it does its part"
	}
	return fmt.Sprintf(". Nothing is certified until holder %s does its part; if it is lost: holdfast holder fence %[1]s (certificates name it as pending until it returns)", h.Name())
}

func (f *recovered) heldByAll(n uint64) bool {
	for _, gens := range f.held {
		if !slices.Contains(gens, n) {
			return false
		}
	}
	return true
}

func (f *recovered) whoHolds(holders []Holder) string {
	var out []string
	for i, h := range holders {
		if len(f.held[i]) == 0 {
			out = append(out, "holder "+h.Name()+" has none")
			continue
		}
		out = append(out, "holder "+h.Name()+" has "+numbers(f.held[i]))
	}
	return strings.Join(out, ", ")
}

// checkParts compares who has a part in the keyring with who is registered. Somebody
// who is not would not be asked to destroy.
func checkParts(h *head, holders []Holder, fenced []Fenced) error {
	for _, b := range h.boxes {
		registered := slices.ContainsFunc(holders, func(h Holder) bool { return h.Name() == b.name }) ||
			slices.ContainsFunc(fenced, func(f Fenced) bool { return f.Name == b.name })
		if !registered {
			return holdfast.Errorf(holdfast.Invalid, "holder %s has a part in the keyring and is not registered: it would not be asked to destroy root keys. Nothing was changed. Put back the newest keys.json", b.name)
		}
	}
	for _, holder := range holders {
		if !slices.ContainsFunc(h.boxes, func(b holderBox) bool { return b.name == holder.Name() }) {
			return holdfast.Errorf(holdfast.Invalid, "holder %s is registered and has no part in the keyring. Nothing was changed. Put back the newest keys.json, or say that it is to be asked no more: holdfast holder fence %[1]s", holder.Name())
		}
	}
	return nil
}

// destroyOlder takes from the holders what a rotation that a crash cut short has
// left in them.
func (f *recovered) destroyOlder(ctx context.Context, holders []Holder) error {
	for i, h := range holders {
		old := roots{}
		switch {
		case f.older != nil:
			old = roots{f.older.generation, f.older.boxes}
		case len(f.held[i]) == 0 || slices.Min(f.held[i]) >= f.ring.generation:
			continue
		}
		if _, err := destroyIn(ctx, h, f.ring.generation, old, f.ring.roots()); err != nil {
			return err
		}
	}
	return nil
}

// knownGenerations are those that the catalog knows: one, or two in the middle of a
// rotation.
func knownGenerations(ctx context.Context, db *catalog.DB) (out []uint64, err error) {
	err = db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT generation FROM keyring_size`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var n int64
			if err := rows.Scan(&n); err != nil {
				return err
			}
			out = append(out, uint64(n))
		}
		return rows.Err()
	})
	return out, err
}

func readHeads(place Place) ([]head, error) {
	names, err := place.List()
	if err != nil {
		return nil, err
	}
	var heads []head
	for _, name := range names {
		if !strings.HasPrefix(name, "head-") {
			continue
		}
		b, err := place.Read(name)
		if err != nil {
			return nil, err
		}
		h, err := parseHead(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where(place, name), err)
		}
		if headName(h.generation) != name {
			return nil, holdfast.Errorf(holdfast.Invalid, "%s is damaged at offset %d: its name and its generation differ", where(place, name), generationAt)
		}
		heads = append(heads, h)
	}
	if len(heads) == 0 {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no keyring here")
	}
	slices.SortFunc(heads, func(a, b head) int { return int(int64(a.generation - b.generation)) })
	return heads, nil
}

func generations(heads []head) string {
	var out []uint64
	for _, h := range heads {
		out = append(out, h.generation)
	}
	return numbers(out)
}

func numbers(all []uint64) string {
	var out []string
	for _, n := range all {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, ", ")
}

func openRing(ctx context.Context, place Place, h head, holders []Holder) (*keyring, error) {
	r := &keyring{id: h.ring, generation: h.generation, boxes: h.boxes, escrow: h.escrow, at: make(map[Owner]slot, len(h.pages)*PageEntries)}
	if err := r.openRoot(ctx, place, h, holders); err != nil {
		return nil, err
	}
	if err := r.openPages(place, h); err != nil {
		return nil, err
	}
	return r, nil
}

// openPages checks the head with the root key and opens all that it names.
func (r *keyring) openPages(place Place, h head) error {
	var cipher *seal.Cipher
	seal.Quiet(func() { cipher = seal.NewCipher(r.root) })
	defer cipher.Wipe()
	if _, err := cipher.Open(nil, h.tag, seal.FieldPlace(r.id, "keyring", h.body, "head")); err != nil {
		return holdfast.Errorf(holdfast.Invalid, "%s is damaged", where(place, headName(h.generation)))
	}
	for i, ref := range h.pages {
		p := &page{id: ref.id}
		key, err := cipher.Unwrap(ref.box, ref.key, seal.PagePlace(ref.id, h.generation))
		if err != nil {
			return fmt.Errorf("unwrap key of %s: %w", where(place, p.name()), err)
		}
		p.cipher = seal.NewCipher(key)
		key.Wipe()
		if err := r.readPage(place, p, i == len(h.pages)-1); err != nil {
			return err
		}
	}
	return nil
}

// openRoot has every holder open the root key: one that is another hub's, or lost
// what it held, is found when nothing depends on it yet.
func (r *keyring) openRoot(ctx context.Context, place Place, h head, holders []Holder) error {
	var opened bool
	for _, holder := range holders {
		i := slices.IndexFunc(h.boxes, func(b holderBox) bool { return b.name == holder.Name() })
		if i < 0 {
			return holdfast.Errorf(holdfast.NotFound, "holder %s has no part in this keyring", holder.Name())
		}
		var err error
		same := true
		seal.Quiet(func() {
			var root seal.Key
			if root, err = holder.Open(ctx, h.generation, h.boxes[i].box); err == nil {
				if same = !opened || root == r.root; same {
					r.root = root
				}
			}
			root.Wipe()
		})
		if err != nil {
			return fmt.Errorf("%w (unless %s is damaged)%s", err, where(place, headName(h.generation)), wayOut(holders, holder))
		}
		if !same {
			return holdfast.Errorf(holdfast.Denied, "holder %s opens another root key than the holders before it: it is not of this data folder%s", holder.Name(), wayOut(holders, holder))
		}
		opened = true
	}
	return nil
}

// readPage reads whose entries p has. In the open page, which is the last, what
// comes behind an entry that can't be read was never in use and is left to be
// overwritten, if checkEntries agrees; elsewhere that is damage. An owner who
// stands there twice was added again after an attempt that failed: the first
// counts, and may be that attempt's only if the second was never in use.
func (r *keyring) readPage(place Place, p *page, open bool) error {
	b, err := place.Read(p.name())
	if err != nil {
		return fmt.Errorf("read keyring page: %w", err)
	}
	n := len(r.pages)
	p.torn, err = p.read(r.id, b[:min(len(b), int(entryOffset(PageEntries)))], func(i int, e *entry) error {
		p.entries = i + 1
		if _, twice := r.at[e.owner]; !twice {
			r.at[e.owner] = slotAt(n, i)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if p.torn >= 0 && !(open && p.torn >= pageHeaderSize) {
		return holdfast.Errorf(holdfast.Invalid, "%s is damaged at offset %d", where(place, p.name()), p.torn)
	}
	r.pages = append(r.pages, p)
	return nil
}

// sweep removes the keyring's files that are not of this generation. What lies beside
// them, as the take-backs do in a copy, is not the keyring's to remove.
func (r *keyring) sweep(place Place) error {
	keep := map[string]bool{headName(r.generation): true}
	for _, p := range r.pages {
		if p != nil {
			keep[p.name()] = true
		}
	}
	names, err := place.List()
	if err != nil {
		return fmt.Errorf("sweep keyring: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return !ours(name) || keep[name] || strings.HasPrefix(name, listsPrefix) && name <= listsName(r.generation)
	})
	if err := place.Remove(names...); err != nil {
		return fmt.Errorf("sweep keyring: %w", err)
	}
	return nil
}
