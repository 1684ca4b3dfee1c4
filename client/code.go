package client

import (
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Code is what a device needs to enrol: where, as whom, with which one-time
// secret, and whom to trust. Printed by fmt it shows nothing.
type Code struct {
	Address string // HOST:PORT of the devices' listener
	Device  holdfast.DeviceID
	Secret  string   // 26 characters
	CA      [32]byte // SHA-256 of the authority's public key (SPKI, DER)
}

var secretText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Format and MarshalText keep codes out of logs and errors, whatever the verb.
func (c Code) Format(f fmt.State, _ rune)   { io.WriteString(f, "enrolment code") }
func (c Code) MarshalText() ([]byte, error) { return []byte("enrolment code"), nil }

// ParseCode reads hf1:HOST:PORT/DEVICE/SECRET/CA-SPKI-SHA256.
func ParseCode(text string) (Code, error) {
	bad := holdfast.Errorf(holdfast.Invalid, "an enrolment code looks like hf1:HOST:PORT/DEVICE/SECRET/CA-SPKI-SHA256: is it whole?")
	rest, ok := strings.CutPrefix(text, "hf1:")
	if parts := strings.Split(rest, "/"); ok && len(text) <= 512 && len(parts) == 4 {
		if c, err := NewCode("https://"+parts[0], parts[1], parts[2], parts[3]); err == nil && "hf1:"+c.Address+"/"+strings.Join(parts[1:], "/") == text {
			return c, nil
		}
	}
	return Code{}, bad
}

// NewCode puts a code together from its parts: https://HOST:PORT (8444 if left
// out), a device's id, the secret, and the hash in hexadecimal.
func NewCode(hub, device, secret, ca string) (Code, error) {
	var c Code
	u, err := parseHub(hub)
	if err != nil {
		return c, err
	}
	port := u.Port()
	if port == "" {
		port = "8444"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || !isHost(u.Hostname()) {
		return c, holdfast.Errorf(holdfast.Invalid, "the hub's address looks like https://HOST:8444")
	}
	if c.Device, err = holdfast.ParseID[holdfast.DeviceID](device); err != nil || c.Device.IsZero() {
		return c, holdfast.Errorf(holdfast.Invalid, "a device is named by its id of 26 characters")
	}
	if b, err := secretText.DecodeString(secret); err != nil || len(b) != 16 || secretText.EncodeToString(b) != secret {
		return c, holdfast.Errorf(holdfast.Invalid, "the secret of an enrolment code has 26 characters: a-z and 2-7")
	}
	b, err := hex.DecodeString(ca)
	if err != nil || len(b) != len(c.CA) || strings.ToLower(ca) != ca {
		return c, holdfast.Errorf(holdfast.Invalid, "the hash of the authority's key has 64 characters: 0-9 and a-f")
	}
	c.Address = net.JoinHostPort(u.Hostname(), strconv.FormatUint(n, 10))
	c.Secret, c.CA = secret, [32]byte(b)
	return c, nil
}

// isHost refuses what is no host before somebody is asked for it.
func isHost(h string) bool {
	return h != "" && len(h) <= 253 && !strings.ContainsAny(h, "%/?#@ []\\") && (&url.URL{Host: h}).Host == h
}
