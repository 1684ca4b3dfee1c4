package identity

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// live is what this process knows without asking the catalog: which
// certificates are refused, which are admitted, and who is connected. A refusal
// stands above an admission, so an answer that was read from the catalog just
// before a revocation does no harm.
type live struct {
	mu       sync.Mutex
	turn     uint64                             // counts what invalidates admissions
	refused  map[[32]byte]refused               // until they expire
	admitted map[[32]byte]holdfast.AssignmentID // used certificates
	tracked  map[holdfast.DeviceID]map[*connection]struct{}
	oldTLS   map[holdfast.DeviceID]time.Time // who came without TLS 1.3, and when last
	prune    int                             // how many refusals make it worth looking for expired ones
}

type refused struct {
	state int
	until int64 // not_after plus grace, ns since 1970
}

type connection struct {
	fingerprint [32]byte
	cut         func(reason error)
}

// load fills the refusals from the catalog: certificates of devices that could
// still renew themselves.
func (l *live) load(ctx context.Context, tx *sql.Tx, now time.Time) error {
	l.refused = make(map[[32]byte]refused)
	l.admitted = make(map[[32]byte]holdfast.AssignmentID)
	l.tracked = make(map[holdfast.DeviceID]map[*connection]struct{})
	l.oldTLS = make(map[holdfast.DeviceID]time.Time)
	rows, err := tx.QueryContext(ctx, `SELECT fingerprint, state, not_after FROM device_certificate WHERE state IN ($1, $2) AND not_after > $3`,
		stateSuperseded, stateRevoked, now.Add(-grace).UnixNano())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		var r refused
		if err := rows.Scan(&b, &r.state, &r.until); err != nil {
			return err
		}
		if len(b) != 32 {
			return fmt.Errorf("read refused certificates: a fingerprint has %d bytes", len(b))
		}
		r.until += int64(grace)
		l.refused[[32]byte(b)] = r
	}
	return rows.Err()
}

func (l *live) refusal(f [32]byte) error {
	l.mu.Lock()
	r, ok := l.refused[f]
	l.mu.Unlock()
	if ok {
		return errTakenBack(r.state)
	}
	return nil
}

func (l *live) assignment(f [32]byte) (holdfast.AssignmentID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.admitted[f]
	return a, ok
}

func (l *live) epoch() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.turn
}

// admit remembers what was read from the catalog at turn, unless something has
// changed since.
func (l *live) admit(turn uint64, f [32]byte, a holdfast.AssignmentID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if turn != l.turn {
		return
	}
	if len(l.admitted) >= maxKnown {
		clear(l.admitted)
	}
	l.admitted[f] = a
}

// supersede refuses certificates from now on. Connections that were made with
// them stay: the device may still be sending over one while it opens the next.
func (l *live) supersede(now time.Time, fs [][32]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse(now, fs, stateSuperseded)
}

// refuse is called with mu held.
func (l *live) refuse(now time.Time, fs [][32]byte, state int) {
	if len(l.refused) >= l.prune {
		for f, r := range l.refused {
			if r.until < now.UnixNano() {
				delete(l.refused, f)
			}
		}
		l.prune = 2*len(l.refused) + 1024
	}
	for _, f := range fs {
		l.refused[f] = refused{state, now.Add(deviceLife + grace).UnixNano()}
		delete(l.admitted, f)
	}
	l.turn++
}

// revoke refuses a device's certificates and returns its connections.
func (l *live) revoke(now time.Time, d holdfast.DeviceID, fs [][32]byte) (cut []*connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse(now, fs, stateRevoked)
	for c := range l.tracked[d] {
		cut = append(cut, c)
	}
	return cut
}

func (l *live) forgetAdmissions() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.admitted)
	l.turn++
}

// Track registers a live connection of p. When p's device is revoked or erased,
// cut is called once, from another goroutine; it should close the network
// connection without waiting for the peer. If that has happened since Peer, Track
// calls it before it returns. forget ends the registration.
func (i *Identity) Track(p Peer, cut func(reason error)) (forget func()) {
	c := &connection{fingerprint: p.Fingerprint, cut: cut}
	l := &i.live
	l.mu.Lock()
	r, late := l.refused[p.Fingerprint]
	late = late && r.state == stateRevoked
	if !late {
		m := l.tracked[p.Device]
		if m == nil {
			m = make(map[*connection]struct{})
			l.tracked[p.Device] = m
		}
		m[c] = struct{}{}
	}
	l.mu.Unlock()
	if late {
		cut(errTakenBack(stateRevoked))
		return func() {}
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		m := l.tracked[p.Device]
		delete(m, c)
		if len(m) == 0 {
			delete(l.tracked, p.Device)
		}
	}
}

