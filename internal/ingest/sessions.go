package ingest

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// keeper is the vault, as sessions need it. None of it may be called within a catalog
// transaction.
type keeper interface {
	Hash(ctx context.Context, domain, text string) ([]byte, error)
	vault.Fields
}

// Sessions keeps which MQTT sessions exist, until when, the QoS 2 packet ids that
// each has received and not released, and what each has subscribed to.
//
// That a session exists is durable before a client is told so. Packet ids are
// durable in journal records; the catalog gets them when the journal is about to
// be trimmed (Guard) and Replay puts the two together again. When a session was
// closed is written lazily: after a crash it lives a little longer than asked.
type Sessions struct {
	db    *catalog.DB
	keys  keeper
	clock *Clock

	saving   sync.Mutex // held while rows are written: they go in the order of what they say
	mu       sync.Mutex
	byName   map[string]*session
	byWho    map[who]*session
	byDevice map[holdfast.DeviceID]map[*session]struct{}
	noted    map[string]struct{} // sessions with notes
}

// Client is who has sessions: a device, or a person or program by a credential.
type Client struct {
	ID    [holdfast.IDSize]byte // the device's, or the credential's
	Owner vault.Owner           // the device's assignment, or the credential's party: with it the sessions are erased
}

// DeviceClient is a device as a Client.
func DeviceClient(p identity.Peer) Client {
	return Client{ID: p.Device, Owner: vault.OfAssignment(p.Assignment)}
}

// maxSessions is how many sessions a device or credential has at most: a client that takes
// another id each time it connects would else leave one behind for days each time.
const maxSessions = 64

type who struct {
	device holdfast.DeviceID // or a credential's id
	client [32]byte          // keyed hash of the client id
}

type session struct {
	name     string // 16 random bytes
	who      who
	owner    vault.Owner // of a device the assignment that its certificate is of, else a party
	expiry   time.Duration
	closed   int64 // ns since 1970, 0 while open
	received map[uint16]bool
	stored   bool // has a row
	dirty    bool // the row is not what is here
	notes    map[string]note
	subbed   bool // it may have subscriptions
}

