package custody

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Route says where a device's readings belong now: to the assignment that its
// certificate was issued for, and, by time, to those of its periods (At). Ask for it
// with each message and don't keep it: a device that is closed or erased gets no
// other one.
type Route struct {
	Device     holdfast.DeviceID
	Assignment holdfast.AssignmentID
	Owner      holdfast.PartyID
	Gateway    holdfast.DeviceID // zero unless a declared child

	whose   holdfast.PartyID // the data subject, else the owner
	device  Device
	profile *Profile // nil: an open device
	denied  error    // why there is no route; then nothing above counts
	streams atomic.Pointer[map[string]*Stream]
	holders []Assignment // the device's periods without what is sealed, those long over too
	periods *timeline    // nil: there are none that readings may fall into
	vacant  []window     // of periods that are erased, those long over too
	nobody  *Route       // of what was taken in them
	stale   atomic.Bool
}

// Stream returns the device's stream of that name if it exists already.
func (r *Route) Stream(name string) (*Stream, bool) {
	s, ok := (*r.streams.Load())[name]
	return s, ok
}

// StreamBytes is Stream for a name in a buffer, of which it makes no string.
func (r *Route) StreamBytes(name []byte) (*Stream, bool) {
	s, ok := (*r.streams.Load())[string(name)]
	return s, ok
}

// Tag returns what the device's profile says about a line protocol tag; false:
// the tag is not mapped, and a point that carries it is refused.
func (r *Route) Tag(key string) (TagRule, bool) {
	if r.profile == nil {
		return "", false
	}
	t, ok := r.profile.Tags[key]
	return t, ok
}

// Limits returns what the device's profile lets it send.
func (r *Route) Limits() ProfileLimits {
	if r.profile == nil {
		return ProfileLimits{}
	}
	return r.profile.Limits
}

// put adds or replaces a stream. Only OpenStream calls it, one at a time.
func (r *Route) put(s *Stream) {
	m := maps.Clone(*r.streams.Load())
	m[s.Name] = s
	r.streams.Store(&m)
}

// Route returns where a device's readings belong. It is Denied with the reason
// while the device has no owner, and when it is closed or erased; NotFound when
// there is no such device.
func (c *Custody) Route(ctx context.Context, id holdfast.DeviceID) (*Route, error) {
	r, err := c.route(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.denied != nil {
		return nil, r.denied
	}
	return r, nil
}

// route is what memory holds of a device, loaded if need be; of one that has no
// route, too.
func (c *Custody) route(ctx context.Context, id holdfast.DeviceID) (*Route, error) {
	c.mu.RLock()
	r := c.routes[id]
	c.mu.RUnlock()
	if r != nil {
		return r, nil
	}
	return c.loadRoute(ctx, id)
}

// known is what memory holds of an assignment that has a route, nil if nothing.
func (c *Custody) known(a holdfast.AssignmentID) *Route {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if r := c.routes[c.deviceOf[a]]; r != nil {
		if r = r.of(a); r != nil && r.denied == nil {
			return r
		}
	}
	return nil
}

// sorted returns the streams by name.
func (r *Route) sorted() []*Stream {
	return slices.SortedFunc(maps.Values(*r.streams.Load()), func(a, b *Stream) int { return cmp.Compare(a.Name, b.Name) })
}

func (c *Custody) loadRoute(ctx context.Context, id holdfast.DeviceID) (*Route, error) {
	c.mu.RLock()
	generation := c.generation
	c.mu.RUnlock()

	d, err := c.readDevice(ctx, id)
	if err != nil {
		return nil, err
	}
	r := &Route{device: d, Device: id, Assignment: d.Assignment, Owner: d.Owner, Gateway: d.Gateway, whose: Assignment{Owner: d.Owner, Subject: d.Subject}.Whose()}
	streams := make(map[string]*Stream)
	r.streams.Store(&streams)
	switch d.State {
	case Active:
		if d.Profile != "" {
			if r.profile, err = c.model(ctx, modelKey{d.Profile, d.ProfileVersion}); err != nil {
				return nil, err
			}
		}
		all, err := c.streams(ctx, ofAssignment, d.Assignment)
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			streams[s.Name] = s
		}
	case Unclaimed:
		r.denied = holdfast.Errorf(holdfast.Denied, "device %s has no owner: its claim code must be used first", id)
	default:
		r.denied = holdfast.Errorf(holdfast.Denied, "device %s is %s", id, d.State)
	}
	if err := c.loadPeriods(ctx, r); err != nil {
		return nil, err
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		return r, nil // something was forgotten while we read: right for now, not to be kept
	}
	if have := c.routes[id]; have != nil {
		return have, nil // another got here first; its streams may be newer
	}
	if len(c.routes) >= c.max {
		for other, r := range c.routes { // any one: the order of a map's range is random
			c.drop(other, r)
			break
		}
	}
	c.routes[id] = r
	c.deviceOf[r.Assignment] = id
	for _, a := range r.holders {
		c.deviceOf[a.ID] = id
	}
	return r, nil
}

