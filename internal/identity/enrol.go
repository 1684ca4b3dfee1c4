package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// CertificateIssued is the ledger's payload of "certificate issued".
type CertificateIssued struct {
	Device      holdfast.DeviceID `json:"device"`
	Fingerprint string            `json:"fingerprint"` // SHA-256 of the signed part
	Key         string            `json:"key"`         // SHA-256 of the public key
	NotAfter    time.Time         `json:"notAfter"`
	Renewal     bool              `json:"renewal"` // by certificate, not by code
}

// errRefused is the one answer to whatever is wrong with a device's id, secret,
// code or its age: it does not tell which.
func errRefused() error {
	return holdfast.Errorf(holdfast.Denied, "enrolment refused: the device or the code is wrong, used, replaced or expired")
}

// errLimit marks refusals for a rate.
var errLimit = errors.New("try again in some minutes")

func errBusy(what string) error {
	return holdfast.Errorf(holdfast.Unavailable, "too many %s: %w", what, errLimit)
}

// Enrol gives a device its certificate for a code's secret. The code then belongs
// to the key of the request: the same code with the same key gets a certificate
// again until the code's end, in case the answer was lost; with another key it is
// refused. from is the address that failures are counted for; a right secret passes
// however many there were, or a stranger could keep devices out.
func (i *Identity) Enrol(ctx context.Context, device, secret string, csr []byte, from string) (*x509.Certificate, error) {
	now := i.now()
	c, err := i.enrol(ctx, device, secret, csr, now)
	if holdfast.KindOf(err) != holdfast.Denied {
		return c, err
	}
	if !i.failures.Spend(from, now) {
		return nil, errBusy("failed enrolments from this address")
	}
	i.log.WarnContext(ctx, "enrolment refused", "from", from)
	return nil, err
}

func (i *Identity) enrol(ctx context.Context, device, secret string, csr []byte, now time.Time) (*x509.Certificate, error) {
	d, err := holdfast.ParseID[holdfast.DeviceID](device)
	if err != nil {
		return nil, errRefused()
	}
	var stored, key []byte
	var until int64
	err = i.catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT secret_hash, not_after, spki FROM enrolment_code WHERE device = $1`, d).Scan(&stored, &until, &key)
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("look up enrolment code of device %s: %w", d, err)
	}
	hash := hashSecret(d, secret)
	if subtle.ConstantTimeCompare(hash[:], stored) != 1 || now.UnixNano() > until {
		return nil, i.failed(device, now)
	}
	request, err := readRequest(csr)
	if err != nil {
		return nil, err
	}
	spki := sha256.Sum256(request.RawSubjectPublicKeyInfo)
	if key != nil && !bytes.Equal(key, spki[:]) {
		return nil, i.failed(device, now)
	}
	return i.issue(ctx, d, request, false, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `UPDATE enrolment_code SET spki = $1 WHERE device = $2 AND secret_hash = $3 AND (spki IS NULL OR spki = $1)`,
			spki[:], d, hash[:])
		if err := exactlyOne(r, err); err != nil {
			return err
		}
		return endCode(ctx, tx, d)
	})
}

// failed counts a failed enrolment of a device and returns what is answered.
func (i *Identity) failed(device string, now time.Time) error {
	if !i.failing.Spend(device, now) {
		return errBusy("failed enrolments of this device")
	}
	return errRefused()
}

// Renew gives a device a new certificate for the one it presents: a valid one, or
// one that expired up to 180 days ago and was neither revoked nor superseded. The
// key may be another; the old certificate then ends when the new one is first
// used. The device's enrolment code, if one is left, ends now.
func (i *Identity) Renew(ctx context.Context, cs tls.ConnectionState, csr []byte) (*x509.Certificate, error) {
	l, err := i.leafOf(cs)
	if err != nil {
		return nil, err
	}
	if l.device.IsZero() {
		return nil, errNotDevice()
	}
	if i.now().After(l.notAfter.Add(grace)) {
		return nil, holdfast.Errorf(holdfast.Denied, "the certificate expired on %s, more than %d days ago: enrol again with a new code",
			l.notAfter.UTC().Format(time.DateOnly), grace/(24*time.Hour))
	}
	if _, err := i.admit(ctx, l, cs.Version); err != nil {
		return nil, err
	}
	request, err := readRequest(csr)
	if err != nil {
		return nil, err
	}
	// RFC 7030, 4.2.2: the subject must be the certificate's. Compared as parsed:
	// OpenSSL writes a UTF8String where we write a PrintableString. A request that
	// leaves it empty means no other.
	if have := request.Subject.String(); have != "" && have != cs.PeerCertificates[0].Subject.String() {
		return nil, holdfast.Errorf(holdfast.Invalid, "the request's subject must be the certificate's: CN=%s, or empty", l.device)
	}
	if i.now().After(l.notAfter) {
		i.log.InfoContext(ctx, "an expired certificate renews itself", "device", l.device.String(), "expired", l.notAfter.UTC())
	}
	return i.issue(ctx, l.device, request, true, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `UPDATE device_certificate SET state = $1 WHERE fingerprint = $2 AND state = $1`, stateUsed, l.fingerprint[:])
		if err := exactlyOne(r, err); err != nil {
			return err
		}
		if err := endCode(ctx, tx, l.device); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM enrolment_code WHERE device = $1`, l.device)
		return err
	})
}

