package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// opener is the holder that opens the keyring of a restore.
type opener struct {
	keyHolder
	named []string // whom the keyring's heads name, in order
	made  bool     // of shares: the root key is made anew
}

// findOpener looks whether the holder that was given opens a head of the keyring, and
// under which name. Nothing is changed, neither here nor in the holder.
func findOpener(ctx context.Context, c Config, o RestoreOptions, hub string) (out opener, err error) {
	heads, named, escrow, err := headsOf(o.Keyring)
	if err != nil {
		return out, err
	}
	out = opener{keyHolder: keyHolder{Grade: vault.Clear, AddedAt: time.Now().UTC().Truncate(time.Second)}, named: named}
	if o.Shares != nil {
		if !escrow {
			return out, holdfast.Errorf(holdfast.NotFound, "the keyring was not wrapped to any shareholders: shares can't open it. Its holders are %s", strings.Join(named, ", "))
		}
		out.Name, out.URL, out.made = rootKeyHolder, schemeFile+":"+c.RootKey, true
		return out, nil
	}
	given, err := openGiven(ctx, c, o, hub)
	if err != nil {
		return out, holdfast.Errorf(kindOr(err, holdfast.Unavailable), "%w%s Nothing was changed. %s", err, stop(err), otherWays(named, escrow))
	}
	defer func() { err = errors.Join(err, closeHolder(given)) }()
	out.URL = o.Holder
	if o.Holder == "" {
		out.URL = schemeFile + ":" + c.RootKey
	}
	if i, ok := given.(identified); ok {
		out.ID = i.ID()
	}
	var why []string
	for _, h := range heads {
		for _, name := range slices.Sorted(maps.Keys(h.Boxes)) {
			root, err := given.Open(ctx, h.Generation, h.Boxes[name])
			root.Wipe()
			if err == nil {
				out.Name = name
				return out, nil
			}
			why = append(why, fmt.Sprintf("%s, %d: %v", name, h.Generation, err))
		}
	}
	return out, holdfast.Errorf(holdfast.Conflict, "what was given opens nothing of this keyring: it is another hub's, of another time (an erasure replaces the root key), or, of a TPM, of another machine (%s). Nothing was changed. %s", strings.Join(why, "; "), otherWays(named, escrow))
}

func kindOr(err error, other holdfast.Kind) holdfast.Kind {
	if kind := holdfast.KindOf(err); kind != holdfast.Internal {
		return kind
	}
	return other
}

// openGiven opens the root key or holder that was given.
func openGiven(ctx context.Context, c Config, o RestoreOptions, hub string) (vault.Holder, error) {
	if o.Holder == "" {
		return vault.OpenFileHolderOn(c.Ground.RootKeys, c.RootKey, c.Passphrase)
	}
	return c.openHolder(ctx, folder{Hub: hub}, keyHolder{URL: o.Holder})
}

// stop ends a sentence that may have ended.
func stop(err error) string {
	if said := err.Error(); strings.HasSuffix(said, "?") || strings.HasSuffix(said, ".") {
		return ""
	}
	return "."
}

// otherWays says who else opens a keyring, for whom the machine is lost that one holder
// was bound to.
func otherWays(named []string, escrow bool) string {
	ways := "The keyring is held by " + strings.Join(named, ", ") + ": restore with any of them (--root-key FILE, --holder URL)"
	if escrow {
		return ways + "; if all are lost, with recovery shares (--share, docs/recovery.md)"
	}
	return ways + ". It is wrapped to no recovery shares: if all of these are lost, so are the data"
}

// headsOf reads the heads among a keyring's files, the newest first, whom they name,
// and whether the newest is wrapped to shareholders.
func headsOf(dir string) (heads []vault.HeadParts, named []string, escrow bool, err error) {
	_, names, err := newestHead(dir)
	if err != nil {
		return nil, nil, false, err
	}
	seen := map[string]bool{}
	for _, name := range names {
		if !strings.HasPrefix(name, "head-") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, nil, false, holdfast.Errorf(holdfast.Unavailable, "read the copy of the keyring: %w", err)
		}
		h, err := vault.Parts(b)
		if err != nil {
			return nil, nil, false, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
		heads = append(heads, h)
		for name := range h.Boxes {
			seen[name] = true
		}
	}
	slices.SortFunc(heads, func(a, b vault.HeadParts) int { return int(int64(b.Generation - a.Generation)) })
	return heads, slices.Sorted(maps.Keys(seen)), heads[0].Escrow, nil
}

