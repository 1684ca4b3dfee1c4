package vault

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Owner is whoever has an owner key: a party, an assignment, or the hub.
type Owner [16]byte

// Hub is the owner of what belongs to nobody: the hub's own keys, profiles,
// units that nobody has claimed.
var Hub = hub()

func hub() Owner {
	sum := sha256.Sum256([]byte("holdfast hub"))
	return Owner(sum[:16])
}

// OfParty returns the owner whose key seals what is known about a party.
func OfParty(id holdfast.PartyID) Owner { return Owner(id) }

// OfAssignment returns the owner whose key seals an assignment's data.
func OfAssignment(id holdfast.AssignmentID) Owner { return Owner(id) }

func (o Owner) String() string { return holdfast.PartyID(o).String() }

// AddOwner is AddOwners for one.
func (v *Vault) AddOwner(ctx context.Context, o Owner) error { return v.AddOwners(ctx, []Owner{o}) }

// AddOwners makes an owner key for each of owners and the list without time that
// it seals. All are durable when it returns, for about the price of one; for an
// owner who has a key it does nothing.
func (v *Vault) AddOwners(ctx context.Context, owners []Owner) error {
	v.rotating.RLock()
	defer v.rotating.RUnlock()
	defer v.lists.lockAll(owners)()
	var fresh growth
	var have []Owner
	var err error
	seal.Quiet(func() { fresh, have, err = v.addKeys(ctx, owners) })
	defer func() { clear(fresh.keys) }()
	if err != nil {
		return fmt.Errorf("add owner keys: %w", err)
	}
	if n := len(fresh.owners); n > 0 {
		rows, lists := make([]listRow, n), make([]*keyList, n)
		for i, o := range fresh.owners {
			lists[i] = &keyList{owner: o}
			seal.Quiet(func() {
				lists[i].ensureZero()
				owner := seal.NewCipher(fresh.keys[i])
				rows[i], err = wrapList(lists[i], owner)
				owner.Wipe()
			})
			if err != nil {
				return err
			}
		}
		if err := v.saveLists(ctx, rows, lists); err != nil {
			return err
		}
	}
	for _, o := range have { // its list may be what a crash has kept it from
		if _, err := v.growList(ctx, o, 0, (*keyList).ensureZero); err != nil {
			return err
		}
	}
	return nil
}

// addKeys makes keys for those of owners who have none.
func (v *Vault) addKeys(ctx context.Context, owners []Owner) (fresh growth, have []Owner, err error) {
	v.adding.Lock()
	defer v.adding.Unlock()
	var add []Owner
	seen := make(map[Owner]bool, len(owners))
	v.ringMu.RLock()
	for _, o := range owners {
		if seen[o] {
			continue
		}
		seen[o] = true
		if _, ok := v.ring.at[o]; ok {
			have = append(have, o)
		} else {
			add = append(add, o)
		}
	}
	v.ringMu.RUnlock()
	if len(add) == 0 {
		return fresh, have, nil
	}
	if fresh, err = v.grow(ctx, add); err != nil {
		clear(fresh.keys)
		return growth{}, nil, err
	}
	v.ringMu.Lock()
	v.ring.enter(fresh)
	v.ringMu.Unlock()
	return fresh, have, nil
}
