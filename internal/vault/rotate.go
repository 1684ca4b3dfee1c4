package vault

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// pagesAtOnce is how many pages are made and synced together.
const pagesAtOnce = 16

// staged is the next generation: durable, and in force nowhere yet.
type staged struct {
	*keyring
	changed []stagedPage // in ascending order
}

// stagedPage takes the place of a page.
type stagedPage struct {
	number int
	dense  bool    // every entry of the page counts
	page   *page   // nil if no entry is left
	owners []Owner // in the file's order; nil if each keeps its slot
	file   []byte
}

// stage writes the next generation: into the catalog what the plan needs there,
// then a fresh page for each that loses or changes an entry, the others as they
// are, and the head that has them all.
func (v *Vault) stage(ctx context.Context, p *plan) (*staged, error) {
	old := v.ring
	v.highest++
	next := &staged{keyring: &keyring{id: old.id, generation: v.highest, pages: slices.Clone(old.pages)}}
	entries := len(old.at) - len(p.gone)
	if err := v.db.Write(ctx, func(tx *sql.Tx) error { return p.write(ctx, tx, next.generation, entries) }); err != nil {
		return nil, fmt.Errorf("write reissued key lists: %w", err)
	}
	if err := next.seal(ctx, v.holders); err != nil {
		return nil, err
	}
	if err := next.escrowAgain(old.escrow); err != nil {
		return nil, err
	}
	dense := make([]bool, len(old.pages))
	if p.allPages { // counting pays when most pages are read
		dense = old.dense()
	}
	for _, n := range p.pages(old) {
		next.changed = append(next.changed, stagedPage{number: n, dense: dense[n]})
	}
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0)) // some compute while others wait for the disk
	for part := range slices.Chunk(next.changed, pagesAtOnce) {
		g.Go(func() error { return old.renewPages(v.place, p, part) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, pg := range next.changed {
		next.pages[pg.number] = pg.page
	}
	return next, next.writeHead(v.place)
}

// dense tells of each page whether every entry in its file counts. An owner who was
// added again after a failure has one that does not.
func (r *keyring) dense() []bool {
	count := make([]int, len(r.pages))
	for _, at := range r.at {
		count[at.page()]++
	}
	out := make([]bool, len(r.pages))
	for n, p := range r.pages {
		out[n] = p != nil && count[n] == p.entries
	}
	return out
}

// pages are the numbers of those that the plan touches.
func (p *plan) pages(r *keyring) (out []int) {
	if p.allPages {
		for n, pg := range r.pages {
			if pg != nil {
				out = append(out, n)
			}
		}
		return out
	}
	for o := range p.owners() {
		if at, ok := r.at[o]; ok {
			out = append(out, at.page())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *keyring) renewPages(place Place, p *plan, pages []stagedPage) error {
	var files []NewFile
	for i := range pages {
		var err error
		seal.Quiet(func() { err = r.renewPage(place, p, &pages[i]) })
		if err != nil {
			return err
		}
		if pg := &pages[i]; pg.page != nil {
			files = append(files, NewFile{pg.page.name(), pg.file})
			pg.file = nil
		}
	}
	if len(files) == 0 {
		return nil
	}
	return place.Create(files)
}

// renewPage makes a page anew under a fresh page key, without the entries that the
// plan leaves out and with fresh keys where it says so.
func (r *keyring) renewPage(place Place, p *plan, to *stagedPage) error {
	from := r.pages[to.number]
	b, err := place.Read(from.name())
	if err != nil {
		return fmt.Errorf("read keyring page: %w", err)
	}
	fresh := newPage()
	file := fresh.header(r.id)
	owners := make([]Owner, 0, from.entries)
	k := new(seal.Key)
	defer k.Wipe()
	bad, err := from.read(r.id, b[:min(len(b), int(entryOffset(from.entries)))], func(i int, e *entry) (err error) {
		if p.gone[e.owner] || !to.dense && r.at[e.owner] != slotAt(to.number, i) {
			return nil
		}
		id := e.id
		if renewed := p.renewed[e.owner]; renewed != nil {
			id = renewed.ID()
			_, err = renewed.AppendKey(k[:0])
		} else {
			err = from.unwrap(k, e) // which checks the id
		}
		if err == nil {
			file, err = fresh.append(file, e.owner, k, id)
		}
		owners = append(owners, e.owner)
		return err
	})
	switch {
	case err != nil:
		return err
	case bad >= 0:
		return holdfast.Errorf(holdfast.Internal, "%s is damaged at offset %d", where(place, from.name()), bad)
	case len(owners) == 0:
		return nil
	}
	if fresh.entries = len(owners); fresh.entries != from.entries {
		to.owners = owners
	}
	to.page, to.file = fresh, file
	return nil
}

// enter puts the next generation in force in memory and returns the names of the
// files that nobody needs any more, the old head last.
func (v *Vault) enter(next *staged, p *plan) (litter []string) {
	v.ringMu.Lock()
	old := v.ring
	next.at = old.at
	for o := range p.gone {
		delete(next.at, o)
	}
	for _, pg := range next.changed {
		for i, o := range pg.owners {
			next.at[o] = slotAt(pg.number, i)
		}
	}
	v.ring = next.keyring
	v.ringMu.Unlock()
	old.root.Wipe()
	for _, pg := range next.changed {
		gone := old.pages[pg.number]
		gone.cipher.Wipe()
		litter = append(litter, gone.name())
	}
	renewed := map[Owner]bool{}
	in := map[holdfast.AssignmentID]bool{}
	for o, k := range p.renewed {
		k.Wipe()
		renewed[o], in[holdfast.AssignmentID(o)] = true, true
	}
	for o := range p.gone {
		in[holdfast.AssignmentID(o)] = true
	}
	v.lists.forget(p.gone, renewed, p.dropped)
	// What is under a key that lives on may be acknowledged: it stays in use, where the
	// next Barrier finds it.
	dead := v.leases.remove(in, p.kept)
	for _, k := range dead {
		k.revoked.Store(true)
		if p.dropped[k.cipher.ID()] {
			k.cipher.Wipe()
		}
	}
	v.leases.left(dead)
	return append(litter, headName(old.generation))
}
