package vaulttest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/conform"
)

// openFile opens a root key file, making it at the first time.
func openFile(path string) func(context.Context) (vault.Holder, error) {
	made := false
	return func(context.Context) (vault.Holder, error) {
		if !made {
			if _, err := vault.CreateFileHolder(path, nil); err != nil {
				return nil, err
			}
			made = true
		}
		return vault.OpenFileHolder(path, nil)
	}
}

func TestFileHolderConforms(t *testing.T) {
	Holders(t, func(t *testing.T) conform.Subject {
		dir := t.TempDir()
		path := filepath.Join(dir, "root.key")
		return conform.Subject{Open: openFile(path), Other: openFile(filepath.Join(dir, "other.key")), Away: func() (func() error, error) {
			return func() error { return os.Rename(path+".away", path) }, os.Rename(path, path+".away")
		}}
	})
}
