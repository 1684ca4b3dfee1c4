package erasure

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// certificateHeader is the first line of a certificate's text.
const certificateHeader = "holdfast erasure certificate 1"

// Certificate says what an erasure destroyed, when and how. It names ids only,
// so that it tells nothing about whom it was.
type Certificate struct {
	Hub       string             `json:"hub"` // origin of the ledger
	Erasure   holdfast.ErasureID `json:"erasure"`
	Party     holdfast.PartyID   `json:"party"`
	Scope     Scope              `json:"scope"`
	AskedBy   string             `json:"asked_by"`
	Asked     time.Time          `json:"asked"`
	Refused   time.Time          `json:"refused"`
	Destroyed Destruction        `json:"keys_destroyed"`
	// Purged is when every place had removed the ciphertext.
	Purged time.Time `json:"ciphertext_purged"`
	// Kept is what was asked for and is not covered: holds keep it.
	Kept []Kept `json:"kept,omitempty"`
	// Limits says in words what is not covered.
	Limits []string     `json:"limits"`
	Ledger ledger.Proof `json:"ledger"`
}

// Destruction is the part of a certificate about keys.
type Destruction struct {
	At         time.Time              `json:"at"`
	From       uint64                 `json:"root_key_destroyed"`
	To         uint64                 `json:"root_key_in_force"`
	OwnerKeys  []seal.KeyID           `json:"owner_keys"`
	RecordKeys []seal.KeyID           `json:"record_keys"`
	Holders    []vault.HolderEvidence `json:"holders"`
	Grade      vault.Grade            `json:"grade"` // the weakest holder's
}

func (g *Gate) certify(e Erasure, p ledger.Proof) ([]byte, error) {
	c := Certificate{
		Hub: g.Ledger.Origin(), Erasure: e.ID, Party: e.Party, Scope: e.Scope, AskedBy: e.By, Asked: e.AskedAt, Refused: e.RefusedAt,
		Destroyed: Destruction{At: e.KeysDeadAt, From: e.From, To: e.To, OwnerKeys: e.OwnerKeys, RecordKeys: e.RecordKeys,
			Holders: e.Holders, Grade: grade(e.Holders)},
		Purged: e.PurgedAt, Ledger: p, Kept: e.Kept, Limits: limits(e),
	}
	body, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	return g.Ledger.Sign(certificateHeader + "\n" + string(body) + "\n")
}

// grade is the weakest of the holders'; with none known, the weakest there is.
func grade(holders []vault.HolderEvidence) vault.Grade {
	if len(holders) == 0 || slices.ContainsFunc(holders, func(h vault.HolderEvidence) bool { return h.Grade != vault.Purge }) {
		return vault.Clear
	}
	return vault.Purge
}

func limits(e Erasure) []string {
	out := []string{
		"copies that recipients, exports and backups of other systems hold are not covered",
		"that nobody made a secret copy of the root key outside its holders can't be proved",
	}
	if grade(e.Holders) == vault.Clear {
		out = append(out, "the root key was overwritten in a file: storage that keeps old blocks may still hold it (NIST SP 800-88: clear, not purge)")
	}
	if len(e.Scope.Streams) > 0 || e.Scope.From != nil {
		out = append(out, "the name of a stream erased in part of a living assignment was deleted, its key lives on with the assignment")
	}
	if len(e.Kept) > 0 {
		out = append(out, "of what was asked for, what is named as kept was not erased: a claim at law, the law or the owner's restriction keeps it")
	}
	return out
}

// IsCertificate reports whether b looks like a certificate.
func IsCertificate(b []byte) bool { return strings.HasPrefix(string(b), certificateHeader+"\n") }

// VerifyCertificate checks a certificate without a server: its signature, the
// ledger proof in it, and that the ledger's entry says the same. trusted is the
// hub's verifier key as the reader got it elsewhere; without it the certificate
// is only shown to agree with itself.
func VerifyCertificate(signed []byte, trusted string) (Certificate, error) {
	var c Certificate
	text, _, ok := strings.Cut(string(signed), "\n\n— ")
	body, found := strings.CutPrefix(text, certificateHeader+"\n")
	if !ok || !found {
		return c, holdfast.Errorf(holdfast.Invalid, "not an erasure certificate")
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, holdfast.Errorf(holdfast.Invalid, "the certificate can't be read: it was altered, or is of a newer version")
	}
	key := trusted
	if key == "" {
		key = c.Ledger.Verifier
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return c, holdfast.Errorf(holdfast.Invalid, "not a verifier key")
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil || n.Text != text+"\n" {
		return c, holdfast.Errorf(holdfast.Invalid, "the certificate's signature does not verify: it was altered, or is another hub's")
	}
	if v.Name() != c.Hub {
		return c, holdfast.Errorf(holdfast.Invalid, "the certificate was signed by %s, not by its hub", v.Name())
	}
	event, err := c.Ledger.Check(key)
	if err != nil {
		return c, fmt.Errorf("check ledger proof: %w", err)
	}
	var said entry
	if err := json.Unmarshal(event.Data, &said); err != nil || event.Kind != ledger.KindErasure ||
		said.Erasure != c.Erasure || !reflect.DeepEqual(said.Scope, c.Scope) || !slices.Equal(said.OwnerKeys, c.Destroyed.OwnerKeys) || !slices.Equal(said.RecordKeys, c.Destroyed.RecordKeys) {
		return c, holdfast.Errorf(holdfast.Invalid, "the ledger's entry is not of this erasure")
	}
	return c, nil
}