// exactlyOne turns an update that found nothing, because what was true before the
// transaction no longer is, into a refusal.
func exactlyOne(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return errRefused()
}

// issue signs and records a certificate; still checks within the transaction that
// the device may have it.
func (i *Identity) issue(ctx context.Context, d holdfast.DeviceID, request *x509.CertificateRequest, renewal bool, still func(*sql.Tx) error) (*x509.Certificate, error) {
	now := i.now()
	if !i.issuing.Spend(d.String(), now) {
		return nil, errBusy("certificates for this device")
	}
	c, err := i.authority.client(request.PublicKey, deviceURN, d.String(), now, deviceLife)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of device %s: %w", d, err)
	}
	l := leaf{device: d, fingerprint: fingerprintOf(c), spki: spkiHash(c), notBefore: c.NotBefore, notAfter: c.NotAfter}
	err = i.catalog.Write(ctx, func(tx *sql.Tx) error {
		if err := still(tx); err != nil {
			return err
		}
		owner, err := i.ownerOf(ctx, tx, d)
		if err != nil {
			return err
		}
		if err := refuseSharedKey(ctx, tx, l); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM device_certificate WHERE device = $1 AND not_after < $2`, d, now.Add(-grace).UnixNano()); err != nil {
			return err
		}
		var number int64
		err = tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(number), 0) + 1 FROM device_certificate WHERE device = $1`, d).Scan(&number)
		if err != nil {
			return err
		}
		if err := insertCertificate(ctx, tx, l, number, stateFresh); err != nil {
			return err
		}
		_, err = i.ledger.Append(ctx, tx, owner, "certificate issued", CertificateIssued{Device: d,
			Fingerprint: hex.EncodeToString(l.fingerprint[:]), Key: hex.EncodeToString(l.spki[:]), NotAfter: l.notAfter.UTC(), Renewal: renewal})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("issue certificate of device %s: %w", d, err)
	}
	return c, nil
}

// refuseSharedKey keeps one key from standing for two devices: they could not be
// told apart, and two owners' devices could be linked.
func refuseSharedKey(ctx context.Context, tx *sql.Tx, l leaf) error {
	var n int
	err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM device_certificate WHERE spki = $1 AND device <> $2`, l.spki[:], l.device).Scan(&n)
	if err == nil && n > 0 {
		return holdfast.Errorf(holdfast.Conflict, "this key is another device's already: make a key of its own for each")
	}
	return err
}
