// Package alarm warns: a rule looks at readings, and when what it waits for is so, it
// says so by webhook and mail (package outbox).
//
// A rule is a use of readings like any other: it has a purpose, and reads under the
// credential that made it, through query, with its decision and its disclosure. When
// that is refused (a grant was withdrawn, the credential has ended) the rule is
// denied: it shows and says nothing until it is allowed again.
//
// It promises that what a rule comes to depends on the readings and their times, not
// on when somebody looked (machine.go); that a change and the message about it are
// durable together, so that a restart neither forgets an alarm nor says it twice; and
// that what it keeps of somebody's readings is sealed under the key of their
// assignment and goes with an erasure.
//
// Readings are looked at by their own time. One that comes later than Late is passed
// over if its stream is watched with others.
package alarm

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// sealer is the vault, as this package needs it. No method may be called
// within a catalog transaction.
type sealer interface {
	vault.Fields
	Hash(ctx context.Context, domain, text string) ([]byte, error)
}

// recorder is the ledger: Append is called in the caller's write transaction.
type recorder interface {
	Append(ctx context.Context, tx *sql.Tx, o vault.Owner, kind string, payload any) (uint64, error)
}

// Deps is what Alarms stand on.
type Deps struct {
	Catalog     *catalog.DB
	Vault       sealer
	Ledger      recorder
	Read        func(context.Context, query.Request) (*query.Result, error) // package query
	Outbox      *outbox.Outbox
	Expressions Expressions // nil: there are no rules with expressions
	// Acting returns who a credential is that has asked for something to be done while
	// its holder is away, or Denied: package access.
	Acting func(ctx context.Context, id holdfast.CredentialID) (access.Principal, error)
}

// Options tunes Alarms; the zero value works.
type Options struct {
	Now func() time.Time // default time.Now
	Log *slog.Logger     // default: nothing is logged
}

// Alarms keeps rules and looks. It is safe for concurrent use.
type Alarms struct {
	Deps
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics

	adding sync.Mutex // held while a rule is added, so that their number is right

	mu    sync.Mutex
	rules map[holdfast.AlarmID]*rule
	wake  chan struct{}
}

// rule is a rule and how it fares. What is sealed is written under mu, too, so that
// memory and catalog agree.
type rule struct {
	id    holdfast.AlarmID
	party holdfast.PartyID

	mu        sync.Mutex
	ended     bool
	spec      info
	state     standing
	instances map[instanceID]*instance
	events    int64 // number of the last
	next      time.Time
	saved     time.Time // when all instances were written last
}

// info is what a rule is, sealed.
type info struct {
	Spec
	Purpose    holdfast.Purpose      `json:"purpose"`
	Credential holdfast.CredentialID `json:"credential"`
	Holder     holdfast.CredentialID `json:"holder"`
	Actor      holdfast.PartyID      `json:"actor,omitzero"`
	Made       int64                 `json:"made"`
}

// standing is how a rule fares as a whole, sealed.
type standing struct {
	Looked  int64  `json:"-"`
	Settled int64  `json:"settled,omitempty"` // when all instances that are written had looked
	Denied  string `json:"denied,omitempty"`  // why the rule may not look
	Muted   int64  `json:"muted,omitempty"`   // until when
	Reason  string `json:"reason,omitempty"`  // of the mute
	Told    int64  `json:"told,omitempty"`    // when the last message was sent
}

// instanceID is a stream's id, or a hash of an element's labels.
type instanceID = holdfast.StreamID

// instance is what a rule knows of one stream or element.
type instance struct {
	id         instanceID
	assignment holdfast.AssignmentID // zero: of an expression
	machine
	kept

	labels map[string]string // of an expression; not kept
	dirty  bool
}

// kept is what an instance has besides its machine.
type kept struct {
	Device holdfast.DeviceID     `json:"device,omitzero"`
	Name   string                `json:"name,omitempty"` // of the device
	Stream string                `json:"stream,omitempty"`
	Unit   string                `json:"unit,omitempty"`
	Owner  holdfast.PartyID      `json:"owner,omitzero"`
	Owed   owed                  `json:"owed,omitempty"`
	Acked  int64                 `json:"acked,omitempty"`
	By     holdfast.CredentialID `json:"by,omitzero"`
	Note   string                `json:"note,omitempty"`
	Muted  int64                 `json:"muted,omitempty"`
	Reason string                `json:"reason,omitempty"`
}

