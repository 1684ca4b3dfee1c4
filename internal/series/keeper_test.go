package series

import (
	"context"
	"sync"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// keeper keeps ciphers as the vault does, in memory: a test can open several
// Series over it, as if a process had ended between.
type keeper struct {
	mu      sync.Mutex
	streams map[Cell]*seal.Cipher
	journal map[journalCell]*seal.Cipher
	byID    map[seal.KeyID]*seal.Cipher
	retired map[seal.KeyID]bool
	gone    map[holdfast.AssignmentID]bool
}

type journalCell struct {
	a holdfast.AssignmentID
	b seal.Bucket
}

func newKeeper() *keeper {
	return &keeper{
		streams: map[Cell]*seal.Cipher{}, journal: map[journalCell]*seal.Cipher{},
		byID: map[seal.KeyID]*seal.Cipher{}, retired: map[seal.KeyID]bool{}, gone: map[holdfast.AssignmentID]bool{},
	}
}

func (k *keeper) journalCipher(a holdfast.AssignmentID, b seal.Bucket) *seal.Cipher {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := journalCell{a, b}
	if k.journal[at] == nil {
		c := seal.NewCipher(seal.NewKey())
		k.journal[at], k.byID[c.ID()] = c, c
	}
	return k.journal[at]
}

// retire destroys the journal key of a bucket.
func (k *keeper) retire(a holdfast.AssignmentID, b seal.Bucket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.journal[journalCell{a, b}]; c != nil {
		k.retired[c.ID()] = true
		delete(k.byID, c.ID())
		delete(k.journal, journalCell{a, b})
	}
}

// destroy destroys all keys of an assignment.
func (k *keeper) destroy(a holdfast.AssignmentID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone[a] = true
	for c := range k.streams {
		if c.Assignment == a {
			delete(k.streams, c)
		}
	}
	for c, cipher := range k.journal {
		if c.a == a {
			k.retired[cipher.ID()] = true
			delete(k.byID, cipher.ID())
			delete(k.journal, c)
		}
	}
}

// replace puts another key in force for a cell, none if to is nil.
func (k *keeper) replace(c Cell, to *seal.Cipher) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.streams, c)
	if to != nil {
		k.streams[c] = to
	}
}

func (k *keeper) JournalOpener(_ context.Context, a holdfast.AssignmentID, b seal.Bucket, id seal.KeyID) (*seal.Cipher, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.byID[id]; c != nil {
		return c, nil
	}
	if k.retired[id] {
		return nil, vault.ErrRetired
	}
	return nil, holdfast.Errorf(holdfast.Internal, "journal key %s is not known", id)
}

func (k *keeper) StreamCiphers(_ context.Context, a holdfast.AssignmentID, b seal.Bucket, streams []holdfast.StreamID) (map[holdfast.StreamID]*seal.Cipher, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone[a] {
		return nil, holdfast.Errorf(holdfast.NotFound, "assignment %s has no key", a)
	}
	out := map[holdfast.StreamID]*seal.Cipher{}
	for _, s := range streams {
		c := Cell{a, s, b}
		if k.streams[c] == nil {
			k.streams[c] = seal.NewCipher(seal.NewKey())
		}
		out[s] = k.streams[c]
	}
	return out, nil
}

func (k *keeper) StreamCipher(_ context.Context, a holdfast.AssignmentID, b seal.Bucket, s holdfast.StreamID) (*seal.Cipher, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.streams[Cell{a, s, b}]; c != nil {
		return c, nil
	}
	return nil, holdfast.Errorf(holdfast.NotFound, "stream %s has no key", s)
}

// revive lets an erased assignment's name be used again.
func (k *keeper) revive(a holdfast.AssignmentID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.gone, a)
}
