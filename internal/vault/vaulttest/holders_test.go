package vaulttest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/conform"
)

// openFile opens a root key file, making it at the first time.
func openFile(path string) func(context.Context) (vault.Holder, error) {
	return func(context.Context) (vault.Holder, error) {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if _, err := vault.CreateFileHolder(path, nil); err != nil {
				return nil, err
			}
		}
		return vault.OpenFileHolder(path, nil)
	}
}

func TestFileHolderConforms(t *testing.T) {
	Holders(t, func(t *testing.T) conform.Subject {
		dir := t.TempDir()
		return conform.Subject{Open: openFile(filepath.Join(dir, "root.key")), Other: openFile(filepath.Join(dir, "other.key"))}
	})
}
