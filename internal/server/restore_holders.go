package server

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// registerRestored writes down who holds the root key of a restored folder. The
// keyring names its holders, and the root key file that was given is one of them; the
// others are not here, so they are fenced: certificates name them until they are
// brought back or somebody answers for them.
func registerRestored(ctx context.Context, c *Config, keyring string) error {
	name, _, err := newestHead(keyring)
	if err != nil {
		return err
	}
	file, err := os.ReadFile(filepath.Join(keyring, name))
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "read the copy of the keyring: %w", err)
	}
	generation, boxes, err := vault.Parts(file)
	if err != nil {
		return err
	}
	given, err := vault.OpenFileHolderOn(c.Ground.RootKeys, c.RootKey, c.Passphrase)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(boxes))
	mine := slices.IndexFunc(names, func(n string) bool {
		root, err := given.Open(ctx, generation, boxes[n])
		root.Wipe()
		return err == nil
	})
	switch {
	case mine < 0:
		return holdfast.Errorf(holdfast.Conflict, "the root key %s opens nothing of this keyring, whose holders are %s: it is another hub's, or of another time (an erasure replaces it)", c.RootKey, strings.Join(names, ", "))
	case len(names) == 1 && names[mine] == rootKeyHolder:
		return nil
	case names[mine] != rootKeyHolder && len(c.Passphrase) > 0:
		return holdfast.Errorf(holdfast.Invalid, "the root key %s is that of holder %s and has a passphrase: restore with the root key of holder %s", c.RootKey, names[mine], rootKeyHolder)
	}
	now := time.Now().UTC().Truncate(time.Second)
	var k keys
	for i, n := range names {
		h := keyHolder{Name: n, Grade: vault.Clear, AddedAt: now}
		if i == mine {
			h.URL = schemeFile + ":" + c.RootKey
		} else {
			h.FencedAt = now
		}
		k.Holders = append(k.Holders, h)
	}
	if names[mine] != rootKeyHolder {
		c.RootKey = "" // it names the holder that is not here
	}
	return k.write(osFolder(c.Data))
}