// OpenSessions reads the sessions that outlived the last run and the last known
// arrival time, which the returned clock does not go behind.
func OpenSessions(ctx context.Context, db *catalog.DB, keys keeper) (*Sessions, *Clock, error) {
	s := &Sessions{db: db, keys: keys, byName: map[string]*session{}, byWho: map[who]*session{}, byDevice: map[holdfast.DeviceID]map[*session]struct{}{}, noted: map[string]struct{}{}}
	var floor sql.NullInt64
	err := db.Read(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT max(arrival) FROM ingest_clock`).Scan(&floor); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, `SELECT name, device, assignment, client, expiry, closed, received FROM mqtt_session`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			x := &session{stored: true, received: map[uint16]bool{}}
			var name, client, ids []byte
			var expiry int64
			if err := rows.Scan(&name, &x.who.device, (*holdfast.AssignmentID)(&x.owner), &client, &expiry, &x.closed, &ids); err != nil {
				return err
			}
			x.name, x.expiry = string(name), time.Duration(expiry)*time.Second
			copy(x.who.client[:], client)
			for ; len(ids) >= 2; ids = ids[2:] {
				x.received[binary.BigEndian.Uint16(ids)] = true
			}
			s.keep(x)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		return s.readSubscribed(ctx, tx)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read sessions: %w", err)
	}
	s.clock = NewClock(floor.Int64)
	now := s.clock.Now()
	for _, x := range s.byName {
		if x.closed == 0 { // it was open when the process ended
			x.closed, x.dirty = now, true
		}
	}
	return s, s.clock, nil
}

// Replay takes in the packet ids of a journal record, in the journal's order.
// What the catalog knows may be newer: doing a record again changes nothing then.
func (s *Sessions) Replay(h series.Header, c *series.Content) error {
	s.clock.AtLeast(h.Arrival)
	if len(c.Session) > 0 {
		s.exchanged(string(c.Session), c.Received, c.Released)
	}
	return nil
}

// exchanged notes packet ids whose record is durable.
func (s *Sessions) exchanged(name string, received, released []uint16) {
	if len(received)+len(released) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byName[name]
	if x == nil {
		return
	}
	for _, id := range received {
		x.received[id] = true
	}
	for _, id := range released {
		delete(x.received, id)
	}
	x.dirty = true
}

// Opened is a session as a new connection finds it.
type Opened struct {
	Name     string
	Received []uint16 // QoS 2 packet ids received and not released
	Present  bool     // it existed and goes on

	Subscriptions map[string][]byte // what Keep or Note said last of each, by filter
}

// Open finds or makes the session of a client and its client id; clean ends an older
// one first. It lives until expiry after Close; with an expiry of 0 it ends with
// the connection and leaves no trace on disk.
func (s *Sessions) Open(ctx context.Context, p Client, clientID string, clean bool, expiry time.Duration) (Opened, error) {
	hash, err := s.keys.Hash(ctx, "mqtt client", clientID)
	if err != nil {
		return Opened{}, err
	}
	w := who{device: p.ID}
	copy(w.client[:], hash)
	s.mu.Lock()
	old := s.byWho[w]
	subbed := old != nil && old.subbed
	s.mu.Unlock()
	if old != nil && (clean || s.expired(old)) {
		if err := s.end(ctx, old); err != nil {
			return Opened{}, err
		}
		old = nil
	}
	var subscriptions map[string][]byte
	if old != nil && subbed {
		if subscriptions, err = s.subscriptions(ctx, old); err != nil {
			return Opened{}, err
		}
	}
	x := old
	if x == nil {
		if err := s.makeRoom(ctx, p.ID); err != nil {
			return Opened{}, err
		}
		name := holdfast.NewID[[16]byte]()
		x = &session{name: string(name[:]), who: w, owner: p.Owner, received: map[uint16]bool{}}
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	changed := x.expiry != expiry
	x.expiry, x.closed = expiry, 0
	x.dirty = x.dirty || old != nil
	write := expiry > 0 && (changed || !x.stored)
	drop := expiry == 0 && x.stored
	row := x.row()
	s.mu.Unlock()
	switch {
	case write:
		err = s.db.Write(ctx, row.put)
	case drop: // it now ends with the connection
		err = s.db.Write(ctx, row.drop)
	}
	if err != nil {
		return Opened{}, fmt.Errorf("save session: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x.stored = expiry > 0
	s.keep(x)
	return Opened{Name: x.name, Received: slices.Sorted(maps.Keys(x.received)), Present: old != nil, Subscriptions: subscriptions}, nil
}

// Close says that the connection has ended; an expiry of 0 ends the session.
func (s *Sessions) Close(ctx context.Context, p Client, clientID string, expiry time.Duration) error {
	hash, err := s.keys.Hash(ctx, "mqtt client", clientID)
	if err != nil {
		return err
	}
	w := who{device: p.ID}
	copy(w.client[:], hash)
	s.mu.Lock()
	x := s.byWho[w]
	s.mu.Unlock()
	if x == nil {
		return nil
	}
	if expiry == 0 {
		return s.end(ctx, x)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x.expiry, x.closed, x.dirty = expiry, s.clock.Now(), true
	return nil
}

func (s *Sessions) expired(x *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return x.over(s.clock.Now())
}

func (x *session) over(now int64) bool {
	return x.closed != 0 && now-x.closed > int64(x.expiry)
}

func (s *Sessions) end(ctx context.Context, x *session) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	row, stored := x.row(), x.stored
	s.mu.Unlock()
	if stored {
		if err := s.db.Write(ctx, row.drop); err != nil {
			return fmt.Errorf("end session: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(x)
	return nil
}

// keep and forget are called with mu held.
func (s *Sessions) keep(x *session) {
	s.byName[x.name], s.byWho[x.who] = x, x
	all := s.byDevice[x.who.device]
	if all == nil {
		all = map[*session]struct{}{}
		s.byDevice[x.who.device] = all
	}
	all[x] = struct{}{}
}

func (s *Sessions) forget(x *session) {
	delete(s.byName, x.name)
	if s.byWho[x.who] == x {
		delete(s.byWho, x.who)
	}
	all := s.byDevice[x.who.device]
	delete(all, x)
	if len(all) == 0 {
		delete(s.byDevice, x.who.device)
	}
}

// makeRoom ends the session of a client that was left the longest ago, if it has
// as many as it may. Those with a connection stay: mqtt bounds them.
func (s *Sessions) makeRoom(ctx context.Context, d holdfast.DeviceID) error {
	var oldest *session
	s.mu.Lock()
	if len(s.byDevice[d]) >= maxSessions {
		for x := range s.byDevice[d] {
			if x.closed != 0 && (oldest == nil || x.closed < oldest.closed) {
				oldest = x
			}
		}
	}
	s.mu.Unlock()
	if oldest == nil {
		return nil
	}
	return s.end(ctx, oldest)
}

// Save writes what changed and ends what has expired. The arrival clock goes
// with it.
func (s *Sessions) Save(ctx context.Context) error {
	if err := s.saveNotes(ctx); err != nil {
		return err
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	now := s.clock.Now()
	var put, drop []sessionRow
	var gone []*session
	s.mu.Lock()
	for _, x := range s.byName {
		switch {
		case x.over(now):
			gone = append(gone, x)
			drop = append(drop, x.row())
		case x.dirty && x.expiry > 0:
			x.dirty, x.stored = false, true
			put = append(put, x.row())
		}
	}
	for _, x := range gone {
		s.forget(x)
	}
	s.mu.Unlock()
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, r := range put {
			if err := r.put(tx); err != nil {
				return err
			}
		}
		for _, r := range drop {
			if err := r.drop(tx); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO ingest_clock (one, arrival) VALUES (1, $1) ON CONFLICT (one) DO UPDATE SET arrival = excluded.arrival`, now)
		return err
	})
	if err != nil {
		s.mu.Lock()
		for _, r := range put {
			if x := s.byName[string(r.name)]; x != nil {
				x.dirty = true
			}
		}
		s.mu.Unlock()
		return fmt.Errorf("save sessions: %w", err)
	}
	return nil
}

