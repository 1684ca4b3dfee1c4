package grant

import (
	"context"
	"database/sql"
	"fmt"
	"sync"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// maxSets bounds the parties whose words are kept compiled. One is some ten
// kilobytes with ten grants.
const maxSets = 10_000

// sets keeps what parties said, compiled, until they say something else.
type sets struct {
	mu   sync.Mutex
	kept map[holdfast.PartyID]*said
}

// said is what one party said.
type said struct {
	set     *policy.Set // nil: not compiled since it changed
	changes uint64      // how often it changed while it is kept here
	readers int         // how many are compiling it now
}

// Set returns what a party said of its data: what policy weighs. It is in memory
// after the first question, and every write to the party's grants and holds drops
// it there.
func (r *Register) Set(ctx context.Context, whose holdfast.PartyID) (*policy.Set, error) {
	s, seen, set := r.sets.enter(whose)
	if set != nil {
		return set, nil
	}
	set, err := r.compile(ctx, whose)
	if err != nil {
		set = nil
	}
	r.sets.leave(s, seen, set)
	return set, err
}

func (r *Register) compile(ctx context.Context, whose holdfast.PartyID) (*policy.Set, error) {
	all, err := r.grants(ctx, `grantor = $1 AND state = 'active'`, whose)
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	now := r.now()
	var grants []policy.Grant
	for _, g := range all {
		if now.Before(g.Until) {
			grants = append(grants, g.policy())
		}
	}
	set, err := policy.Compile(whose, grants, r.forbids(whose))
	if err != nil {
		return nil, fmt.Errorf("compile grants: %w", err)
	}
	return set, nil
}

// changed says that a party said something new. Whoever asks from now on gets it;
// every write to its grants and holds calls it once it is committed.
func (r *Register) changed(whose holdfast.PartyID) {
	r.sets.drop(whose)
	r.changes.Add(1)
}

// Changes counts what parties said that was not said before, and changes of purposes.
func (r *Register) Changes() uint64 { return r.changes.Load() }

// enter returns the set of a party if it is compiled, else the place to leave it
// and the number of the last change before the catalog is read.
func (c *sets) enter(whose holdfast.PartyID) (*said, uint64, *policy.Set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.kept[whose]
	if s != nil && s.set != nil {
		return s, s.changes, s.set
	}
	if s == nil {
		if len(c.kept) >= maxSets {
			c.evict()
		}
		s = &said{}
		c.kept[whose] = s
	}
	s.readers++
	return s, s.changes, nil
}

// leave keeps a set, unless what it was made of has changed meanwhile.
func (c *sets) leave(s *said, seen uint64, set *policy.Set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.readers--
	if s.changes == seen {
		s.set = set
	}
}

// evict makes room by dropping whichever set comes first. One that is being
// compiled stays: a change meanwhile would be lost with it.
func (c *sets) evict() {
	for whose, s := range c.kept {
		if s.readers == 0 {
			delete(c.kept, whose)
			return
		}
	}
}

func (c *sets) drop(whose holdfast.PartyID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.kept[whose]; s != nil {
		s.changes++
		s.set = nil
	}
}

// dropAll is drop for every party.
func (c *sets) dropAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.kept {
		s.changes++
		s.set = nil
	}
}

// Between reports whether a party made a recipient a grant that it did not take
// back. It always asks the catalog: how long the answer takes says nothing.
func (r *Register) Between(ctx context.Context, recipient, whose holdfast.PartyID) (bool, error) {
	var have bool
	err := r.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM data_grant WHERE grantor = $1 AND recipient = $2 AND state = 'active')`, whose, recipient).Scan(&have)
	})
	return have, err
}