// formerKeys is what is known of the hub's holders and of the copies of its keyring:
// by keys.json beside the keyring, if that lies in an old data folder of the hub, else
// by the backup.
func formerKeys(o RestoreOptions, st *backup.Statement) (k keys, err error) {
	if dir := filepath.Dir(o.Keyring); filepath.Base(o.Keyring) == keyringDir {
		old := osFolder(dir)
		if f, err := readFolder(old, dir); err == nil && f.Hub == st.Hub {
			if k, err := readKeys(old, dir, f); err == nil {
				return k, nil
			}
		}
	}
	if len(st.Keys) == 0 {
		return k, nil
	}
	if err := json.Unmarshal(st.Keys, &k); err != nil {
		return k, holdfast.Errorf(holdfast.Invalid, "what the backup says of holders and copies can't be read: %w", err)
	}
	return k, nil
}

// register writes down who holds the root key of a restored folder, and where
// the copies of its keyring are. The one that opened it is asked; all others are not
// here, or not known to be, so they are fenced: certificates name them until they are
// brought back or somebody answers for them.
func (x *restoring) register(ctx context.Context) error {
	if x.by.made {
		if err := recoverInto(ctx, x.c, x.o); err != nil {
			return err
		}
	}
	k, rootKey := x.keys()
	data := osFolder(x.c.Data)
	if err := data.WriteJSON(folderFile, folder{Format: folderFormat, Hub: x.reader.Statement.Hub, RootKey: rootKey}); err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "write %s: %w", folderFile, err)
	}
	if x.by.Name != rootKeyHolder {
		x.c.RootKey = "" // it names the holder that is not here
	}
	for _, h := range k.Holders {
		if !h.FencedAt.IsZero() {
			x.r.Fenced = append(x.r.Fenced, h.Name)
		}
	}
	if len(k.Holders) == 1 && x.by.Name == rootKeyHolder && x.by.URL == schemeFile+":"+rootKey && len(k.Past)+len(k.Copies) == 0 && k.Escrow == nil {
		if err := data.Remove(keysFile); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an attempt with another holder
			return holdfast.Errorf(holdfast.Unavailable, "remove %s: %w", keysFile, err)
		}
		return nil
	}
	return k.write(data)
}

// keys is keys.json of the restored folder, and the path of holdfast.json's root key.
func (x *restoring) keys() (k keys, rootKey string) {
	by, former := x.by, x.former
	now := time.Now().UTC().Truncate(time.Second)
	k.Past, k.Escrow, rootKey = former.Past, former.Escrow, x.c.RootKey
	if x.o.Shares != nil {
		k.Escrow = opened(x.o.Shares)
		x.r.Deal = k.Escrow.Deal.String()
	}
	for _, h := range former.Holders {
		if h.Name == rootKeyHolder && rootKey == "" {
			rootKey = strings.TrimPrefix(h.URL, schemeFile+":")
		}
		switch {
		case h.Name == by.Name:
			by.Grade, by.Vouch = h.Grade, h.Vouch
			if !h.AddedAt.IsZero() {
				by.AddedAt = h.AddedAt
			}
		case !h.Fresh || slices.Contains(by.named, h.Name):
			if h.Fresh = false; h.FencedAt.IsZero() {
				h.FencedAt = now
			}
			k.Holders = append(k.Holders, h)
		}
	}
	for _, name := range by.named {
		if name != by.Name && k.holder(name) < 0 { // it came later than what is known; nobody knows where it is
			k.Holders = append(k.Holders, keyHolder{Name: name, Grade: vault.Clear, AddedAt: now, FencedAt: now})
		}
	}
	if by.Name == rootKeyHolder {
		by.ID = "" // as init registers it
		if u, err := parseHolder(by.URL); err == nil && u.scheme == schemeFile {
			rootKey = u.path
		}
	}
	k.Holders = append(k.Holders, by.keyHolder)
	for _, copied := range x.copies {
		if copied.Registered {
			k.Copies = append(k.Copies, keyringCopy{Name: copied.Name, URL: copied.URL})
		}
	}
	if !filepath.IsAbs(rootKey) {
		rootKey = filepath.Join(filepath.Dir(x.c.Data), "root.key") // nobody's; recovery shares would put one there
	}
	return k, rootKey
}

// recoverInto has the shares open the keyring in the folder, for a root key file: a
// new one, or that of an attempt which was cut short.
func recoverInto(ctx context.Context, c Config, o RestoreOptions) error {
	holder, err := vault.OpenFileHolderOn(c.Ground.RootKeys, c.RootKey, c.Passphrase)
	if holdfast.KindOf(err) == holdfast.NotFound {
		_, err = c.recoverTo(ctx, o.Shares, nil)
	} else if err == nil {
		_, err = vault.Recover(ctx, c.Ground.Keyring(filepath.Join(c.Data, keyringDir)), o.Shares, holder)
	}
	return err
}
