package twin

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/vaulttest"
)

// estate is a store over a real catalog, vault and ledger, and whose what is.
type estate struct {
	*Store
	t      testing.TB
	db     *catalog.DB
	keys   *vault.Vault
	ledger *ledger.Ledger
	ahead  time.Duration // the clock is this much later

	mu        sync.Mutex
	operating holdfast.PartyID
	dead      bool // the purpose operation has ended
	stopped   bool // collection is
	devices   map[holdfast.DeviceID]Standing
	asked     int // how often somebody asked for a Standing
	children  map[string]holdfast.DeviceID
}

func newEstate(t testing.TB, o Options) *estate {
	t.Helper()
	db, keys := vaulttest.New(t)
	e := &estate{t: t, db: db, keys: keys, devices: map[holdfast.DeviceID]Standing{}, children: map[string]holdfast.DeviceID{}}
	var err error
	if e.ledger, err = ledger.Create(t.Context(), db, keys, "hub.example/ledger"); err != nil {
		t.Fatal(err)
	}
	e.operating = e.party()
	o.Now = func() time.Time {
		e.mu.Lock()
		defer e.mu.Unlock()
		return time.Now().Add(e.ahead)
	}
	e.Store = New(db, keys, e.ledger, e, o)
	return e
}

// later moves the clock.
func (e *estate) later(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ahead += d
}

func (e *estate) party() holdfast.PartyID {
	e.t.Helper()
	p := holdfast.NewID[holdfast.PartyID]()
	if err := e.keys.AddOwner(e.t.Context(), vault.OfParty(p)); err != nil {
		e.t.Fatal(err)
	}
	return p
}

// device makes a device of a party's; child is what its gateway calls it.
func (e *estate) device(whose holdfast.PartyID, gateway holdfast.DeviceID, child string) Peer {
	e.t.Helper()
	p := Peer{holdfast.NewID[holdfast.DeviceID](), holdfast.NewID[holdfast.AssignmentID]()}
	if err := e.keys.AddOwner(e.t.Context(), vault.OfAssignment(p.Assignment)); err != nil {
		e.t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.devices[p.Device] = Standing{Device: p.Device, Assignment: p.Assignment, Whose: whose, Gateway: gateway, Child: child}
	if child != "" {
		e.children[gateway.String()+child] = p.Device
	}
	return p
}

// becomes changes how a device stands.
func (e *estate) becomes(p Peer, f func(*Standing)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := e.devices[p.Device]
	f(&st)
	e.devices[p.Device] = st
}

func (e *estate) Standing(_ context.Context, d holdfast.DeviceID) (Standing, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	st, ok := e.devices[d]
	if !ok {
		return st, holdfast.Errorf(holdfast.NotFound, "there is no such device")
	}
	return st, nil
}

func (e *estate) Child(_ context.Context, gateway holdfast.DeviceID, name string) (holdfast.DeviceID, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d, ok := e.children[gateway.String()+name]
	if !ok {
		return d, holdfast.Errorf(holdfast.NotFound, "gateway %s has no child of this name", gateway)
	}
	return d, nil
}

func (e *estate) Children(_ context.Context, gateway holdfast.DeviceID) (all []holdfast.DeviceID, _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, d := range e.children {
		if strings.HasPrefix(name, gateway.String()) {
			all = append(all, d)
		}
	}
	return all, nil
}

func (e *estate) Operating(context.Context) (holdfast.PartyID, error) { return e.operating, nil }

func (e *estate) Live(context.Context, holdfast.Purpose) bool { return !e.dead }

func (e *estate) Stopped(holdfast.PartyID, holdfast.AssignmentID, string) bool { return e.stopped }

// owner is a party in person.
func owner(p holdfast.PartyID) Caller {
	return Caller{Credential: holdfast.NewID[holdfast.CredentialID](), Party: p, Owner: true}
}

func (e *estate) mustSend(by Caller, d Peer, name, args string) Command {
	e.t.Helper()
	c, err := e.Send(e.t.Context(), by, Spec{Device: d.Device, Name: name, Args: json.RawMessage(args)})
	if err != nil {
		e.t.Fatal(err)
	}
	return c
}

func (e *estate) state(by Caller, id holdfast.CommandID) string {
	e.t.Helper()
	c, err := e.Command(e.t.Context(), by, id)
	if err != nil {
		e.t.Fatal(err)
	}
	return c.State
}

// record is the kinds of events about a party, oldest first.
func (e *estate) record(p holdfast.PartyID) (kinds []string) {
	e.t.Helper()
	all, err := e.ledger.Events(e.t.Context(), vault.OfParty(p), 0, 1000)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, v := range all {
		kinds = append(kinds, v.Kind)
	}
	return kinds
}

// kind fails unless an error is of a kind and says something.
func kind(t testing.TB, err error, want holdfast.Kind, says string) {
	t.Helper()
	if err == nil || holdfast.KindOf(err) != want || !strings.Contains(err.Error(), says) {
		t.Errorf("%v, want %s with %q", err, want, says)
	}
}

// rows counts what is left of a device in the catalog.
func (e *estate) rows(p Peer) (n int) {
	e.t.Helper()
	for _, q := range []string{`SELECT COUNT(*) FROM command WHERE device = $1`, `SELECT COUNT(*) FROM twin WHERE device = $1`} {
		all, err := catalog.Rows(e.t.Context(), e.db, scanInt, q, p.Device)
		if err != nil {
			e.t.Fatal(err)
		}
		n += all[0]
	}
	return n
}
