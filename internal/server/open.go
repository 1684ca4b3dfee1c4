package server

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// stores are the seams: what holds bytes.
type stores struct {
	lock     io.Closer
	folder   folder
	restored restoredState // zero: it was not, or that was confirmed
	catalog  *catalog.DB
	journal  *journal.File
	blobs    *blob.Dir
	vault    *vault.Vault
	keys     keys
	holders  []held // those that are asked
}

// openStores takes the data folder and opens what is in it.
func openStores(ctx context.Context, c Config) (_ *stores, err error) {
	s, err := openKeyring(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.journal, err = c.Ground.Journal(filepath.Join(c.Data, journalDir)); err != nil {
		return nil, err
	}
	s.blobs, err = c.Ground.Blobs(filepath.Join(c.Data, segmentsDir))
	return s, err
}

// openKeyring takes the data folder and opens the catalog and the keyring.
func openKeyring(ctx context.Context, c Config) (_ *stores, err error) {
	s, on := &stores{}, c.Ground
	data := on.Folder(c.Data)
	if s.folder, err = readFolder(data, c.Data); err != nil {
		return nil, err
	}
	if s.lock, err = takeThisVersions(ctx, c, data); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.restored, err = checkRestored(data, c); err != nil {
		return nil, err
	}
	if s.keys, err = readKeys(data, c.Data, s.folder); err != nil {
		return nil, err
	}
	if s.holders, err = c.openHolders(ctx, s.folder, s.keys); err != nil {
		return nil, err
	}
	if s.catalog, err = openCatalog(ctx, c, data); err != nil {
		return nil, err
	}
	// The keyring comes first: with the wrong root key nothing is mended.
	holders, options := registered(s.holders), s.keys.options()
	if options.Restored = c.restored; !c.restored && !c.drill { // else they know more, or are not its own
		if options.Copies, err = c.openCopies(s.keys); err != nil {
			return nil, err
		}
	}
	if c.drill {
		for i, h := range holders {
			holders[i] = openOnly{h}
		}
	}
	s.vault, err = vault.Open(ctx, s.catalog, on.Keyring(filepath.Join(c.Data, keyringDir)), holders, options)
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
	errs = append(errs, closeHolders(s.holders))
	if s.catalog != nil {
		errs = append(errs, s.catalog.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
