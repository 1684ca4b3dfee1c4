package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// InitOptions is what Init may be told; the zero value works.
type InitOptions struct {
	Organisation string   // default: the first host
	Hosts        []string // default: host name, localhost, own addresses
	RootKey      string   // default: a file in the user's configuration folder
	Passphrase   []byte   // protects the root key, if given
	Version      string   // of this program
}

// Initialised is what Init made.
type Initialised struct {
	Dir, RootKey, Organisation string
	Hosts                      []string
	Admin                      string // folder of the administrator's identity
	Verifier                   string // the ledger's public key
}

// Init makes a data folder with its root key, authority, ledger, operating
// organisation, the purpose of operation and a first administrator. dir must not
// exist or be empty. It is there whole or not at all.
func Init(ctx context.Context, dir string, o InitOptions) (_ Initialised, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return Initialised{}, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return Initialised{}, holdfast.Errorf(holdfast.Conflict, "%s is not empty: name a new folder", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Initialised{}, fmt.Errorf("make data folder: %w", err)
	}
	hub := holdfast.NewID[[16]byte]()
	name := holdfast.PartyID(hub).String()
	if len(o.Hosts) == 0 {
		o.Hosts = ownHosts()
	}
	if o.Organisation == "" {
		o.Organisation = o.Hosts[0]
	}
	if o.RootKey == "" {
		config, err := os.UserConfigDir()
		if err != nil {
			return Initialised{}, holdfast.Errorf(holdfast.Invalid, "there is no configuration folder for this user: say where the root key goes with --root-key")
		}
		o.RootKey = filepath.Join(config, "holdfast", name[:8]+".root-key")
	}
	if o.RootKey, err = filepath.Abs(o.RootKey); err != nil {
		return Initialised{}, err
	}
	if strings.Contains(o.RootKey, "?") {
		return Initialised{}, holdfast.Errorf(holdfast.Invalid, "a root key can't lie at %s: its path may have no question mark", o.RootKey)
	}
	if inside(dir, o.RootKey) {
		return Initialised{}, holdfast.Errorf(holdfast.Invalid, "the root key must not lie in the data folder: whoever copies the folder would have both")
	}
	// Everything is made beside its place and moved there at the end.
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return Initialised{}, fmt.Errorf("make data folder: %w", err)
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".init-")
	if err != nil {
		return Initialised{}, fmt.Errorf("make data folder: %w", err)
	}
	defer os.RemoveAll(made)
	holder, err := vault.CreateFileHolder(o.RootKey, o.Passphrase)
	if err != nil {
		return Initialised{}, err
	}
	defer func() {
		if err != nil {
			os.Remove(o.RootKey)
		}
	}()
	f := folder{Format: folderFormat, Hub: name, RootKey: o.RootKey}
	out := Initialised{Dir: dir, RootKey: o.RootKey, Organisation: o.Organisation, Hosts: o.Hosts, Admin: filepath.Join(dir, adminDir)}
	if out.Verifier, err = fill(ctx, made, f, holder, o); err != nil {
		return Initialised{}, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Initialised{}, fmt.Errorf("make data folder: %w", err)
	}
	if err := errors.Join(syncFolder(filepath.Join(made, adminDir)), os.Rename(made, dir), syncFolder(filepath.Dir(dir))); err != nil {
		return Initialised{}, fmt.Errorf("make data folder: %w", err)
	}
	return out, nil
}

// fill makes everything in the folder and returns the ledger's verifier key.
func fill(ctx context.Context, dir string, f folder, holder vault.Holder, o InitOptions) (string, error) {
	for _, sub := range []string{catalogDir, journalDir, segmentsDir, keyringDir, adminDir} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return "", fmt.Errorf("make data folder: %w", err)
		}
	}
	db, err := catalog.Open(ctx, filepath.Join(dir, catalogDir), catalog.Options{})
	if err != nil {
		return "", err
	}
	defer db.Close()
	v, err := vault.Create(ctx, db, vault.Dir(filepath.Join(dir, keyringDir)), []vault.Holder{holder}, vault.Options{})
	if err != nil {
		return "", err
	}
	defer v.Close()
	l, err := ledger.Create(ctx, db, v, f.origin())
	if err != nil {
		return "", err
	}
	id, err := identity.Create(ctx, identity.Deps{Catalog: db, Vault: v, Ledger: l}, o.Hosts, identity.Options{})
	if err != nil {
		return "", err
	}
	people, err := access.Open(ctx, access.Deps{Catalog: db, Vault: v, Ledger: l, Authority: id}, access.Options{})
	if err != nil {
		return "", err
	}
	party, err := custody.New(db, v, l, custody.Options{}).AddOperating(ctx, o.Organisation)
	if err != nil {
		return "", err
	}
	admin, err := people.CreateAdministrator(ctx, party.ID, "first administrator")
	if err != nil {
		return "", err
	}
	for name, pem := range map[string][]byte{"key.pem": admin.Key, "cert.pem": admin.Certificate, "ca.pem": admin.CA} {
		if err := writeFile(filepath.Join(dir, adminDir, name), pem); err != nil {
			return "", fmt.Errorf("write administrator: %w", err)
		}
	}
	c, err := l.Publish(ctx) // what was done so far
	if err != nil {
		return "", err
	}
	if err := writeJSON(filepath.Join(dir, ledgerFile), ledger.Kept{Checkpoint: string(c.Note), Verifier: l.VerifierKey()}); err != nil {
		return "", err
	}
	if err := writeJSON(filepath.Join(dir, releaseFile), newRelease(o.Version, nil)); err != nil {
		return "", err
	}
	return l.VerifierKey(), writeJSON(filepath.Join(dir, folderFile), f)
}

// ownHosts are the names and addresses by which others reach this machine.
func ownHosts() []string {
	var hosts []string
	if name, err := os.Hostname(); err == nil && name != "" {
		hosts = append(hosts, name)
	}
	hosts = append(hosts, "localhost", "127.0.0.1", "::1")
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			hosts = append(hosts, ip.IP.String())
		}
	}
	slices.Sort(hosts[1:])
	return slices.Compact(hosts)
}
