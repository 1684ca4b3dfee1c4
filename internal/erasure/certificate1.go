package erasure

import (
	"encoding/json"
	"reflect"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// certificateHeader1 is the first line of a certificate of version 1, which names
// the scope in clear. None is written any more; those that were are verified for
// ever.
const certificateHeader1 = "holdfast erasure certificate 1"

type certificate1 struct {
	Hub       string             `json:"hub"`
	Erasure   holdfast.ErasureID `json:"erasure"`
	Party     holdfast.PartyID   `json:"party"`
	Scope     Scope              `json:"scope"`
	AskedBy   string             `json:"asked_by"`
	Asked     time.Time          `json:"asked"`
	Refused   time.Time          `json:"refused"`
	Destroyed struct {
		At         time.Time    `json:"at"`
		From       uint64       `json:"root_key_destroyed"`
		To         uint64       `json:"root_key_in_force"`
		OwnerKeys  []seal.KeyID `json:"owner_keys"`
		RecordKeys []seal.KeyID `json:"record_keys"`
		Holders    []struct {
			Holder   string      `json:"holder"`
			Grade    vault.Grade `json:"grade"`
			Evidence []byte      `json:"evidence,omitempty"`
		} `json:"holders"`
		Grade vault.Grade `json:"grade"`
	} `json:"keys_destroyed"`
	Purged time.Time    `json:"ciphertext_purged"`
	Kept   []Kept       `json:"kept,omitempty"`
	Limits []string     `json:"limits"`
	Ledger ledger.Proof `json:"ledger"`
}

// entry1 is what the ledger says of an erasure that has a certificate of version 1.
type entry1 struct {
	Erasure holdfast.ErasureID `json:"erasure"`
	ledger.Covers
	OwnerKeys []seal.KeyID `json:"owner_keys"`
	Scope     Scope        `json:"scope"`
}

// read1 reads the text of a certificate of version 1.
func read1(body string) (Certificate, error) {
	var old certificate1
	if err := strictly(body, &old); err != nil {
		return Certificate{}, errCertificate
	}
	c := Certificate{Version: 1, Hub: old.Hub, AskedBy: old.AskedBy, Asked: old.Asked, Refused: old.Refused,
		Destroyed: Destruction{At: old.Destroyed.At, From: old.Destroyed.From, To: old.Destroyed.To, OwnerKeys: old.Destroyed.OwnerKeys,
			RecordKeys: old.Destroyed.RecordKeys, Grade: old.Destroyed.Grade},
		Purged: old.Purged, Limits: old.Limits, Ledger: old.Ledger,
		Opened: &Opening{Erasure: old.Erasure, Party: old.Party, Scope: old.Scope, Kept: old.Kept}}
	c.InPart = c.Opened.inPart()
	for _, h := range old.Destroyed.Holders {
		c.Destroyed.Holders = append(c.Destroyed.Holders, Holder{Holder: h.Holder, Grade: h.Grade, State: vault.HolderDestroyed, Evidence: h.Evidence})
	}
	c.Kept = reasons(old.Kept)
	return c, nil
}

// says1 reports whether the ledger's entry is of this erasure.
func (c *Certificate) says1(data []byte) bool {
	var said entry1
	return json.Unmarshal(data, &said) == nil && said.Erasure == c.Opened.Erasure && reflect.DeepEqual(said.Scope, c.Opened.Scope) &&
		slices.Equal(said.OwnerKeys, c.Destroyed.OwnerKeys) && slices.Equal(said.RecordKeys, c.Destroyed.RecordKeys)
}
