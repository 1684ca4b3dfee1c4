// Package escrow splits the power to recover a root key among shareholders.
//
// Deal draws the seed of an HPKE key pair and splits it (Shamir) into n shares,
// any k of which give it back. The hub is given the Public half alone: it wraps
// each new root key to it and can't open what it wrapped. Who holds k shares and
// a keyring head of that time can.
//
// A share is a short text (share.go) that leaves the dealer only inside an age
// file, for its shareholder's key or passphrase. docs/format/recovery.md has
// every byte, docs/recovery.md the ceremony.
//
// It promises that fewer than k shares say nothing about the seed, that a share
// which was altered or belongs to another deal is named as such, and that what
// was wrapped for one hub, generation or use opens for no other. It can't promise
// that a shareholder destroyed a share: he says so.
package escrow

import (
	"bytes"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/corvus-ch/shamir"

	"github.com/holdfast-iot/holdfast"
)

// Limits of a deal.
const (
	MinThreshold = 2
	MaxShares    = 16
	maxName      = 64
)

// ID names a deal: the hash of its public key.
type ID [16]byte

func (id ID) String() string { return encoding.EncodeToString(id[:]) }

// MarshalText writes the id as String does.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) error {
	raw, err := encoding.DecodeString(string(b))
	if err != nil || len(raw) != len(id) || encoding.EncodeToString(raw) != string(b) {
		return holdfast.Errorf(holdfast.Invalid, "not the id of a recovery deal")
	}
	copy(id[:], raw)
	return nil
}

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Public is what everybody may know of a deal, and all that the hub knows.
type Public struct {
	ID           ID            `json:"id"`
	Hub          string        `json:"hub"` // the name of the hub's ledger
	Threshold    int           `json:"threshold"`
	Key          []byte        `json:"public_key"`
	Made         time.Time     `json:"made"`
	Shareholders []Shareholder `json:"shareholders"`
}

// Shareholder is who was dealt a share.
type Shareholder struct {
	Name string `json:"name"` // as the dealer calls them: a place or an office does
	// Share is the commitment to the share, by which its holder checks it alone; Code
	// that to the word which says that it was destroyed.
	Share Digest `json:"share"`
	Code  Digest `json:"code"`
}

// Digest is a SHA-256.
type Digest [sha256.Size]byte

// MarshalText writes the digest in hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", d[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(b []byte) error {
	var raw []byte
	if n, err := fmt.Sscanf(string(b), "%x", &raw); n != 1 || err != nil || len(raw) != len(d) || fmt.Sprintf("%x", raw) != string(b) {
		return holdfast.Errorf(holdfast.Invalid, "not a digest")
	}
	copy(d[:], raw)
	return nil
}

// The suite: hybrid, so that neither a broken curve nor a broken lattice is
// enough.
func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.MLKEM768X25519(), hpke.HKDFSHA256(), hpke.AES256GCM()
}

const seedSize = 32

// Deal draws a key pair and splits its seed among names, any threshold of them.
// The shares are the only way to the private half.
func Deal(hub string, threshold int, names []string, made time.Time) (Public, []Share, error) {
	p := Public{Hub: hub, Threshold: threshold, Made: made.UTC().Truncate(time.Second)}
	for _, name := range names {
		p.Shareholders = append(p.Shareholders, Shareholder{Name: name})
	}
	if err := p.checkForm(); err != nil {
		return p, nil, err
	}
	var seed [seedSize]byte
	rand.Read(seed[:])
	defer clear(seed[:])
	kem, _, _ := suite()
	private, err := kem.DeriveKeyPair(seed[:])
	if err != nil {
		return p, nil, fmt.Errorf("derive recovery key: %w", err)
	}
	p.Key = private.PublicKey().Bytes()
	p.ID = idOf(p.Key)
	parts, err := shamir.Split(seed[:], len(names), threshold)
	if err != nil {
		return p, nil, fmt.Errorf("split recovery seed: %w", err)
	}
	shares := make([]Share, 0, len(names))
	for x, y := range parts {
		i := len(shares)
		s := Share{Hub: hub, Deal: p.ID, Number: i + 1, Of: len(names), Threshold: threshold, Name: names[i], Made: p.Made, X: x, Y: [seedSize]byte(y)}
		clear(y)
		rand.Read(s.Code[:])
		p.Shareholders[i].Share, p.Shareholders[i].Code = s.Commitment(), codeDigest(s.Code)
		shares = append(shares, s)
	}
	// Nobody gets a share of what was not seen to come together again.
	back, err := Combine(shares[:threshold])
	if err != nil {
		return p, nil, fmt.Errorf("try recovery deal: %w", err)
	}
	back.Wipe()
	return p, shares, nil
}

