package identity

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Peer is the device at the other end of a connection.
type Peer struct {
	Device      holdfast.DeviceID
	Assignment  holdfast.AssignmentID // zero while unclaimed
	Fingerprint [32]byte              // of its certificate's signed part
	NotAfter    time.Time             // of its certificate
	TLS12       bool                  // the connection is not TLS 1.3
}

// States of a device's certificate; the numbers stand in the catalog.
const (
	stateFresh      = 1 // issued, never seen since
	stateUsed       = 2
	stateSuperseded = 3 // a later one with another key was used
	stateRevoked    = 4
)

// grace is how long after its end a certificate may still renew itself.
const grace = 180 * 24 * time.Hour

// Peer judges the certificate of a connection: signed by our authority for a
// device, within its time, known to the catalog, neither superseded nor revoked.
// A refusal is Denied and says why. The first use of a certificate supersedes
// the device's earlier ones with other keys.
//
// Whoever keeps the connection calls Track as well, so that a revocation ends it.
func (i *Identity) Peer(ctx context.Context, cs tls.ConnectionState) (Peer, error) {
	l, err := i.leafOf(cs)
	if err != nil {
		return Peer{}, err
	}
	if l.device.IsZero() {
		return Peer{}, errNotDevice()
	}
	if err := l.current(i.now()); err != nil {
		return Peer{}, err
	}
	p, err := i.admit(ctx, l, cs.Version)
	if err == nil && p.TLS12 {
		i.live.cameByOldTLS(p.Device, i.now())
	}
	return p, err
}

// admit checks what the catalog knows of a verified leaf.
func (i *Identity) admit(ctx context.Context, l leaf, version uint16) (Peer, error) {
	p := Peer{Device: l.device, Fingerprint: l.fingerprint, NotAfter: l.notAfter, TLS12: version < tls.VersionTLS13}
	if err := i.live.refusal(l.fingerprint); err != nil {
		return Peer{}, err
	}
	if a, ok := i.live.assignment(l.fingerprint); ok {
		p.Assignment = a
		return p, nil
	}
	epoch := i.live.epoch()
	var state int
	err := i.catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT c.state, d.assignment FROM device_certificate c
			JOIN identity_device d ON d.device = c.device WHERE c.fingerprint = $1 AND c.device = $2`,
			l.fingerprint[:], l.device).Scan(&state, &p.Assignment)
	})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if p.Assignment, err = i.adopt(ctx, l); err != nil {
			return Peer{}, err
		}
	case err != nil:
		return Peer{}, fmt.Errorf("look up certificate of device %s: %w", l.device, err)
	case state == stateFresh:
		if err := i.firstUse(ctx, l); err != nil {
			return Peer{}, err
		}
	case state != stateUsed:
		return Peer{}, errTakenBack(state)
	}
	i.live.admit(epoch, l.fingerprint, p.Assignment)
	return p, i.live.refusal(l.fingerprint) // it may have been revoked meanwhile
}

// leaf is a certificate that our authority signed for a client, at whatever time.
type leaf struct {
	device              holdfast.DeviceID     // or
	credential          holdfast.CredentialID // one of the two
	fingerprint, spki   [32]byte
	notBefore, notAfter time.Time
}

// current refuses a leaf that has expired. Its beginning is not asked for: our
// own signature shows that it has begun, and a clock of ours that was set back
// must not lock devices out.
func (l leaf) current(now time.Time) error {
	if now.After(l.notAfter) {
		return holdfast.Errorf(holdfast.Denied, "the certificate expired on %s: renew it by simplereenroll", l.notAfter.UTC().Format(time.DateOnly))
	}
	return nil
}

// maxKnown bounds the memory of verified certificates: about 200 bytes each.
const maxKnown = 1 << 16

// leafOf verifies signature, purpose and name of a connection's certificate. It
// says nothing about time and state. What was verified once is remembered, for
// HTTP asks on every request.
func (i *Identity) leafOf(cs tls.ConnectionState) (leaf, error) {
	if len(cs.PeerCertificates) == 0 {
		return leaf{}, holdfast.Errorf(holdfast.Denied, "a client certificate is needed")
	}
	c := cs.PeerCertificates[0]
	sum := sha256.Sum256(c.Raw)
	i.known.Lock()
	l, ok := i.known.leaf[sum]
	i.known.Unlock()
	if ok {
		return l, nil
	}
	l, err := i.authority.verify(c)
	if err != nil {
		return leaf{}, err
	}
	i.known.Lock()
	if len(i.known.leaf) >= maxKnown {
		clear(i.known.leaf)
	}
	i.known.leaf[sum] = l
	i.known.Unlock()
	return l, nil
}

func (a *authority) verify(c *x509.Certificate) (leaf, error) {
	_, err := c.Verify(x509.VerifyOptions{
		Roots:       a.pool,
		CurrentTime: c.NotBefore, // see current
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil || len(c.URIs) != 1 || c.IsCA {
		return leaf{}, holdfast.Errorf(holdfast.Denied, "the client certificate was not issued by this hub")
	}
	l := leaf{fingerprint: fingerprintOf(c), spki: spkiHash(c), notBefore: c.NotBefore, notAfter: c.NotAfter}
	name := c.URIs[0].String()
	if id, ok := strings.CutPrefix(name, deviceURN); ok {
		err = l.device.UnmarshalText([]byte(id))
	} else if id, ok := strings.CutPrefix(name, credentialURN); ok {
		err = l.credential.UnmarshalText([]byte(id))
	}
	if err != nil || l.device.IsZero() == l.credential.IsZero() {
		return leaf{}, holdfast.Errorf(holdfast.Denied, "the client certificate names neither a device nor a credential")
	}
	return l, nil
}

// Credential returns the id and fingerprint of the certificate of a person or
// program, signed by our authority and within its time. Whether it still counts
// is for package access to say.
func (i *Identity) Credential(_ context.Context, cs tls.ConnectionState) (holdfast.CredentialID, [32]byte, error) {
	l, err := i.leafOf(cs)
	if err != nil {
		return holdfast.CredentialID{}, [32]byte{}, err
	}
	if l.credential.IsZero() {
		return holdfast.CredentialID{}, [32]byte{}, holdfast.Errorf(holdfast.Denied, "the client certificate is not a person's or program's")
	}
	return l.credential, l.fingerprint, l.current(i.now())
}

// firstUse turns a fresh certificate into a used one and supersedes what came
// before it with another key.
func (i *Identity) firstUse(ctx context.Context, l leaf) error {
	var out [][32]byte
	err := i.catalog.Write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `UPDATE device_certificate SET state = $1 WHERE fingerprint = $2 AND state = $3`,
			stateUsed, l.fingerprint[:], stateFresh)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return err // somebody else was first, or it was taken back: the caller asks again
		}
		out, err = supersede(ctx, tx, l)
		return err
	})
	if err != nil {
		return fmt.Errorf("record first use of a certificate of device %s: %w", l.device, err)
	}
	i.live.supersede(i.now(), out)
	return i.stillUsed(ctx, l)
}

// stillUsed reads the state again after a write that may have lost a race.
func (i *Identity) stillUsed(ctx context.Context, l leaf) error {
	var state int
	err := i.catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT state FROM device_certificate WHERE fingerprint = $1`, l.fingerprint[:]).Scan(&state)
	})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errUnknown()
	case err != nil:
		return fmt.Errorf("look up certificate of device %s: %w", l.device, err)
	case state != stateUsed:
		return errTakenBack(state)
	}
	return nil
}

