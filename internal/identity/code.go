package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Code is what a device needs to get its first certificate: where to ask, who it
// is, a one-time secret, and whom to trust. Its text is
//
//	hf1:HOST:PORT/DEVICE/SECRET/CA-SPKI-SHA256
//
// described in docs/format/enrolment.md. Printed by fmt it shows nothing.
type Code struct {
	Host   string // a DNS name or an IP address, without brackets
	Port   uint16
	Device holdfast.DeviceID
	Secret [16]byte
	CA     [32]byte // SHA-256 of the authority's public key (SPKI, DER)
}

const (
	codePrefix  = "hf1:"
	maxCode     = 512
	defaultPort = "8444"
	codeLife    = 7 * 24 * time.Hour
	maxCodeLife = 400 * 24 * time.Hour
)

var secretText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Text returns the code as it is handed to a device.
func (c Code) Text() string {
	return codePrefix + c.Address() + "/" + c.Device.String() + "/" + c.SecretText() + "/" + hex.EncodeToString(c.CA[:])
}

// Address returns HOST:PORT as for net.Dial.
func (c Code) Address() string { return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) }

// SecretText returns the secret as it is sent in HTTP Basic authentication.
func (c Code) SecretText() string { return secretText.EncodeToString(c.Secret[:]) }

// Format and MarshalText keep codes out of logs and errors, whatever the verb.
func (c Code) Format(f fmt.State, _ rune)   { io.WriteString(f, "enrolment code") }
func (c Code) MarshalText() ([]byte, error) { return []byte("enrolment code"), nil }

// ParseCode reads what Text writes, and nothing else.
func ParseCode(s string) (Code, error) {
	var c Code
	bad := holdfast.Errorf(holdfast.Invalid, "an enrolment code looks like hf1:HOST:PORT/DEVICE/SECRET/CA-SPKI-SHA256")
	rest, ok := strings.CutPrefix(s, codePrefix)
	if !ok || len(s) > maxCode {
		return c, bad
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 4 {
		return c, bad
	}
	host, port, err := net.SplitHostPort(parts[0])
	if err != nil || !isHost(host) {
		return c, bad
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return c, bad
	}
	c.Host, c.Port = host, uint16(n)
	if c.Device, err = holdfast.ParseID[holdfast.DeviceID](parts[1]); err != nil || c.Device.IsZero() {
		return Code{}, bad
	}
	secret, err := secretText.DecodeString(parts[2])
	if err != nil || len(secret) != len(c.Secret) {
		return Code{}, bad
	}
	c.Secret = [16]byte(secret)
	ca, err := hex.DecodeString(parts[3])
	if err != nil || len(ca) != len(c.CA) {
		return Code{}, bad
	}
	c.CA = [32]byte(ca)
	if c.Text() != s { // one text per code
		return Code{}, bad
	}
	return c, nil
}

// CodeOptions tunes MakeCode; the zero value works.
type CodeOptions struct {
	Address string        // HOST:PORT or HOST of the devices' listener; default: the hub's first host, port 8444
	Life    time.Duration // default 7 days, at most 400
}

// CodeMade is the ledger's payload of "enrolment code made".
type CodeMade struct {
	Device holdfast.DeviceID `json:"device"`
	Until  time.Time         `json:"until"`
}

// MakeCode makes the one enrolment code of a device, which from now on belongs to
// assignment a (zero while nobody owns it); an earlier code of the device ends.
// The secret is in what it returns and nowhere else: the catalog keeps a hash.
func (i *Identity) MakeCode(ctx context.Context, d holdfast.DeviceID, a holdfast.AssignmentID, o CodeOptions) (c Code, until time.Time, err error) {
	err = i.catalog.Write(ctx, func(tx *sql.Tx) error {
		c, until, err = i.MakeCodeWithin(ctx, tx, d, a, o)
		return err
	})
	if err != nil {
		return Code{}, time.Time{}, err
	}
	i.live.forgetAdmissions()
	return c, until, nil
}

// MakeCodeWithin is MakeCode in the transaction in which a new device begins.
func (i *Identity) MakeCodeWithin(ctx context.Context, tx *sql.Tx, d holdfast.DeviceID, a holdfast.AssignmentID, o CodeOptions) (Code, time.Time, error) {
	c := Code{Device: d, CA: i.authority.pin}
	until := i.now().Add(codeLife)
	if o.Life != 0 {
		until = i.now().Add(o.Life)
	}
	if d.IsZero() || o.Life < 0 || o.Life > maxCodeLife {
		return Code{}, time.Time{}, holdfast.Errorf(holdfast.Invalid, "an enrolment code is for a device and lives at most %d days", maxCodeLife/(24*time.Hour))
	}
	if err := i.address(&c, o.Address); err != nil {
		return Code{}, time.Time{}, err
	}
	rand.Read(c.Secret[:])
	hash := hashSecret(d, c.SecretText())
	write := func() error {
		if err := bind(ctx, tx, d, a); err != nil {
			return err
		}
		if err := endCode(ctx, tx, d); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO enrolment_code (device, secret_hash, not_after, spki) VALUES ($1, $2, $3, NULL)
			ON CONFLICT (device) DO UPDATE SET secret_hash = excluded.secret_hash, not_after = excluded.not_after, spki = NULL`,
			d, hash[:], until.UnixNano())
		if err != nil {
			return err
		}
		_, err = i.ledger.Append(ctx, tx, ownerOfAssignment(a), "enrolment code made", CodeMade{Device: d, Until: until.UTC()})
		return err
	}
	if err := write(); err != nil {
		return Code{}, time.Time{}, fmt.Errorf("make enrolment code of device %s: %w", d, err)
	}
	return c, until, nil
}

func (i *Identity) address(c *Code, address string) error {
	if address == "" {
		address = (*i.hosts.Load())[0]
	}
	host, port := strings.Trim(address, "[]"), defaultPort
	if !isHost(host) {
		var err error
		if host, port, err = net.SplitHostPort(address); err != nil || !isHost(host) {
			return holdfast.Errorf(holdfast.Invalid, "the address for devices is HOST or HOST:PORT")
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return holdfast.Errorf(holdfast.Invalid, "the port for devices is 1 to 65535")
	}
	c.Host, c.Port = host, uint16(n)
	return nil
}

// Bind says that a device, from now on, belongs to assignment a: after a claim.
func (i *Identity) Bind(ctx context.Context, d holdfast.DeviceID, a holdfast.AssignmentID) error {
	err := i.catalog.Write(ctx, func(tx *sql.Tx) error { return bind(ctx, tx, d, a) })
	if err != nil {
		return fmt.Errorf("bind device %s: %w", d, err)
	}
	i.live.forgetAdmissions()
	return nil
}

func bind(ctx context.Context, tx *sql.Tx, d holdfast.DeviceID, a holdfast.AssignmentID) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO identity_device (device, assignment, revoked) VALUES ($1, $2, 0)
		ON CONFLICT (device) DO UPDATE SET assignment = excluded.assignment`, d, a)
	return err
}

// hashSecret needs no salt and no stretching: the secret has 128 random bits.
func hashSecret(d holdfast.DeviceID, secret string) [32]byte {
	h := sha256.New()
	h.Write([]byte("holdfast enrolment\x00"))
	h.Write(d[:])
	h.Write([]byte(secret))
	return [32]byte(h.Sum(nil))
}
