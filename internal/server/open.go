package server

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// stores are the seams: what holds bytes.
type stores struct {
	lock    io.Closer
	folder  folder
	catalog *catalog.DB
	journal *journal.File
	blobs   *blob.Dir
	vault   *vault.Vault
	holders []vault.Holder
}

// openStores takes the data folder and opens what is in it.
func openStores(ctx context.Context, c Config) (_ *stores, err error) {
	s, on := &stores{}, c.Ground
	data := on.Folder(c.Data)
	if s.folder, err = readFolder(data, c.Data); err != nil {
		return nil, err
	}
	if s.lock, err = takeFolder(data, c.Data); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	path := c.RootKey
	if path == "" {
		path = s.folder.RootKey
	}
	if inside(c.Data, path) {
		return nil, holdfast.Errorf(holdfast.Denied, "the root key %s lies in the data folder: whoever copies the folder has both; move it out and say where with --root-key", path)
	}
	holder, err := vault.OpenFileHolderOn(on.RootKeys, path, c.Passphrase)
	if err != nil {
		return nil, err
	}
	s.holders = []vault.Holder{holder}
	if s.catalog, err = openCatalog(ctx, c, data); err != nil {
		return nil, err
	}
	// The keyring comes first: with the wrong root key nothing is mended.
	if s.vault, err = vault.Open(ctx, s.catalog, on.Keyring(filepath.Join(c.Data, keyringDir)), s.holders, vault.Options{}); err != nil {
		return nil, err
	}
	if s.journal, err = on.Journal(filepath.Join(c.Data, journalDir)); err != nil {
		return nil, err
	}
	s.blobs, err = on.Blobs(filepath.Join(c.Data, segmentsDir))
	return s, err
}

// close closes in the reverse order of opening.
func (s *stores) close() error {
	var errs []error
	if s.blobs != nil {
		errs = append(errs, s.blobs.Close())
	}
	if s.journal != nil {
		errs = append(errs, s.journal.Close())
	}
	if s.vault != nil {
		errs = append(errs, s.vault.Close())
	}
	if s.catalog != nil {
		errs = append(errs, s.catalog.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
