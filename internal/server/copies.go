package server

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// copyFolder reads the URL of a copy of the keyring: file:/PATH.
func (c Config) copyFolder(url string) (string, error) {
	dir, found := strings.CutPrefix(url, schemeFile+":")
	if !found || !filepath.IsAbs(dir) {
		return "", holdfast.Errorf(holdfast.Invalid, "%q is no place for a copy of the keyring: give file:/PATH, a folder on another disk or a mounted share", url)
	}
	if dir = filepath.Clean(dir); inside(c.Data, dir) || inside(dir, c.Data) {
		return "", holdfast.Errorf(holdfast.Invalid, "the folder %s is in the data folder, or has it within: a copy is for when that is lost", dir)
	}
	return dir, nil
}

// openCopies are the copies of the keyring that keys.json names. Whether one can be
// read and written shows when it gets something.
func (c Config) openCopies(k keys) (out []vault.Copy, err error) {
	for _, e := range k.Copies {
		dir, err := c.copyFolder(e.URL)
		if err != nil {
			return nil, err
		}
		out = append(out, vault.Copy{Name: e.Name, Place: c.Ground.Keyring(dir)})
	}
	return out, nil
}

// takeBackPrefix begins the names of the files that copies have beside the keyring's.
const takeBackPrefix = "takebacks-"

// takeBacks is the ledger, as the copies of the keyring have it beside them.
type takeBacks struct{ ledger *ledger.Ledger }

// Prepare signs what was taken back since the last time.
func (t takeBacks) Prepare(ctx context.Context, generation uint64) error {
	due, err := t.ledger.TakeBacksDue(ctx, generation)
	if err != nil || !due {
		return err
	}
	return t.ledger.SignTakeBacks(ctx, generation)
}

func (t takeBacks) Files(ctx context.Context) (map[string][sha256.Size]byte, error) {
	return t.ledger.TakeBackFiles(ctx)
}

func (t takeBacks) File(ctx context.Context, name string) ([]byte, error) {
	return t.ledger.TakeBackFile(ctx, name)
}

func (takeBacks) Owns(name string) bool { return ledger.OwnsTakeBacks(name) }

func (takeBacks) Follows(ours, theirs []byte) error { return ledger.TakeBacksFollow(ours, theirs) }

// signedTakeBacks are the take-backs of a stopped hub, as they were signed last.
type signedTakeBacks struct {
	takeBacks
	catalog *catalog.DB
}

func (signedTakeBacks) Prepare(context.Context, uint64) error { return nil }

func (t signedTakeBacks) Files(ctx context.Context) (map[string][sha256.Size]byte, error) {
	return ledger.TakeBackFiles(ctx, t.catalog)
}

func (t signedTakeBacks) File(ctx context.Context, name string) ([]byte, error) {
	return ledger.TakeBackFile(ctx, t.catalog, name)
}

// runCopies keeps the copies of the keyring in step.
func (s *Server) runCopies(ctx context.Context) error {
	return s.stores.vault.RunCopies(ctx, func(err error) { s.log.Error("keyring: look after copies", "err", err) },
		func(c vault.CopyState) {
			s.log.Warn("keyring: a copy is left as it is", "copy", c.Name, "reason", c.Reason)
		})
}