// drop takes a route out of memory; under c.mu.
func (c *Custody) drop(id holdfast.DeviceID, r *Route) {
	delete(c.routes, id)
	delete(c.deviceOf, r.Assignment)
	for _, a := range r.holders {
		delete(c.deviceOf, a.ID)
	}
}

// Forget drops what is kept in memory of an assignment; the next question reads
// the catalog. Erasure calls it when an assignment's key is about to go.
func (c *Custody) Forget(a holdfast.AssignmentID) {
	c.forget(func(r *Route) bool { return r.concerns(a) })
}

// concerns reports whether an assignment is one of the device's.
func (r *Route) concerns(a holdfast.AssignmentID) bool {
	return r.Assignment == a || slices.ContainsFunc(r.holders, func(h Assignment) bool { return h.ID == a })
}

// holds reports whether an assignment is a period of the device that takes readings.
func (r *Route) holds(a holdfast.AssignmentID) bool {
	return slices.ContainsFunc(r.holders, func(h Assignment) bool { return h.ID == a && h.State == Active })
}

// RouteInto returns the route into one assignment, whatever the time: for readings
// that are moved into it.
func (c *Custody) RouteInto(ctx context.Context, a Assignment) (*Route, error) {
	r, err := c.Route(ctx, a.Device)
	if err != nil {
		return nil, err
	}
	if into := r.of(a.ID); into != nil {
		return into, into.denied
	}
	if !r.holds(a.ID) {
		return nil, holdfast.Errorf(holdfast.Denied, "assignment %s takes no readings", a.ID)
	}
	into := &Route{Device: r.Device, Assignment: a.ID, Owner: a.Owner, Gateway: r.Gateway, device: r.device, profile: r.profile}
	all, err := c.streams(ctx, ofAssignment, a.ID)
	if err != nil {
		return nil, err
	}
	streams := make(map[string]*Stream, len(all))
	for _, s := range all {
		streams[s.Name] = s
	}
	into.streams.Store(&streams)
	return into, nil
}

// retime is Forget after the periods of a device have changed: readings that were
// told apart by the old ones and are not sealed yet must be told apart again.
func (c *Custody) retime(device holdfast.DeviceID) {
	c.forget(func(r *Route) bool {
		if r.Device == device {
			r.stale.Store(true)
		}
		return r.Device == device
	})
}

func (c *Custody) forget(drop func(*Route) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.changes.Add(1)
	for id, r := range c.routes {
		if drop(r) {
			c.drop(id, r)
		}
	}
	clear(c.children)
}

// Accept returns the stream that x belongs to and its value as that stream's
// type. The first reading of a name makes the stream, durably; the first that
// carries a unit gives it to an open stream that has none. A known stream costs a
// map look-up and touches no lock.
func (c *Custody) Accept(ctx context.Context, r *Route, x *holdfast.Sample) (*Stream, holdfast.Value, error) {
	s, ok := r.Stream(x.Stream)
	if !ok || s.lacksUnit(x) {
		var err error
		if s, err = c.OpenStream(ctx, r, *x); err != nil {
			return nil, holdfast.Value{}, err
		}
	}
	v, err := s.Accept(x)
	return s, v, err
}

// OpenStream returns the stream of x's name, making it if this is the first
// reading of that name: of an open device as x is, of a profiled device as its
// profile says (NotFound if it doesn't). A stream that would not accept x is not
// made. What it returns is durable.
func (c *Custody) OpenStream(ctx context.Context, r *Route, x holdfast.Sample) (*Stream, error) {
	if err := holdfast.CheckName("stream", x.Stream); err != nil {
		return nil, err
	}
	c.opening.Lock()
	defer c.opening.Unlock()

	now, err := c.Route(ctx, r.Device) // r may be older than a claim, a closing, another's new stream
	if err != nil {
		return nil, err
	}
	switch found := now.of(r.Assignment); {
	case found != nil:
		now = found
	case now.holds(r.Assignment): // a period that is long over
		now = r
	default:
		return nil, holdfast.Errorf(holdfast.Denied, "device %s is in another assignment now", r.Device)
	}
	if now.denied != nil {
		return nil, now.denied
	}
	s, ok := now.Stream(x.Stream)
	if !ok {
		if s, err = c.findOrMake(ctx, now, x); err != nil {
			return nil, err
		}
	}
	if s.lacksUnit(&x) {
		info := s.info()
		info.Unit = x.Unit
		if s, err = c.writeStream(ctx, now, info, s.ID, true, x); err != nil {
			return nil, err
		}
	}
	defer c.changes.Add(1) // once memory has it
	now.put(s)
	if r != now {
		r.put(s)
	}
	return s, nil
}

