package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// keysFile names who holds the root key. It is absent as long as that is the root
// key file of holdfast.json alone.
const keysFile = "keys.json"

// keysFormat is its version.
const keysFormat = "1"

// rootKeyHolder is the name of the holder that holdfast.json names.
const rootKeyHolder = "file"

// keys is keys.json. Its last line is a sum over what stands before: holders that
// are left out of account by a damaged byte would not destroy.
type keys struct {
	Format  string        `json:"holdfast-keys"`
	Holders []keyHolder   `json:"holders"`
	Past    []pastHolder  `json:"past,omitempty"`
	Copies  []keyringCopy `json:"copies,omitempty"` // of the keyring
	// Escrow is the deal whose shares were put together to open the keyring.
	Escrow *openedDeal `json:"escrow,omitempty"`
	Sum    string      `json:"sum"`
}

// openedDeal says that the shares of a deal were together on one machine.
type openedDeal struct {
	Deal escrow.ID `json:"opened"`
	At   time.Time `json:"at"`
}

func opened(shares *escrow.Private) *openedDeal {
	return &openedDeal{shares.ID(), time.Now().UTC().Truncate(time.Second)}
}

// keyHolder is a registered holder of the root key.
type keyHolder struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	// ID is what tells the holder's keys from those of another at the same place, if it
	// has such a thing.
	ID       string      `json:"id,omitempty"`
	Grade    vault.Grade `json:"grade"`
	Vouch    string      `json:"vouch,omitempty"` // who answers for the grade
	AddedAt  time.Time   `json:"added_at,omitzero"`
	FencedAt time.Time   `json:"fenced_at,omitzero"`
	// Fresh says that it was being added when it was written down: it never had a part.
	Fresh bool `json:"fresh,omitempty"`
}

// pastHolder is what a holder said that had been fenced or has left.
type pastHolder struct {
	vault.Statement
	Left bool `json:"left,omitempty"`
}

// keyringCopy is a place that a copy of the keyring goes to.
type keyringCopy struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// readKeys reads keys.json, or makes up what holds without one.
func readKeys(on Folder, dir string, f folder) (keys, error) {
	var k keys
	b, err := on.ReadFile(keysFile)
	if errors.Is(err, fs.ErrNotExist) {
		return keys{Format: keysFormat, Holders: []keyHolder{{Name: rootKeyHolder, URL: "file:" + f.RootKey, Grade: vault.Clear}}}, nil
	} else if err != nil {
		return k, fmt.Errorf("read holders of the root key: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	err = d.Decode(&k)
	if err == nil && k.Format != "" && k.Format != keysFormat {
		return keys{}, holdfast.Errorf(holdfast.Conflict, "%s has format %s, this program knows %s: start the newer holdfast that wrote it", filepath.Join(dir, keysFile), k.Format, keysFormat)
	}
	if err == nil {
		err = k.check(b)
	}
	if err != nil {
		return keys{}, holdfast.Errorf(holdfast.Invalid, "%s is damaged: %w. Nothing was changed. Put back an undamaged copy of this file: without it nobody knows who must destroy root keys", filepath.Join(dir, keysFile), err)
	}
	return k, nil
}

// check accepts what write writes, and nothing else.
func (k *keys) check(file []byte) error {
	whole, err := k.text()
	if err != nil || !bytes.Equal(whole, file) {
		return errors.New("it does not read as it was written")
	}
	if len(k.Holders) == 0 {
		return errors.New("it names no holder")
	}
	return nil
}

// text is the file, with the sum of the rest in it.
func (k *keys) text() ([]byte, error) {
	k.Sum = ""
	b, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	k.Sum = hex.EncodeToString(sum[:8])
	b, err = json.MarshalIndent(k, "", "  ")
	return append(b, '\n'), err
}

// write puts keys.json in place, whole or not at all.
func (k *keys) write(on Folder) error {
	k.Format = keysFormat
	if _, err := k.text(); err != nil { // for the sum
		return err
	}
	if err := on.WriteJSON(keysFile, k); err != nil {
		return fmt.Errorf("write holders of the root key: %w", err)
	}
	return nil
}

// holder returns the index of the one of this name, -1 if there is none.
func (k *keys) holder(name string) int {
	return slices.IndexFunc(k.Holders, func(h keyHolder) bool { return h.Name == name })
}

// known returns the holder of this name, and an error that names those there are.
func (k *keys) known(name string) (*keyHolder, error) {
	if i := k.holder(name); i >= 0 {
		return &k.Holders[i], nil
	}
	names := ""
	for i, h := range k.Holders {
		if i > 0 {
			names += ", "
		}
		names += h.Name
	}
	return nil, holdfast.Errorf(holdfast.NotFound, "there is no holder %q: there are %s", name, names)
}

// options is what the vault must know of holders that are not asked.
func (k *keys) options() (o vault.Options) {
	for _, h := range k.Holders {
		if !h.FencedAt.IsZero() {
			o.Fenced = append(o.Fenced, vault.Fenced{Name: h.Name, Kind: schemeOf(h.URL), Grade: h.Grade, Vouched: h.Vouch, Since: h.FencedAt})
		}
	}
	for _, p := range k.Past {
		o.Statements = append(o.Statements, p.Statement)
	}
	return o
}

// alone puts on record that only a root key file holds the root key: whoever else
// held it is fenced, for it may turn up, and certificates are to name it until
// somebody answers for it.
func (k *keys) alone(path string, now time.Time) {
	now = now.UTC().Truncate(time.Second)
	i := k.holder(rootKeyHolder)
	if i < 0 {
		k.Holders, i = append(k.Holders, keyHolder{Name: rootKeyHolder, Grade: vault.Clear, AddedAt: now}), len(k.Holders)
	}
	h := &k.Holders[i]
	h.URL, h.FencedAt, h.Fresh = schemeFile+":"+path, time.Time{}, false
	for j := range k.Holders {
		if h := &k.Holders[j]; j != i && h.FencedAt.IsZero() {
			h.FencedAt = now
		}
	}
}
