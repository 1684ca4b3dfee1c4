package vault

import (
	"context"
	"fmt"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/escrow"
)

// escrowPrefix begins the name of a box in the head that no holder opens: the root
// key, wrapped to the shareholders of a deal. The box has their public key in it, and
// the head's tag vouches for that.
const escrowPrefix = "escrow:"

// Escrow returns the deal that root keys are wrapped to, if there is one.
func (v *Vault) Escrow() (id escrow.ID, ok bool) {
	to, ok := v.EscrowKey()
	return to.ID, ok
}

// EscrowKey returns as much of that deal as wrapping needs.
func (v *Vault) EscrowKey() (to escrow.Public, ok bool) {
	v.ringMu.RLock()
	defer v.ringMu.RUnlock()
	if v.ring.escrow == nil {
		return to, false
	}
	to, _, err := escrow.ParseBox(v.ring.escrow.box)
	return to, err == nil
}

// SetEscrow wraps the root key in force, and each that follows, to the shareholders
// of a deal and to no others; nil: to nobody. Copies of older heads stay what they
// are: who has one, and enough shares of the deal of that time, opens it.
func (v *Vault) SetEscrow(ctx context.Context, to *escrow.Public) error {
	v.rotating.Lock()
	defer v.rotating.Unlock()
	next := *v.ring
	defer next.root.Wipe()
	next.escrow = nil
	if to != nil {
		if err := next.wrapToEscrow(*to); err != nil {
			return err
		}
	}
	rec := &recording{Place: v.place}
	if err := next.writeHead(rec); err != nil {
		return fmt.Errorf("write recovery shares' box: %w", err)
	}
	v.ringMu.Lock()
	v.ring.escrow = next.escrow
	v.ringMu.Unlock()
	return v.changeCopies(ctx, rec.again)
}

func (r *keyring) wrapToEscrow(to escrow.Public) error {
	box, err := to.Box(escrow.Root(r.id, r.generation), r.root[:])
	if err != nil {
		return err
	}
	r.escrow = &holderBox{escrowPrefix + to.ID.String(), box}
	return nil
}

// escrowAgain wraps this generation's root key to whom an older one was wrapped.
func (r *keyring) escrowAgain(old *holderBox) error {
	if old == nil {
		return nil
	}
	to, _, err := escrow.ParseBox(old.box)
	if err != nil {
		return err
	}
	return r.wrapToEscrow(to)
}

// splitEscrow takes the shareholders' box from those of the holders.
func splitEscrow(all []holderBox) (holders []holderBox, shares *holderBox) {
	for _, b := range all {
		if strings.HasPrefix(b.name, escrowPrefix) {
			shares = &b
			continue
		}
		holders = append(holders, b)
	}
	return holders, shares
}

// Recovered is what Recover found.
type Recovered struct {
	Generation uint64
	Lost       []string // holders that had the root key and are no part of the keyring any more
}

// Recover gives the root key of the keyring in place, which k shares of its deal open,
// to a new holder: for when every holder is lost. The holders that were are no part of
// the keyring afterwards. Nothing is changed before all of the head has been checked.
func Recover(ctx context.Context, place Place, shares *escrow.Private, to Holder) (Recovered, error) {
	heads, err := readHeads(place)
	if err != nil {
		return Recovered{}, fmt.Errorf("recover root key: %w", err)
	}
	h := heads[len(heads)-1] // it is written last: what it names is whole
	if h.escrow == nil {
		return Recovered{}, holdfast.Errorf(holdfast.NotFound, "the keyring was not wrapped to any shareholders: shares can't open it")
	}
	dealt, box, err := escrow.ParseBox(h.escrow.box)
	if err != nil {
		return Recovered{}, err
	}
	if dealt.ID != shares.ID() {
		return Recovered{}, holdfast.Errorf(holdfast.Invalid, "the keyring is wrapped to deal %s, the shares are of deal %s: bring those of the former", dealt.ID, shares.ID())
	}
	root, err := shares.Open(escrow.Root(h.ring, h.generation), box)
	if err != nil {
		return Recovered{}, err
	}
	defer clear(root)
	r := &keyring{id: h.ring, generation: h.generation, escrow: h.escrow, at: map[Owner]slot{}}
	defer r.close()
	copy(r.root[:], root)
	if err := r.openPages(place, h); err != nil {
		return Recovered{}, fmt.Errorf("recover root key: %w", err)
	}
	b, err := wrap(ctx, to, r.generation, r.root)
	if err != nil {
		return Recovered{}, fmt.Errorf("recover root key: %w", err)
	}
	r.boxes = []holderBox{b}
	if err := r.writeHead(place); err != nil {
		return Recovered{}, fmt.Errorf("recover root key: %w", err)
	}
	out := Recovered{Generation: r.generation}
	for _, old := range h.boxes {
		if old.name != b.name {
			out.Lost = append(out.Lost, old.name)
		}
	}
	return out, nil
}