// owed is what is still to be said of an instance.
type owed uint8

const (
	owedFiring owed = 1 << iota
	owedResolved
)

// Limits.
const (
	maxRules     = 1_000  // of one party
	maxInstances = 20_000 // of one rule
	keepEvents   = 1_000  // of one rule
	keepDays     = 90
	deniedEvery  = time.Minute     // how often a rule that is denied asks again
	saveEvery    = 5 * time.Minute // how often what moves without a change is written
	workers      = 4
	firstBack    = time.Hour // how far the first look goes back
	tick         = time.Second
	pruneEvery   = time.Hour
	lookWithin   = time.Minute
	maxNote      = 1_000
)

// Open reads all rules, and where they stood.
func Open(ctx context.Context, d Deps, o Options) (*Alarms, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &Alarms{Deps: d, now: o.Now, log: o.Log, metrics: newMetrics(), rules: make(map[holdfast.AlarmID]*rule), wake: make(chan struct{}, 1)}
	if err := a.load(ctx); err != nil {
		return nil, fmt.Errorf("open alarms: %w", err)
	}
	return a, nil
}

// Run looks until ctx ends. Without rules it sleeps.
func (a *Alarms) Run(ctx context.Context) error {
	t := time.NewTimer(0)
	defer t.Stop()
	pruned := a.now()
	for {
		a.mu.Lock()
		none := len(a.rules) == 0
		a.mu.Unlock()
		if none {
			select {
			case <-ctx.Done():
				return nil
			case <-a.wake:
			}
		}
		a.Look(ctx)
		if now := a.now(); now.Sub(pruned) >= pruneEvery {
			pruned = now
			if err := a.prune(ctx); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "alarm: old history is still kept", "error", err)
			}
		}
		t.Reset(tick)
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			a.saveAll(last)
			return nil
		case <-a.wake:
		case <-t.C:
		}
	}
}

// Look has every rule look that is due.
func (a *Alarms) Look(ctx context.Context) {
	now := a.now()
	due := make(chan *rule)
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for r := range due {
				a.look(ctx, r, now)
			}
		})
	}
	for _, r := range a.all() {
		r.mu.Lock()
		is := !r.next.After(now)
		r.mu.Unlock()
		if is && ctx.Err() == nil {
			due <- r
		}
	}
	close(due)
	working.Wait()
}

func (a *Alarms) all() []*rule {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*rule, 0, len(a.rules))
	for _, r := range a.rules {
		all = append(all, r)
	}
	return all
}

func (a *Alarms) awake() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// saveAll writes what moved since it was written last.
func (a *Alarms) saveAll(ctx context.Context) {
	for _, r := range a.all() {
		r.mu.Lock()
		if !r.ended {
			for _, i := range r.instances {
				i.dirty = true
			}
			if err := a.save(ctx, r, nil); err != nil {
				a.log.WarnContext(ctx, "alarm: where a rule stands is not written; it looks again from where it was", "alarm", r.id, "error", err)
			}
		}
		r.mu.Unlock()
	}
}

func dayOf(t time.Time) int64 { return t.Unix() / 86400 }

// sorted returns a rule's instances in an order that stays.
func (r *rule) sorted() []*instance {
	all := make([]*instance, 0, len(r.instances))
	for _, i := range r.instances {
		all = append(all, i)
	}
	slices.SortFunc(all, func(x, y *instance) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Stream, y.Stream), slices.Compare(x.id[:], y.id[:]))
	})
	return all
}

// keeper is whose key seals what is kept of an instance.
func (r *rule) keeper(assignment holdfast.AssignmentID) vault.Owner {
	if assignment.IsZero() {
		return vault.OfParty(r.party)
	}
	return vault.OfAssignment(assignment)
}
