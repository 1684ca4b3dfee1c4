package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Secret is a token or an invitation:
//
//	hft1.ID.SECRET[.CA-SPKI-SHA256]   token
//	hfi1.ID.SECRET[.CA-SPKI-SHA256]   invitation
//
// ID is the credential's; SECRET is 256 random bits in unpadded base64url; the
// last part, in hexadecimal, tells the client whom to trust and means nothing to
// the hub. Printed by fmt it shows nothing.
type Secret struct {
	ID     holdfast.CredentialID
	prefix string
	secret [32]byte
	pin    [32]byte
	pinned bool
}

const (
	tokenPrefix      = "hft1"
	invitationPrefix = "hfi1"
	maxSecret        = 256
)

func newSecret(prefix string, id holdfast.CredentialID, pin [32]byte) Secret {
	s := Secret{ID: id, prefix: prefix, pin: pin, pinned: true}
	rand.Read(s.secret[:])
	return s
}

// Text returns what is handed to the holder.
func (s Secret) Text() string {
	t := s.prefix + "." + s.ID.String() + "." + base64.RawURLEncoding.EncodeToString(s.secret[:])
	if s.pinned {
		t += "." + hex.EncodeToString(s.pin[:])
	}
	return t
}

// Format and MarshalText keep secrets out of logs and errors, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune)   { io.WriteString(f, "secret") }
func (s Secret) MarshalText() ([]byte, error) { return []byte("secret"), nil }

// ParseToken reads the text of a token, ParseInvitation that of an invitation.
func ParseToken(text string) (Secret, error)      { return parseSecret(tokenPrefix, text) }
func ParseInvitation(text string) (Secret, error) { return parseSecret(invitationPrefix, text) }

func parseSecret(prefix, text string) (Secret, error) {
	bad := holdfast.Errorf(holdfast.Invalid, "it should look like %s.ID.SECRET.CA-SPKI-SHA256", prefix)
	if len(text) > maxSecret {
		return Secret{}, bad
	}
	parts := strings.Split(text, ".")
	if len(parts) < 3 || len(parts) > 4 || parts[0] != prefix {
		return Secret{}, bad
	}
	s := Secret{prefix: prefix}
	if err := s.ID.UnmarshalText([]byte(parts[1])); err != nil || s.ID.IsZero() {
		return Secret{}, bad
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(b) != len(s.secret) {
		return Secret{}, bad
	}
	s.secret = [32]byte(b)
	if len(parts) == 4 {
		b, err := hex.DecodeString(parts[3])
		if err != nil || len(b) != len(s.pin) {
			return Secret{}, bad
		}
		s.pin, s.pinned = [32]byte(b), true
	}
	if s.Text() != text { // one text per secret
		return Secret{}, bad
	}
	return s, nil
}

// hash is what the catalog keeps. It needs no salt and no stretching: the secret
// has 256 random bits.
func (s Secret) hash() [32]byte {
	h := sha256.New()
	h.Write([]byte("holdfast " + s.prefix + "\x00"))
	h.Write(s.ID[:])
	h.Write(s.secret[:])
	return [32]byte(h.Sum(nil))
}