// Run saves every minute, notes of subscriptions more often, and once more at the end.
func (s *Sessions) Run(ctx context.Context) error {
	t, notes := time.NewTicker(time.Minute), time.NewTicker(noteEvery)
	defer t.Stop()
	defer notes.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.Save(context.WithoutCancel(ctx))
		case <-notes.C:
			if err := s.saveNotes(ctx); err != nil && holdfast.KindOf(err) != holdfast.Unavailable {
				return err
			}
		case <-t.C:
			if err := s.Save(ctx); err != nil && holdfast.KindOf(err) != holdfast.Unavailable {
				return err
			}
		}
	}
}

// Erase ends the sessions of devices whose assignment is erased, and of the people and
// programs of an erased party.
func (s *Sessions) Erase(ctx context.Context, scope holdfast.Scope) error {
	if scope.InPart() {
		return nil
	}
	var gone []*session
	s.mu.Lock()
	for _, x := range s.byName {
		if slices.Contains(scope.Assignments, holdfast.AssignmentID(x.owner)) || scope.Whole && x.owner == vault.OfParty(scope.Party) {
			gone = append(gone, x)
		}
	}
	s.mu.Unlock()
	for _, x := range gone {
		if err := s.end(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

// sessionRow is a session as the catalog has it.
type sessionRow struct {
	name     []byte
	who      who
	owner    vault.Owner
	expiry   int64
	closed   int64
	received []byte
}

func (x *session) row() sessionRow {
	r := sessionRow{name: []byte(x.name), who: x.who, owner: x.owner, expiry: int64(x.expiry / time.Second), closed: x.closed, received: []byte{}}
	for _, id := range slices.Sorted(maps.Keys(x.received)) {
		r.received = binary.BigEndian.AppendUint16(r.received, id)
	}
	return r
}

func (r sessionRow) put(tx *sql.Tx) error {
	_, err := tx.Exec(`INSERT INTO mqtt_session (name, device, assignment, client, expiry, closed, received) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (name) DO UPDATE SET expiry = excluded.expiry, closed = excluded.closed, received = excluded.received`,
		r.name, r.who.device, holdfast.AssignmentID(r.owner), r.who.client[:], r.expiry, r.closed, r.received)
	return err
}

func (r sessionRow) drop(tx *sql.Tx) error {
	if _, err := tx.Exec(`DELETE FROM mqtt_subscription WHERE session = $1`, r.name); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM mqtt_session WHERE name = $1`, r.name)
	return err
}

// Guard wraps the journal so that packet ids are in the catalog before the
// records that carried them go.
func (s *Sessions) Guard(log journal.Log) journal.Log { return guarded{log, s} }

type guarded struct {
	journal.Log
	sessions *Sessions
}

func (g guarded) Trim(before journal.Pos) error {
	if err := g.sessions.Save(context.Background()); err != nil {
		return err
	}
	return g.Log.Trim(before)
}