func idOf(key []byte) (id ID) {
	h := sha256.New()
	h.Write([]byte("holdfast recovery deal 1\x00"))
	h.Write(key)
	copy(id[:], h.Sum(nil))
	return id
}

// Check accepts what Deal makes.
func (p Public) Check() error {
	if err := p.checkForm(); err != nil {
		return err
	}
	kem, _, _ := suite()
	if _, err := kem.NewPublicKey(p.Key); err != nil || p.ID != idOf(p.Key) {
		return holdfast.Errorf(holdfast.Invalid, "the recovery key can't be read: deal again")
	}
	if p.Made.IsZero() {
		return holdfast.Errorf(holdfast.Invalid, "the recovery deal has no date")
	}
	for i, s := range p.Shareholders {
		if s.Share == (Digest{}) || s.Code == (Digest{}) {
			return holdfast.Errorf(holdfast.Invalid, "share %d has no commitment: deal again", i+1)
		}
	}
	return nil
}

func (p Public) checkForm() error {
	n := len(p.Shareholders)
	switch {
	case n < MinThreshold || n > MaxShares:
		return holdfast.Errorf(holdfast.Invalid, "a root key is shared among %d to %d shareholders, not %d", MinThreshold, MaxShares, n)
	case p.Threshold < MinThreshold || p.Threshold > n:
		return holdfast.Errorf(holdfast.Invalid, "%d of %d shares can't be asked for: at least %d, at most all", p.Threshold, n, MinThreshold)
	case p.Hub == "" || strings.ContainsFunc(p.Hub, unprintable):
		return holdfast.Errorf(holdfast.Invalid, "a recovery deal names its hub")
	}
	seen := map[string]bool{}
	for _, s := range p.Shareholders {
		if s.Name == "" || len(s.Name) > maxName || strings.TrimSpace(s.Name) != s.Name || strings.ContainsFunc(s.Name, unprintable) {
			return holdfast.Errorf(holdfast.Invalid, "a shareholder's name has 1 to %d bytes, all printable", maxName)
		}
		if seen[s.Name] {
			return holdfast.Errorf(holdfast.Invalid, "two shareholders have one name: give each a name of its own")
		}
		seen[s.Name] = true
	}
	return nil
}

// Enough is how many shareholders must have destroyed their shares for the rest
// to be too few.
func (p Public) Enough() int { return len(p.Shareholders) - p.Threshold + 1 }

// Destroyed returns the shareholder who gave the code that is on his share.
func (p Public) Destroyed(code Code) (Shareholder, bool) {
	d := codeDigest(code)
	i := slices.IndexFunc(p.Shareholders, func(s Shareholder) bool { return subtle.ConstantTimeCompare(s.Code[:], d[:]) == 1 })
	if i < 0 {
		return Shareholder{}, false
	}
	return p.Shareholders[i], true
}

// Wrap seals a secret to the shareholders. Use tells what for: what was wrapped for
// another opens not.
func (p Public) Wrap(use Use, secret []byte) ([]byte, error) {
	kem, kdf, aead := suite()
	key, err := kem.NewPublicKey(p.Key)
	if err != nil {
		return nil, fmt.Errorf("read recovery key: %w", err)
	}
	box, err := hpke.Seal(key, kdf, aead, use.info(p.Hub), secret)
	if err != nil {
		return nil, fmt.Errorf("wrap for recovery: %w", err)
	}
	return box, nil
}

// Use is what something was wrapped for.
type Use struct {
	What       string // rootUse or rehearsalUse
	Keyring    [16]byte
	Generation uint64
}

// Root is the use of a box of root key n of a keyring.
func Root(keyring [16]byte, n uint64) Use { return Use{"root key", keyring, n} }

// Rehearsal is the use of a challenge.
func Rehearsal() Use { return Use{What: "rehearsal"} }

