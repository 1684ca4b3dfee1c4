package vault

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// keyring is the owner keys of one generation. In memory it has where each
// stands, about 40 bytes an owner; the wrapped keys are read from their pages.
type keyring struct {
	id         [16]byte
	generation uint64
	root       seal.Key
	boxes      []holderBox // the root key, once per holder
	escrow     *holderBox  // and for the shareholders, if there are any
	pages      []*page     // as the head has them; nil is one that a rotation has emptied
	at         map[Owner]slot
}

type holderBox struct {
	name string
	box  []byte
}

// key reads and unwraps the owner key of o. The caller wipes it.
func (r *keyring) key(place Place, o Owner) (*seal.Cipher, error) {
	at, ok := r.at[o]
	if !ok {
		return nil, holdfast.Errorf(holdfast.NotFound, "owner %s has no key: it was erased or never made", o)
	}
	p := r.pages[at.page()]
	var b [entrySize]byte
	if err := place.ReadAt(p.name(), b[:], at.offset()); err != nil {
		return nil, fmt.Errorf("read owner key: %w", err)
	}
	e, ok := parseEntry(b[:])
	if !ok || e.owner != o {
		return nil, holdfast.Errorf(holdfast.Internal, "%s is damaged at offset %d", where(place, p.name()), at.offset())
	}
	var c *seal.Cipher
	var err error
	seal.Quiet(func() {
		k := new(seal.Key)
		defer k.Wipe()
		if err = p.unwrap(k, &e); err == nil {
			c = seal.NewCipher(*k)
		}
	})
	return c, err
}

// seal makes a fresh root key and has every holder wrap it.
func (r *keyring) seal(ctx context.Context, holders []Holder) error {
	seal.Quiet(func() { r.root, r.boxes = seal.NewKey(), nil })
	for _, h := range holders {
		var b holderBox
		var err error
		seal.Quiet(func() { b, err = wrap(ctx, h, r.generation, r.root) })
		if err != nil {
			return err
		}
		r.boxes = append(r.boxes, b)
	}
	return nil
}

func (r *keyring) roots() roots { return roots{r.generation, r.boxes} }

// growth is what add has made durable and nobody sees yet.
type growth struct {
	owners []Owner
	keys   []seal.Key
	ids    []seal.KeyID
	slots  []slot
	open   int // entries of the page that was open, now
	pages  []*page
}

// add makes a key for each of owners, behind the last entry of the open page and
// in new pages. All are durable when it returns; enter puts them in force. What a
// failure leaves in the files behind the entries that count is written over by
// the next, or passed over at the start (see openRing).
func (r *keyring) add(place Place, owners []Owner) (g growth, err error) {
	g = growth{owners: owners, keys: make([]seal.Key, len(owners)), ids: make([]seal.KeyID, len(owners)), pages: r.pages}
	for i := range g.keys {
		g.keys[i] = seal.NewKey()
		g.ids[i] = g.keys[i].ID()
	}
	rest := owners
	if n := len(r.pages); n > 0 && r.pages[n-1] != nil && r.pages[n-1].entries < PageEntries {
		p := r.pages[n-1]
		now := rest[:min(len(rest), PageEntries-p.entries)]
		b := make([]byte, 0, len(now)*entrySize)
		for i, o := range now {
			if b, err = p.append(b, o, &g.keys[len(g.slots)], g.ids[len(g.slots)]); err != nil {
				return g, err
			}
			g.slots = append(g.slots, slotAt(n-1, p.entries+i))
		}
		if err := place.Append(p.name(), entryOffset(p.entries), b); err != nil {
			return g, err
		}
		g.open, rest = p.entries+len(now), rest[len(now):]
	}
	if len(rest) == 0 {
		return g, nil
	}
	for some := range slices.Chunk(rest, pagesAtOnce*PageEntries) {
		var files []NewFile
		for part := range slices.Chunk(some, PageEntries) {
			p := newPage()
			b := p.header(r.id)
			for i, o := range part {
				if b, err = p.append(b, o, &g.keys[len(g.slots)], g.ids[len(g.slots)]); err != nil {
					return g, err
				}
				g.slots = append(g.slots, slotAt(len(g.pages), i))
			}
			p.entries = len(part)
			g.pages = append(slices.Clip(g.pages), p)
			files = append(files, NewFile{p.name(), b})
		}
		if err := place.Create(files); err != nil {
			return g, err
		}
	}
	grown := *r
	defer grown.root.Wipe()
	grown.pages = g.pages
	return g, grown.writeHead(place)
}

// enter puts added keys in force.
func (r *keyring) enter(g growth) {
	if g.open > 0 {
		open := r.pages[len(r.pages)-1]
		open.entries, open.torn = g.open, -1
	}
	r.pages = g.pages
	for i, o := range g.owners {
		r.at[o] = g.slots[i]
	}
}

func (r *keyring) close() error {
	r.root.Wipe()
	for _, p := range r.pages {
		if p != nil {
			p.cipher.Wipe()
		}
	}
	return nil
}
