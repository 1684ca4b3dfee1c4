// Package twin keeps what an owner wants of his device and what the device says of
// itself: commands, and the two documents desired and reported.
//
// It promises that a command is durable before its sender is answered, that it is
// given to its device alone, in the order of sending, again and again until the
// device has it, and never once it has expired; that a result is taken once, and from
// that device only; that versions of a document only grow; that all of it is sealed
// under the device's assignment and goes with it; and that every command and every
// change of a desired document stands on the record of the one whose device it is.
//
// Who may: the one whose data the device's own assignment are, in person (a
// household's adult and a child's guardian in its place), and the staff of the
// operating organisation, for the purpose operation, where that organisation is the
// one. Nobody else sends, sees or changes anything, and there is no grant for it.
// While a period of somebody else is in force, nothing is given to the device and
// nothing of its state is taken. While an erasure of the device waits, nothing at all is
// given out, taken or changed; when it is undone all is as before.
//
// It does not retry a command that a device has, nor undo one: a device may see a
// command twice and knows it by its id.
package twin

import (
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Bounds of what is kept.
const (
	MaxArgs     = 64 << 10            // bytes of a command's arguments, and of a result
	MaxDocument = 32 << 10            // bytes of a document
	MaxDepth    = 16                  // levels of objects and lists in any JSON
	MaxKey      = 128                 // bytes of a sender's own key
	MaxReason   = 500                 // bytes
	Life        = time.Hour           // of a command, if nothing else is said
	MaxLife     = 30 * 24 * time.Hour // of a command
	Kept        = 90 * 24 * time.Hour // how long an ended command stays after its expiry
)

// Standing is whose a device is now.
type Standing struct {
	Device     holdfast.DeviceID
	Assignment holdfast.AssignmentID // the device's own
	Whose      holdfast.PartyID      // whose data that one's are; zero: nobody's
	Gateway    holdfast.DeviceID     // of a declared child
	Child      string                // what the gateway calls it
	Refused    error                 // why it takes nothing any more, or not yet
	Elsewhere  bool                  // a period of somebody else is in force
	Ending     error                 // why nothing of it is given out or taken: an erasure of it is under way, and may be undone
}

// House knows whose devices are: package custody, with the purposes that are live
// and the holds that stop collection.
type House interface {
	// Standing is NotFound for a device that does not exist or is erased.
	Standing(ctx context.Context, device holdfast.DeviceID) (Standing, error)
	Child(ctx context.Context, gateway holdfast.DeviceID, name string) (holdfast.DeviceID, error)
	Children(ctx context.Context, gateway holdfast.DeviceID) ([]holdfast.DeviceID, error)
	Operating(ctx context.Context) (holdfast.PartyID, error)
	Live(ctx context.Context, p holdfast.Purpose) bool
	// Stopped reports whether the one whose data it is has stopped the collection of
	// a stream of this name.
	Stopped(whose holdfast.PartyID, a holdfast.AssignmentID, stream string) bool
}

// sealer is the vault, as this package needs it.
type sealer interface {
	vault.Fields
	Hash(ctx context.Context, domain, text string) ([]byte, error)
}

// recorder is the ledger.
type recorder interface {
	Append(ctx context.Context, tx *sql.Tx, o vault.Owner, kind string, payload any) (uint64, error)
}

// Options of a Store; the zero value works.
type Options struct {
	Now     func() time.Time // default time.Now
	Waiting int              // most commands of one device that have not ended, default 100
	Kept    int              // most commands of one device in all, default 1,000
	Watches int              // most connections of one device that wait here, default 16
	Log     *slog.Logger     // default: nothing is logged
}

// Store keeps commands and documents. It is safe for concurrent use.
type Store struct {
	db     *catalog.DB
	keys   sealer
	ledger recorder
	house  House
	o      Options

	// erasing is held by writers for reading and by Erase for writing: a writer has
	// asked whose the device is after an erasure, or its rows are there to be erased.
	erasing sync.RWMutex
	locks   [64]sync.Mutex // by device: its changes, one after the other

	devices  watching // that wait for what is for them
	people   watching // who wait for what comes of it
	released chan struct{}
	paces    paces
	metrics  metrics
}

// New makes a Store over a catalog.
func New(db *catalog.DB, keys sealer, l recorder, h House, o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	set := func(i *int, v int) {
		if *i <= 0 {
			*i = v
		}
	}
	set(&o.Waiting, 100)
	set(&o.Kept, 1_000)
	set(&o.Watches, 16)
	s := &Store{db: db, keys: keys, ledger: l, house: h, o: o, released: make(chan struct{}), metrics: newMetrics()}
	for _, w := range []*watching{&s.devices, &s.people} {
		w.of, w.most, w.over = make(map[holdfast.DeviceID]map[*watch]struct{}), o.Watches, s.released
	}
	s.paces.of = make(map[holdfast.DeviceID]*pace)
	return s
}

func (s *Store) now() time.Time { return s.o.Now().UTC() }

// change begins a change of a device's; the function ends it.
func (s *Store) change(d holdfast.DeviceID) (done func()) {
	s.erasing.RLock()
	l := &s.locks[d[0]%byte(len(s.locks))]
	l.Lock()
	return func() {
		l.Unlock()
		s.erasing.RUnlock()
	}
}

// Release ends all waiting, once, for a shutdown: those who wait are answered with what
// there is.
func (s *Store) Release() { close(s.released) }

// changed tells who waits for a device.
func (s *Store) changed(st Standing) {
	s.devices.changed(st)
	s.people.changed(st)
}

// Peer is a device that has shown its certificate.
type Peer struct {
	Device     holdfast.DeviceID
	Assignment holdfast.AssignmentID
}

// of returns how a peer, or a declared child of it, stands; and refuses a device that
// takes nothing.
func (s *Store) of(ctx context.Context, p Peer, child string) (Standing, error) {
	id := p.Device
	if child != "" {
		var err error
		if id, err = s.house.Child(ctx, p.Device, child); err != nil {
			return Standing{}, err
		}
	}
	st, err := s.house.Standing(ctx, id)
	switch {
	case err != nil:
		return st, err
	case st.Refused != nil:
		return st, st.Refused
	case st.Ending != nil:
		return st, st.Ending
	case child == "" && st.Assignment != p.Assignment, child != "" && st.Gateway != p.Device:
		return st, holdfast.Errorf(holdfast.Denied, "the certificate is of another assignment of the device: enrol again")
	}
	return st, nil
}

// errElsewhere is for a device that is in somebody else's hands by a period.
func errElsewhere() error {
	return holdfast.Errorf(holdfast.Denied, "by the device's assignments this time is somebody else's: nothing of its state is taken until that ends")
}
