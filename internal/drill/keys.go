package drill

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	"github.com/holdfast-iot/holdfast/internal/seal/residue"
	"github.com/holdfast-iot/holdfast/internal/server"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// keys is what a stopped hub's root key opens, and what its holders' files hold.
type keys struct {
	all      []vault.Revealed
	wrapping map[string]bool // in base64, as the files have them
}

func (d *drill) keys(ctx context.Context) (k keys, err error) {
	if k.all, err = server.Reveal(ctx, server.Config{Data: d.data(), Version: d.opts.Version}); err != nil {
		return k, err
	}
	k.wrapping = map[string]bool{}
	for _, path := range d.rootKeys() {
		b, err := os.ReadFile(path)
		if err != nil {
			return k, fmt.Errorf("read root key file: %w", err)
		}
		var file struct{ Keys map[string]string }
		if err := json.Unmarshal(b, &file); err != nil {
			return k, fmt.Errorf("read root key file: %w", err)
		}
		for _, key := range file.Keys {
			k.wrapping[key] = true
		}
	}
	return k, nil
}

// hunt is which keys are looked for: of those who are erased, root keys apart, and
// what must be found.
type hunt struct {
	owners, root, living *residue.Search
	rootWords            *words // root key and wrapping keys, also as text
	ownerWords           *words
	livingWords          *words
	n                    int
}

// destroyed makes the hunt for what must be gone after the erasure of a party: his
// owner keys, all that they sealed, the page they stood in, and the root keys.
func (d *drill) destroyed(k keys, owners map[vault.Owner]bool) *hunt {
	h := &hunt{owners: new(residue.Search), root: new(residue.Search), living: new(residue.Search), rootWords: new(words), ownerWords: new(words), livingWords: new(words)}
	for _, r := range k.all {
		switch {
		case r.What == "root key":
			h.root.Add("the old root key", r.Key)
			h.rootWords.encoded("the old root key", r.Key[:])
			h.n++
		case r.What == "page key" || owners[r.Owner]:
			h.owners.Add(r.What+" of the erased", r.Key)
			h.ownerWords.encoded(r.What+" of the erased", r.Key[:])
			h.n++
		default:
			h.living.Add("living key", r.Key)
		}
	}
	for text := range k.wrapping {
		h.rootWords.add("an old root key file's key", []byte(text))
		if b, err := base64.StdEncoding.DecodeString(text); err == nil {
			h.rootWords.add("an old root key file's key", b)
			h.rootWords.encoded("an old root key file's key", b)
		}
		h.n++
	}
	return h
}
