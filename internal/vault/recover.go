package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// recoverRing opens the keyring and ends a rotation that a crash cut short. The
// rule is that of the commit point: if any holder has destroyed RK_n, go
// forward to n+1; if none has, discard n+1. It reports whether there was one: its
// litter is for the caller to clear, lists first (see checkLists).
func recoverRing(ctx context.Context, place Place, holders []Holder) (ring *keyring, rotated bool, err error) {
	heads, err := readHeads(place)
	if err != nil {
		return nil, false, fmt.Errorf("open keyring: %w", err)
	}
	rotated = len(heads) > 1
	// The oldest head that every holder still opens is in force. An older one
	// that some holder has given up is a rotation past its commit point.
	var live *head
	for i := range heads {
		held, err := heldByAll(ctx, holders, heads[i].generation)
		if err != nil {
			return nil, false, err
		}
		if held {
			live = &heads[i]
			break
		}
	}
	if live == nil {
		return nil, false, holdfast.Errorf(holdfast.Unavailable,
			"no holder opens the keyring (its generations: %s): is the root key the one of this data folder, and of the same time? (an erasure replaces it)", generations(heads))
	}
	ring, err = openRing(ctx, place, *live, holders)
	if err != nil {
		return nil, false, fmt.Errorf("open keyring: %w", err)
	}
	for _, h := range holders {
		gens, err := h.Generations(ctx)
		if err != nil {
			return nil, false, fmt.Errorf("ask holder %s: %w", h.Name(), err)
		}
		for _, n := range gens {
			if n == ring.generation {
				continue
			}
			rotated = true
			if _, err := h.Destroy(ctx, n); err != nil {
				return nil, false, fmt.Errorf("destroy root key %d in holder %s: %w", n, h.Name(), err)
			}
		}
	}
	return ring, rotated, nil
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
	r := &keyring{id: h.ring, generation: h.generation, boxes: h.boxes, owners: map[Owner]entry{}}
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
	for _, ref := range h.pages {
		p := &page{id: ref.id}
		var err error
		if p.key, err = cipher.Unwrap(ref.box, ref.key, seal.PagePlace(ref.id, h.generation)); err != nil {
			return nil, fmt.Errorf("unwrap key of %s: %w", where(place, p.name()), err)
		}
		p.cipher = seal.NewCipher(p.key)
		if err := r.readPage(place, p); err != nil {
			return nil, err
		}
		r.pages = append(r.pages, p)
	}
	return r, nil
}

// readPage reads the entries of p. An unfinished last entry was never given out
// and is left to be overwritten, if checkLists agrees; damage elsewhere stops.
func (r *keyring) readPage(place Place, p *page) error {
	b, err := place.Read(p.name())
	if err != nil {
		return fmt.Errorf("read keyring page: %w", err)
	}
	if len(b) < pageHeaderSize || string(b[:pageHeaderSize]) != string(r.pageHeader(p)) {
		return holdfast.Errorf(holdfast.Invalid, "%s is damaged at offset 0", where(place, p.name()))
	}
	for at := pageHeaderSize; at < len(b); at += entrySize {
		raw := b[at:min(at+entrySize, len(b))]
		last := at+entrySize >= len(b)
		if len(raw) < entrySize || crc32.Checksum(raw[:entrySize-4], castagnoli) != binary.BigEndian.Uint32(raw[entrySize-4:]) {
			if last {
				p.torn = at
				return nil
			}
			return holdfast.Errorf(holdfast.Invalid, "%s is damaged at offset %d", where(place, p.name()), at)
		}
		var o Owner
		e := entry{page: p}
		copy(o[:], raw)
		copy(e.id[:], raw[16:])
		copy(e.box[:], raw[32:])
		p.owners = append(p.owners, o)
		r.owners[o] = e
	}
	return nil
}

// sweep removes the files that are not of this generation.
func (r *keyring) sweep(place Place) error {
	keep := map[string]bool{headName(r.generation): true}
	for _, p := range r.pages {
		keep[p.name()] = true
	}
	names, err := place.List()
	if err != nil {
		return fmt.Errorf("sweep keyring: %w", err)
	}
	for _, name := range names {
		if !keep[name] {
			if err := place.Remove(name); err != nil {
				return fmt.Errorf("sweep keyring: %w", err)
			}
		}
	}
	return nil
}
