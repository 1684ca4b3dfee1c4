// Package vaulttest makes a vault over a catalog in a temporary folder, for the
// tests of those who seal.
package vaulttest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// New returns a catalog and a vault with nothing in them, which go with the test.
func New(t testing.TB) (*catalog.DB, *vault.Vault) {
	t.Helper()
	dir := t.TempDir()
	db, err := catalog.Open(t.Context(), dir, catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ring := filepath.Join(dir, "keyring")
	if err := os.Mkdir(ring, 0o700); err != nil {
		t.Fatal(err)
	}
	holder, err := vault.CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Create(t.Context(), db, vault.Dir(ring), []vault.Holder{holder}, vault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return db, v
}
