package server

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/conform"
	"github.com/holdfast-iot/holdfast/internal/vault/execholder"
	"github.com/holdfast-iot/holdfast/internal/vault/tpmholder"
)

// TestHolder tries a holder with keyrings of its own that nothing hangs on. It needs
// no hub. It reports whether all steps were passed.
func TestHolder(ctx context.Context, url string, each func(conform.Result)) (bool, error) {
	u, err := parseHolder(url)
	if err != nil {
		return false, err
	}
	switch u.scheme {
	case schemeExec:
		open := func(keyring string) func(context.Context) (vault.Holder, error) {
			return func(ctx context.Context) (vault.Holder, error) {
				return execholder.Open(ctx, u.path, u.args, keyring)
			}
		}
		name := "test-" + strings.ToLower(rand.Text()[:12])
		return conform.Run(ctx, conform.Subject{Open: open(name + "-a"), Other: open(name + "-b")}, each), nil
	case schemeFile:
		dir, err := os.MkdirTemp(u.path, ".holdfast-test-")
		if err != nil {
			return false, holdfast.Errorf(holdfast.Invalid, "to try files, name a folder that they may be made in: %w", err)
		}
		defer os.RemoveAll(dir)
		open := func(name string) func(context.Context) (vault.Holder, error) {
			path, made := dir+"/"+name, false
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
		return conform.Run(ctx, conform.Subject{Open: open("a"), Other: open("b"), Away: takeAway(dir + "/a")}, each), nil
	}
	return testTPM(ctx, u.tpm, each)
}

// testTPM makes a counter of its own, which goes again. The index must be free.
func testTPM(ctx context.Context, o tpmholder.Options, each func(conform.Result)) (bool, error) {
	if _, err := os.Lstat(o.State); !errors.Is(err, fs.ErrNotExist) {
		return false, holdfast.Errorf(holdfast.Conflict, "there is something at %s: to try a TPM, name a state file that is not there, and index= and parent= that nobody uses", o.State)
	}
	h, err := tpmholder.Create(ctx, o)
	if err != nil {
		return false, err
	}
	if err := h.Close(); err != nil {
		return false, err
	}
	passed := conform.Run(ctx, conform.Subject{Open: func(ctx context.Context) (vault.Holder, error) { return tpmholder.Open(ctx, o) }, Away: takeAway(o.State)}, each)
	return passed, tpmholder.Remove(ctx, o)
}

// takeAway is how a file that a holder hangs on goes away, and comes back.
func takeAway(path string) func() (func() error, error) {
	return func() (func() error, error) {
		return func() error { return os.Rename(path+".away", path) }, os.Rename(path, path+".away")
	}
}