// Connected returns how many live connections of a device are tracked.
func (i *Identity) Connected(d holdfast.DeviceID) int {
	i.live.mu.Lock()
	defer i.live.mu.Unlock()
	return len(i.live.tracked[d])
}

// Revocation is the ledger's payload of "certificate revoked".
type Revocation struct {
	Device       holdfast.DeviceID `json:"device"`
	Certificates int               `json:"certificates"`
	Reason       string            `json:"reason"`
	At           time.Time         `json:"at"`
}

// Revoke takes back all certificates and the code of a device. When it returns
// nil, that is durable and on record, no connection of the device is admitted any
// more, and the live ones were told to end. The device may be given a new code.
func (i *Identity) Revoke(ctx context.Context, d holdfast.DeviceID, reason string) error {
	var revoked *Revoked
	err := i.catalog.Write(ctx, func(tx *sql.Tx) (err error) {
		revoked, err = i.RevokeWithin(ctx, tx, d, reason)
		return err
	})
	if err != nil {
		return fmt.Errorf("revoke device %s: %w", d, err)
	}
	revoked.Cut(ctx)
	return nil
}

// Revoked is a device whose revocation is written down and not yet felt.
type Revoked struct {
	i      *Identity
	device holdfast.DeviceID
	prints [][32]byte
	at     time.Time
}

// RevokeWithin is Revoke in the transaction in which a device ends. When that has
// committed, Cut must follow. It is NotFound for a device that never had a code.
func (i *Identity) RevokeWithin(ctx context.Context, tx *sql.Tx, d holdfast.DeviceID, reason string) (*Revoked, error) {
	now := i.now()
	owner, err := i.ownerOf(ctx, tx, d)
	if err != nil {
		return nil, err
	}
	fs, err := i.takeBack(ctx, tx, d, now)
	if err != nil {
		return nil, err
	}
	_, err = i.ledger.Append(ctx, tx, owner, "certificate revoked", Revocation{Device: d, Certificates: len(fs), Reason: reason, At: now.UTC()})
	return &Revoked{i, d, fs, now}, err
}

// Cut refuses the certificates from now on and ends the device's connections.
func (r *Revoked) Cut(ctx context.Context) {
	cut(r.i.live.revoke(r.at, r.device, r.prints))
	r.i.log.InfoContext(ctx, "device revoked", "device", r.device.String(), "certificates", len(r.prints))
}

// cut ends connections side by side, for closing one can wait for its peer.
func cut(cs []*connection) {
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() { c.cut(errTakenBack(stateRevoked)) })
	}
	wg.Wait()
}

// takeBack marks a device's certificates revoked and drops its code.
func (i *Identity) takeBack(ctx context.Context, tx *sql.Tx, d holdfast.DeviceID, now time.Time) ([][32]byte, error) {
	rows, err := tx.QueryContext(ctx, `SELECT fingerprint FROM device_certificate WHERE device = $1 AND state <> $2`, d, stateRevoked)
	if err != nil {
		return nil, err
	}
	fs, err := scanFingerprints(rows)
	if err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE device_certificate SET state = $1 WHERE device = $2`, stateRevoked, d); err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE identity_device SET revoked = $1 WHERE device = $2`, now.UnixNano(), d); err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM enrolment_code WHERE device = $1`, d); err != nil {
		return nil, err
	}
	return fs, ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.DeviceRevoked, ID: ledger.TakenID(d)})
}

// ownerOf returns on whose record a device's events stand: its assignment's, or
// the hub's while nobody owns it.
func (i *Identity) ownerOf(ctx context.Context, tx *sql.Tx, d holdfast.DeviceID) (vault.Owner, error) {
	var a holdfast.AssignmentID
	err := tx.QueryRowContext(ctx, `SELECT assignment FROM identity_device WHERE device = $1`, d).Scan(&a)
	if err == sql.ErrNoRows {
		return vault.Owner{}, holdfast.Errorf(holdfast.NotFound, "device %s never had an enrolment code", d)
	}
	return ownerOfAssignment(a), err
}

func ownerOfAssignment(a holdfast.AssignmentID) vault.Owner {
	if a.IsZero() {
		return vault.Hub
	}
	return vault.OfAssignment(a)
}
