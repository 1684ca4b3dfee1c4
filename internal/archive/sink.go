package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bundle"
)

// Folder is a Sink that a person named: the one place where plaintext is meant to
// lie on a disk.
type Folder struct{ root *os.Root }

// NewFolder makes the folder, which must not be there or must be empty. Only its
// owner may read what is put there.
func NewFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "make folder of the export: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "read folder of the export: %w", err)
	}
	if len(entries) > 0 {
		return nil, holdfast.Errorf(holdfast.Conflict, "the folder of the export is not empty: name a new one")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "open folder of the export: %w", err)
	}
	return &Folder{root}, nil
}

// Put writes a file durably.
func (f *Folder) Put(_ context.Context, name string, content []byte) (err error) {
	if parent := path.Dir(name); parent != "." {
		if err := f.root.MkdirAll(filepath.FromSlash(parent), 0o700); err != nil {
			return err
		}
	}
	out, err := f.root.OpenFile(filepath.FromSlash(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := out.Write(content); err != nil {
		return err
	}
	return out.Sync()
}

// Close ends the use of the folder.
func (f *Folder) Close() error { return f.root.Close() }

// Tar is a Sink that makes one stream of the files, under a folder called by the
// bundle's reader's choice.
type Tar struct {
	w      *tar.Writer
	folder string
}

// NewTar writes to w; the names of files begin with folder.
func NewTar(w io.Writer, folder string) *Tar { return &Tar{tar.NewWriter(w), folder} }

// Put writes a file.
func (t *Tar) Put(ctx context.Context, name string, content []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := t.w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path.Join(t.folder, name), Size: int64(len(content)), Mode: 0o600, ModTime: time.Now().Truncate(time.Second),
	})
	if err != nil {
		return err
	}
	_, err = t.w.Write(content)
	return err
}

// Close ends the stream. A stream that is not closed is broken, and its reader
// sees it.
func (t *Tar) Close() error { return t.w.Close() }

// Untar puts the files of a bundle that Tar wrote into a sink, without the folder
// they are under. A name that leads elsewhere, a link and a file larger than any
// of a bundle are refused.
func Untar(ctx context.Context, r io.Reader, into Sink) error {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read bundle: %w", err)
		}
		_, name, ok := strings.Cut(h.Name, "/")
		if !ok || h.Typeflag != tar.TypeReg || !fs.ValidPath(name) || strings.Contains(name, "\\") {
			return holdfast.Errorf(holdfast.Invalid, "the stream holds something that a bundle does not have")
		}
		if h.Size > bundle.MaxPart {
			return holdfast.Errorf(holdfast.TooLarge, "a file of the stream is larger than any of a bundle")
		}
		var content bytes.Buffer
		if _, err := io.Copy(&content, in); err != nil {
			return fmt.Errorf("read bundle: %w", err)
		}
		if err := into.Put(ctx, name, content.Bytes()); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
}
