package checkpoint

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
)

// algCosignature marks keys of Ed25519 cosignatures, in their text and their hash.
const algCosignature = 4

const timestampSize = 8

// Witness is the public key of a witness: a note.Verifier of its cosignatures.
type Witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// ParseWitness reads a witness's verifier key: NAME+HASH+base64(0x04 ‖ key).
func ParseWitness(text string) (*Witness, error) {
	bad := holdfast.Errorf(holdfast.Invalid, "not the verifier key of a witness: it reads NAME+8 hexadecimal digits+base64, and its first byte is 4")
	name, rest, _ := strings.Cut(text, "+")
	hash, key64, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(key64)
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignature || !goodName(name) {
		return nil, bad
	}
	w := &Witness{name: name, key: ed25519.PublicKey(key[1:]), hash: keyHash(name, key)}
	if said, err := strconv.ParseUint(hash, 16, 32); err != nil || len(hash) != 8 || uint32(said) != w.hash {
		return nil, bad
	}
	return w, nil
}

func goodName(name string) bool {
	return name != "" && utf8.ValidString(name) && strings.IndexFunc(name, unicode.IsSpace) < 0 && !strings.Contains(name, "+")
}

func keyHash(name string, key []byte) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return binary.BigEndian.Uint32(sum[:])
}

// Name, KeyHash and Verify make it a note.Verifier.
func (w *Witness) Name() string    { return w.name }
func (w *Witness) KeyHash() uint32 { return w.hash }

func (w *Witness) Verify(msg, sig []byte) bool {
	if len(sig) != timestampSize+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at < 1<<63 && ed25519.Verify(w.key, cosigned(at, msg), sig[timestampSize:])
}

// cosigned is what a witness signs of a checkpoint's text.
func cosigned(at uint64, text []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text)
}

// Cosigner is the private key of a witness: a note.Signer.
type Cosigner struct {
	name string
	hash uint32
	key  ed25519.PrivateKey
}

// NewCosigner makes a key and returns its private and its public text.
func NewCosigner(name string) (secret, verifier string, err error) {
	if !goodName(name) {
		return "", "", holdfast.Errorf(holdfast.Invalid, "the name of a witness has no spaces and no +, such as witness.example/holdfast")
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	key := append([]byte{algCosignature}, public...)
	hash := keyHash(name, key)
	text := func(b []byte) string {
		return fmt.Sprintf("%s+%08x+%s", name, hash, base64.StdEncoding.EncodeToString(b))
	}
	return "PRIVATE+KEY+" + text(append([]byte{algCosignature}, private.Seed()...)), text(key), nil
}

// ParseCosigner reads the private text of NewCosigner.
func ParseCosigner(secret string) (*Cosigner, error) {
	bad := errors.New("not the private key of a witness")
	rest, ok := strings.CutPrefix(secret, "PRIVATE+KEY+")
	name, rest, _ := strings.Cut(rest, "+")
	hash, seed64, _ := strings.Cut(rest, "+")
	seed, err := base64.StdEncoding.DecodeString(seed64)
	if !ok || err != nil || len(seed) != 1+ed25519.SeedSize || seed[0] != algCosignature || !goodName(name) {
		return nil, bad
	}
	c := &Cosigner{name: name, key: ed25519.NewKeyFromSeed(seed[1:])}
	c.hash = keyHash(name, append([]byte{algCosignature}, c.key.Public().(ed25519.PublicKey)...))
	if hash != fmt.Sprintf("%08x", c.hash) {
		return nil, bad
	}
	return c, nil
}

// Name and KeyHash make it a note.Signer, with Sign.
func (c *Cosigner) Name() string    { return c.name }
func (c *Cosigner) KeyHash() uint32 { return c.hash }

// Sign cosigns a checkpoint's text as of now.
func (c *Cosigner) Sign(msg []byte) ([]byte, error) {
	at := uint64(time.Now().Unix())
	return append(binary.BigEndian.AppendUint64(nil, at), ed25519.Sign(c.key, cosigned(at, msg))...), nil
}

// Cosigned returns when each of the witnesses cosigned a checkpoint, and the line
// that shows it, by the witness's name. Lines of others are passed over.
func Cosigned(signed []byte, by ...*Witness) map[string]Cosignature {
	out := map[string]Cosignature{}
	text, _, ok := strings.Cut(string(signed), "\n\n")
	if !ok {
		return out
	}
	for _, w := range by {
		n, err := note.Open(signed, note.VerifierList(w))
		if err != nil || n.Text != text+"\n" {
			continue
		}
		sig, _ := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
		at := time.Unix(int64(binary.BigEndian.Uint64(sig[4:])), 0).UTC()
		out[w.name] = Cosignature{At: at, Line: "— " + n.Sigs[0].Name + " " + n.Sigs[0].Base64 + "\n"}
	}
	return out
}

// Cosignature is a witness's word that it saw the log grow to a checkpoint.
type Cosignature struct {
	At   time.Time
	Line string // of the note, with its newline
}