// findOrMake returns the stream of x's name as the catalog has it, else a new one.
func (c *Custody) findOrMake(ctx context.Context, r *Route, x holdfast.Sample) (*Stream, error) {
	info, err := r.define(x) // first: a device that sends names it may not costs no look-up
	if err != nil {
		return nil, err
	}
	hash, err := c.streamHash(ctx, r.Assignment, x.Stream)
	if err != nil {
		return nil, err
	}
	// The map that r holds may be older than another's new stream.
	if s, err := onlyStream(c.streams(ctx, `s.assignment = $1 AND s.name_hash = $2`, r.Assignment, hash)); err == nil || !vault.Gone(err) {
		return s, err
	}
	// An erased stream keeps its id while its assignment lives: the bar that the
	// erasure left names it, and must meet what is sent again under this name.
	var id holdfast.StreamID
	known := true
	err = c.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT id FROM stream WHERE assignment = $1 AND name_hash = $2`, r.Assignment, hash).Scan(&id)
	})
	if errors.Is(err, sql.ErrNoRows) {
		id = holdfast.NewID[holdfast.StreamID]()
		known, err = false, nil
	}
	if err != nil {
		return nil, err
	}
	return c.writeStream(ctx, r, info, id, known, x)
}

// define says what stream a first reading of its name makes.
func (r *Route) define(x holdfast.Sample) (streamInfo, error) {
	if r.profile != nil {
		p, ok := r.profile.stream(x.Stream)
		if !ok {
			return streamInfo{}, holdfast.Errorf(holdfast.NotFound, "the device's profile has no stream of this name")
		}
		return p.info(), nil
	}
	if len(*r.streams.Load()) >= MaxStreams {
		return streamInfo{}, holdfast.Errorf(holdfast.TooLarge, "a device has at most %d streams", MaxStreams)
	}
	if len(x.Unit) > holdfast.MaxNameBytes {
		return streamInfo{}, holdfast.Errorf(holdfast.Invalid, "a unit has at most %d bytes", holdfast.MaxNameBytes)
	}
	return streamInfo{
		Name: x.Stream, Type: openType(x).String(), Unit: x.Unit, Open: true,
		Purposes: []holdfast.Purpose{holdfast.Operation},
	}, nil
}

// writeStream stores a stream that accepts x, over what its row held if known.
func (c *Custody) writeStream(ctx context.Context, r *Route, info streamInfo, id holdfast.StreamID, known bool, x holdfast.Sample) (*Stream, error) {
	s, err := info.stream(id, r.Assignment)
	if err != nil {
		return nil, err
	}
	if _, err := s.Accept(&x); err != nil {
		return nil, err
	}
	hash, err := c.streamHash(ctx, r.Assignment, info.Name)
	if err != nil {
		return nil, err
	}
	box, err := c.seal(ctx, vault.OfAssignment(r.Assignment), "stream", id[:], info)
	if err != nil {
		return nil, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		// Closing and erasing change the state in transactions of their own.
		live, err := exists(ctx, tx, `SELECT count(*) FROM assignment WHERE id = $1 AND state = $2`, r.Assignment, Active)
		if err != nil {
			return err
		}
		if !live {
			return holdfast.Errorf(holdfast.Denied, "device %s is closed", r.Device)
		}
		if known {
			return one(ctx, tx, holdfast.Errorf(holdfast.Unavailable, "the stream was erased just now"),
				`UPDATE stream SET state = $1, info_sealed = $2 WHERE id = $3`, Active, box, id)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO stream (id, assignment, name_hash, state, info_sealed) VALUES ($1, $2, $3, $4, $5)`,
			id, r.Assignment, hash, Active, box)
		return err
	})
	return s, err
}

func (s *Stream) info() streamInfo {
	return streamInfo{
		Name: s.Name, Type: s.Type.String(), Unit: s.Unit, Category: s.Category, Sensitivity: s.Sensitivity, Purposes: s.Purposes,
		RetentionDays: s.RetentionDays, MinimumTier: s.MinimumTier, Open: s.Open,
	}
}

// Child returns the declared child that a gateway calls by name.
func (c *Custody) Child(ctx context.Context, gateway holdfast.DeviceID, name string) (holdfast.DeviceID, error) {
	key := childKey{gateway, name}
	c.mu.RLock()
	id, ok := c.children[key]
	generation := c.generation
	c.mu.RUnlock()
	if ok {
		return id, nil
	}
	if err := checkName("device", name); err != nil {
		return id, err
	}
	hash, err := c.childHash(ctx, gateway, name)
	if err != nil {
		return id, err
	}
	err = c.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT d.id FROM device d JOIN device g ON g.id = d.gateway
			WHERE d.child_hash = $1 AND g.state IN ('active', 'unclaimed')`, hash).Scan(&id)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return id, holdfast.Errorf(holdfast.NotFound, "gateway %s has no child of this name", gateway)
	}
	if err != nil {
		return id, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation && len(c.children) < c.max {
		c.children[key] = id
	}
	return id, nil
}

func (c *Custody) childHash(ctx context.Context, gateway holdfast.DeviceID, name string) ([]byte, error) {
	return c.keys.Hash(ctx, "child name", string(gateway[:])+"\x00"+name)
}
