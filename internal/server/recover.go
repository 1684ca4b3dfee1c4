package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/recovery"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// RootKeyRecovered says what RecoverRootKey did.
type RootKeyRecovered struct {
	Generation uint64   `json:"generation"`
	RootKey    string   `json:"root_key"`
	Deal       string   `json:"deal"`           // whose shares were together
	Lost       []string `json:"lost,omitempty"` // holders that are no part of the keyring any more, and fenced
}

// RecoverRootKey gives the root key of a stopped hub, which the shares open, to a new
// root key file: at c.RootKey, else where the lost one was. A refusal changes nothing.
func RecoverRootKey(ctx context.Context, c Config, shares *escrow.Private) (out RootKeyRecovered, err error) {
	c = c.withDefaults()
	data := c.Ground.Folder(c.Data)
	f, err := readFolder(data, c.Data)
	if err != nil {
		return out, err
	}
	lock, err := takeThisVersions(ctx, c, data)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if out.RootKey = c.RootKey; out.RootKey == "" {
		out.RootKey = f.RootKey
	}
	if strings.Contains(out.RootKey, "?") {
		return out, holdfast.Errorf(holdfast.Invalid, "the place of a root key has no ? in it: name another with --root-key")
	}
	if inside(c.Data, out.RootKey) {
		return out, holdfast.Errorf(holdfast.Denied, "a root key in the data folder is none: name another place with --root-key")
	}
	if _, err := os.Lstat(out.RootKey); err == nil {
		return out, holdfast.Errorf(holdfast.Conflict, "there is a root key at %s: start the hub with it; if it is not this hub's, name another place with --root-key", out.RootKey)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	k, err := readKeys(data, c.Data, f)
	if err != nil {
		return out, err
	}
	if out.RootKey, err = filepath.Abs(out.RootKey); err != nil {
		return out, err
	}
	c.RootKey = out.RootKey
	k.Escrow = opened(shares)
	out.Deal = k.Escrow.Deal.String()
	r, err := c.recoverTo(ctx, shares, func(r vault.Recovered) error {
		for _, h := range k.Holders { // an attempt that was cut short may have taken them out of the keyring
			if h.Name != rootKeyHolder && h.FencedAt.IsZero() && !slices.Contains(r.Lost, h.Name) {
				out.Lost = append(out.Lost, h.Name)
			}
		}
		return registerAlone(data, f, k, out.RootKey)
	})
	out.Generation, out.Lost = r.Generation, append(r.Lost, out.Lost...)
	return out, err
}

// registerAlone writes down that the root key file at a path is the only holder, and
// where it is: a start needs no --root-key.
func registerAlone(data Folder, f folder, k keys, path string) error {
	if f.RootKey != path {
		f.RootKey = path
		if err := data.WriteJSON(folderFile, f); err != nil {
			return diskFull("write "+folderFile, err)
		}
	}
	k.alone(path, time.Now())
	return k.write(data)
}

// recoveringExt is on a root key file until the keyring is under it. One that a crash
// left is of no use: the shares open the keyring as before, and make a new one.
const recoveringExt = ".recovering"

// recoverTo has the shares open the keyring for a root key file that is made at
// c.RootKey. It takes its place last, when it opens the keyring and register, which may
// be nil, has written that down: as long as it is not there, all of it can be done
// again, and once it is, nothing is left to do.
func (c Config) recoverTo(ctx context.Context, shares *escrow.Private, register func(vault.Recovered) error) (r vault.Recovered, err error) {
	on, temp := c.Ground.RootKeys, c.RootKey+recoveringExt
	if dir := filepath.Dir(temp); !isFolder(on, dir) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return r, diskFull("make folder of root key", err)
		}
	}
	if err := vault.DiscardFileHolder(on, temp); err != nil {
		return r, fmt.Errorf("clear what an earlier attempt has left: %w", err)
	}
	holder, err := vault.CreateFileHolderOn(on, temp, c.Passphrase)
	if err == nil {
		r, err = vault.Recover(ctx, c.Ground.Keyring(filepath.Join(c.Data, keyringDir)), shares, holder)
	}
	if err == nil && register != nil {
		err = register(r)
	}
	if err != nil { // the shares open the keyring still
		return r, errors.Join(err, vault.DiscardFileHolder(on, temp))
	}
	return r, holder.MoveTo(c.RootKey)
}

// rehearseAfter is how long a rehearsal of the recovery shares is good for.
const rehearseAfter = 365 * 24 * time.Hour

// examineRecovery looks at the shares of the way back to the root key.
func (s *Server) examineRecovery(ctx context.Context, x *examination) error {
	all, err := s.recovery.Deals(ctx)
	if err == nil {
		x.recovery(all)
		x.sharesOpened(all, s.stores.keys.Escrow)
	}
	return err
}

func (x *examination) recovery(all []recovery.Deal) {
	old := 0
	for _, d := range all {
		switch {
		case d.State != recovery.InForce:
			old += d.Missing()
			continue
		case d.Known() && len(d.Shareholders)-len(d.Gone) == d.Threshold:
			x.since("recovery-too-few", d.Since, fmt.Sprintf("%d recovery shares are left, and all of them are needed: when one more is lost they open nothing", d.Threshold), "holdfast recovery deal --data "+x.data+", to more shareholders than must come together")
		case !d.Known(), len(d.Shareholders)-len(d.Gone) < d.Threshold:
			x.since("recovery-too-few", d.Since, "the recovery shares in force may be too few, or the hub does not know who has them", "holdfast recovery deal --data "+x.data)
		}
		if last := d.Rehearsed; last.IsZero() {
			x.since("recovery-not-rehearsed", d.Since, "recovery shares are dealt, and nobody has seen them come together", "holdfast recovery rehearse --data "+x.data+", with enough shares")
		} else if x.now.Sub(last) > rehearseAfter {
			x.since("recovery-not-rehearsed", last, fmt.Sprintf("the recovery shares were rehearsed %d days ago last", int(x.now.Sub(last).Hours()/24)), "holdfast recovery rehearse --data "+x.data+", with enough shares")
		}
	}
	if old > 0 {
		x.add("recovery-old-shares", fmt.Sprintf("%d shares of replaced deals are not said to be destroyed: certificates of erasures from before are pending", old),
			"have them destroyed, and say so: holdfast recovery destroyed CODE --data "+x.data)
	}
}

// sharesOpened says that the shares in force were on one machine: whoever saw them
// there opens every copy of the keyring of their time.
func (x *examination) sharesOpened(all []recovery.Deal, together *openedDeal) {
	if together == nil {
		return
	}
	for _, d := range all {
		if d.State == recovery.InForce && d.ID == together.Deal {
			x.since("recovery-opened", together.At, "the shares of the deal in force have opened the keyring: they were together on one machine", "holdfast recovery deal --data "+x.data+", then have the old shares destroyed, and say so: holdfast recovery destroyed CODE")
		}
	}
}
