package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// recoverRing opens the keyring that is in force. The rule is that of the commit
// point: if any holder has destroyed RK_n, go forward to n+1; if none has, discard
// n+1. Litter is for the caller to clear.
func recoverRing(ctx context.Context, place Place, holders []Holder) (*keyring, error) {
	heads, err := readHeads(place)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	// The oldest head that every holder still opens is in force. An older one
	// that some holder has given up is a rotation past its commit point.
	var live *head
	for i := range heads {
		held, err := heldByAll(ctx, holders, heads[i].generation)
		if err != nil {
			return nil, err
		}
		if held {
			live = &heads[i]
			break
		}
	}
	if live == nil {
		return nil, holdfast.Errorf(holdfast.Unavailable,
			"no holder opens the keyring (its generations: %s): is the root key the one of this data folder, and of the same time? (an erasure replaces it)", generations(heads))
	}
	ring, err := openRing(ctx, place, *live, holders)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	return ring, nil
}

// destroyOthers takes from the holders what a rotation that a crash cut short has
// left in them.
func (r *keyring) destroyOthers(ctx context.Context, holders []Holder) error {
	for _, h := range holders {
		gens, err := h.Generations(ctx)
		if err != nil {
			return fmt.Errorf("ask holder %s: %w", h.Name(), err)
		}
		for _, n := range gens {
			if n == r.generation {
				continue
			}
			if _, err := h.Destroy(ctx, n); err != nil {
				return fmt.Errorf("destroy root key %d in holder %s: %w", n, h.Name(), err)
			}
		}
	}
	return nil
}

func heldByAll(ctx context.Context, holders []Holder, n uint64) (bool, error) {
	for _, h := range holders {
		gens, err := h.Generations(ctx)
		if err != nil {
			return false, fmt.Errorf("ask holder %s: %w", h.Name(), err)
		}
		if !slices.Contains(gens, n) {
			return false, nil
		}
	}
	return true, nil
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
	var out []string
	for _, h := range heads {
		out = append(out, fmt.Sprint(h.generation))
	}
	return strings.Join(out, ", ")
}

func openRing(ctx context.Context, place Place, h head, holders []Holder) (*keyring, error) {
	r := &keyring{id: h.ring, generation: h.generation, boxes: h.boxes, at: make(map[Owner]slot, len(h.pages)*PageEntries)}
	var opened bool
	var failures []error
	for _, holder := range holders {
		i := slices.IndexFunc(h.boxes, func(b holderBox) bool { return b.name == holder.Name() })
		if i < 0 {
			failures = append(failures, holdfast.Errorf(holdfast.NotFound, "holder %s has no part in this keyring", holder.Name()))
			continue
		}
		root, err := holder.Open(ctx, h.generation, h.boxes[i].box)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		r.root, opened = root, true
		break
	}
	if !opened {
		return nil, fmt.Errorf("%w (unless %s is damaged)", errors.Join(failures...), where(place, headName(h.generation)))
	}
	cipher := seal.NewCipher(r.root)
	if _, err := cipher.Open(nil, h.tag, seal.FieldPlace(r.id, "keyring", h.body, "head")); err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s is damaged", where(place, headName(h.generation)))
	}
	for i, ref := range h.pages {
		p := &page{id: ref.id}
		var err error
		if p.key, err = cipher.Unwrap(ref.box, ref.key, seal.PagePlace(ref.id, h.generation)); err != nil {
			return nil, fmt.Errorf("unwrap key of %s: %w", where(place, p.name()), err)
		}
		p.cipher = seal.NewCipher(p.key)
		if err := r.readPage(place, p, i == len(h.pages)-1); err != nil {
			return nil, err
		}
	}
	return r, nil
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
	p.torn, err = p.read(r.id, b[:min(len(b), int(entryOffset(PageEntries)))], func(i int, e entry) error {
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

// sweep removes the files that are not of this generation.
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
	names = slices.DeleteFunc(names, func(name string) bool { return keep[name] })
	if err := place.Remove(names...); err != nil {
		return fmt.Errorf("sweep keyring: %w", err)
	}
	return nil
}
