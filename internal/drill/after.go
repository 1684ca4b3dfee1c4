package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// retracted looks whether who read the canary's readings under a grant is told that they
// are erased, and is told nothing of the other's.
func (d *drill) retracted(ctx context.Context) {
	err := func() error {
		c, err := d.hub.as(d.studyToken)
		if err != nil {
			return err
		}
		defer c.Close()
		b, err := ask(ctx, c, "/v1/retractions")
		switch {
		case err != nil:
			return err
		case !strings.Contains(string(b), d.canary.device):
			return holdfast.Errorf(holdfast.Internal, "it is not told")
		case strings.Contains(string(b), d.control.device):
			return holdfast.Errorf(holdfast.Internal, "it is told that the other's are erased, too")
		}
		return nil
	}()
	d.check("retracted", "who had the erased owner's readings under a grant is told to delete them", "", err)
}

// copies holds the keyring's copy against the keyring: no file more, none less, none
// otherwise, and none of those that the erasure has replaced.
func (d *drill) copies() {
	said, err := d.sameKeyring()
	d.check("copies", "the keyring's copy is what the keyring is, without the pages that the erasure destroyed", said, err)
}

func (d *drill) sameKeyring() (string, error) {
	place := filepath.Join(d.data(), "keyring")
	was, err := ringFiles(filepath.Join(d.aside(), "keyring"))
	if err != nil {
		return "", err
	}
	own, err := ringFiles(place)
	if err != nil {
		return "", err
	}
	copied, err := ringFiles(d.copied())
	if err != nil {
		return "", err
	}
	dead := 0
	for name := range was {
		if own[name] != nil {
			continue
		}
		if dead++; copied[name] != nil {
			err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "the copy still has %s", name))
		}
	}
	if dead == 0 {
		err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "the erasure has replaced no file of the keyring"))
	}
	if len(own) != len(copied) {
		err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "the copy has %d files of the keyring's %d", len(copied), len(own)))
	}
	for name, b := range own {
		if !bytes.Equal(b, copied[name]) {
			err = errors.Join(err, holdfast.Errorf(holdfast.Internal, "%s is not the same in the copy", name))
		}
	}
	return fmt.Sprintf("%d files, %d of before are gone from both", len(own), dead), err
}

// ringFiles reads heads and pages. Beside those, a copy has take-backs.
func ringFiles(dir string) (map[string][]byte, error) {
	all := map[string][]byte{}
	return all, fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasPrefix(name, "head-") && !strings.HasPrefix(name, "page-") {
			return err
		}
		all[name], err = os.ReadFile(filepath.Join(dir, name))
		return err
	})
}