func (u Use) info(hub string) []byte {
	b := []byte("holdfast recovery 1\x00" + u.What + "\x00")
	b = append(b, u.Keyring[:]...)
	b = binary.BigEndian.AppendUint64(b, u.Generation)
	return append(b, hub...)
}

// Private is the half that k shares give back.
type Private struct {
	hub  string
	seed [seedSize]byte
	key  hpke.PrivateKey
}

// Combine puts shares together. It names those that are of another deal, altered or
// there twice, and says how many more are needed.
func Combine(shares []Share) (*Private, error) {
	if len(shares) == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "no share was given")
	}
	first, parts := shares[0], map[byte][]byte{}
	for _, s := range shares {
		if s.Deal != first.Deal || s.Hub != first.Hub || s.Threshold != first.Threshold || s.Of != first.Of {
			return nil, holdfast.Errorf(holdfast.Invalid, "the shares of %q and %q are of two deals (%s and %s): bring those of one", first.Name, s.Name, first.Deal, s.Deal)
		}
		if _, twice := parts[s.X]; twice {
			return nil, holdfast.Errorf(holdfast.Invalid, "share %d is here twice", s.Number)
		}
		parts[s.X] = bytes.Clone(s.Y[:])
	}
	if len(parts) < first.Threshold {
		return nil, holdfast.Errorf(holdfast.Invalid, "%d of %d shares are needed and %d are here: bring %d more", first.Threshold, first.Of, len(parts), first.Threshold-len(parts))
	}
	seed, err := shamir.Combine(parts)
	for _, y := range parts {
		clear(y)
	}
	if err != nil || len(seed) != seedSize {
		return nil, holdfast.Errorf(holdfast.Invalid, "the shares do not come together: one of them is damaged; check each with `holdfast recovery check`")
	}
	p := &Private{hub: first.Hub, seed: [seedSize]byte(seed)}
	clear(seed)
	kem, _, _ := suite()
	if p.key, err = kem.DeriveKeyPair(p.seed[:]); err != nil {
		return nil, fmt.Errorf("derive recovery key: %w", err)
	}
	if idOf(p.key.PublicKey().Bytes()) != first.Deal {
		p.Wipe()
		return nil, holdfast.Errorf(holdfast.Invalid, "the shares do not come together: one of them is damaged; check each with `holdfast recovery check`")
	}
	return p, nil
}

// ID names the deal.
func (p *Private) ID() ID { return idOf(p.key.PublicKey().Bytes()) }

// Open returns what was wrapped for this use.
func (p *Private) Open(use Use, box []byte) ([]byte, error) {
	_, kdf, aead := suite()
	secret, err := hpke.Open(p.key, kdf, aead, use.info(p.hub), box)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the shares do not open this: it was wrapped to another deal, or altered")
	}
	return secret, nil
}

// Wipe overwrites the seed. The key pair that was derived from it goes with the
// garbage collector.
func (p *Private) Wipe() { clear(p.seed[:]); p.key = nil }

// boxVersion begins what Box makes.
const boxVersion = 1

// Box is Wrap together with the key that it was wrapped to: whoever has the box can
// wrap the next secret to the same shareholders.
func (p Public) Box(use Use, secret []byte) ([]byte, error) {
	sealed, err := p.Wrap(use, secret)
	if err != nil {
		return nil, err
	}
	b := append([]byte{boxVersion, byte(len(p.Hub))}, p.Hub...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.Key)))
	return append(append(b, p.Key...), sealed...), nil
}

// ParseBox returns to whom a box was wrapped, as far as wrapping again needs it, and
// what was wrapped, for Private.Open.
func ParseBox(b []byte) (to Public, sealed []byte, err error) {
	damaged := holdfast.Errorf(holdfast.Invalid, "the box of the recovery shares is damaged")
	if len(b) < 2 || b[0] != boxVersion || len(b) < 4+int(b[1]) {
		return to, nil, damaged
	}
	to.Hub = string(b[2 : 2+b[1]])
	b = b[2+len(to.Hub):]
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return to, nil, damaged
	}
	to.Key = bytes.Clone(b[:n])
	kem, _, _ := suite()
	if _, err := kem.NewPublicKey(to.Key); err != nil {
		return to, nil, damaged
	}
	to.ID = idOf(to.Key)
	return to, b[n:], nil
}