// supersede ends the certificates of l's device that were issued before l for
// other keys, and returns their fingerprints.
func supersede(ctx context.Context, tx *sql.Tx, l leaf) (out [][32]byte, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT fingerprint FROM device_certificate WHERE device = $1 AND spki <> $2 AND state IN ($3, $4)
		AND number < (SELECT number FROM device_certificate WHERE fingerprint = $5)`,
		l.device, l.spki[:], stateFresh, stateUsed, l.fingerprint[:])
	if err != nil {
		return nil, err
	}
	if out, err = scanFingerprints(rows); err != nil {
		return nil, err
	}
	for _, f := range out {
		if _, err := tx.ExecContext(ctx, `UPDATE device_certificate SET state = $1 WHERE fingerprint = $2`, stateSuperseded, f[:]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func scanFingerprints(rows *sql.Rows) (out [][32]byte, err error) {
	defer rows.Close()
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, err
		}
		if len(b) != 32 {
			return nil, errors.New("a fingerprint has 32 bytes")
		}
		out = append(out, [32]byte(b))
	}
	return out, rows.Err()
}

// adopt takes back into the catalog a certificate that our authority signed but
// the catalog does not know: after a restore, those issued since the backup. It
// must be newer than any known one and than the device's last revocation; of a
// device that is not known (erased, or never ours) nothing is adopted.
func (i *Identity) adopt(ctx context.Context, l leaf) (assignment holdfast.AssignmentID, err error) {
	var out [][32]byte
	err = i.catalog.Write(ctx, func(tx *sql.Tx) error {
		var revoked, newest, number int64
		err := tx.QueryRowContext(ctx, `SELECT assignment, revoked FROM identity_device WHERE device = $1`, l.device).Scan(&assignment, &revoked)
		if errors.Is(err, sql.ErrNoRows) {
			return errUnknown()
		}
		if err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(not_before), 0), COALESCE(MAX(number), 0) FROM device_certificate WHERE device = $1`,
			l.device).Scan(&newest, &number)
		if err != nil {
			return err
		}
		if l.notBefore.UnixNano() < newest || l.notBefore.Add(backdate).UnixNano() <= revoked {
			return errUnknown()
		}
		if err := insertCertificate(ctx, tx, l, number+1, stateUsed); err != nil {
			return err
		}
		out, err = supersede(ctx, tx, l)
		return err
	})
	if err != nil {
		return assignment, fmt.Errorf("adopt a certificate of device %s: %w", l.device, err)
	}
	i.log.WarnContext(ctx, "adopted a certificate that the catalog did not know, as after a restore", "device", l.device.String())
	i.live.supersede(i.now(), out)
	return assignment, nil
}

func insertCertificate(ctx context.Context, tx *sql.Tx, l leaf, number int64, state int) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO device_certificate (fingerprint, device, number, spki, not_before, not_after, state)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		l.fingerprint[:], l.device, number, l.spki[:], l.notBefore.UnixNano(), l.notAfter.UnixNano(), state)
	return err
}

func errUnknown() error {
	return holdfast.Errorf(holdfast.Denied, "this hub does not know the client certificate: enrol again")
}

func errTakenBack(state int) error {
	if state == stateSuperseded {
		return holdfast.Errorf(holdfast.Denied, "the client certificate was superseded by a newer one of the same device")
	}
	return holdfast.Errorf(holdfast.Denied, "the client certificate was revoked")
}
