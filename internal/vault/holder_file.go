package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/crypto/scrypt"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// FileHolder holds the root key in a file of mode 0600, in clear or under a
// passphrase (scrypt). Its grade is Clear: a copy of the file that somebody made
// earlier, together with a copy of the keyring, is not reached.
type FileHolder struct {
	mu    sync.Mutex // guards all that follows but path and pass, for Answers
	files Files
	path  string
	pass  seal.Key // derived from the passphrase; unused without one
	doc   rootFile
	// unsynced says that the file on the disk may still be, or come back as, the one
	// before: a replacement failed half way.
	unsynced bool
	// seen are the sums of what may be on the disk: of the file that was read or written
	// last, and of one whose writing failed. Anything else is another program's. There is
	// none of a file that is still to be made.
	seen [][32]byte
}

const (
	rootFormat = "1"
	scryptN    = 1 << 15 // 32 MiB, about 0.1 s
)

// CreateFileHolder makes the file, which must not exist. An empty passphrase
// leaves the key in clear.
func CreateFileHolder(path string, passphrase []byte) (*FileHolder, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, holdfast.Errorf(holdfast.Conflict, "there is a root key at %s already: name another place with --root-key", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of root key: %w", err)
	}
	return CreateFileHolderOn(osFiles{}, path, passphrase)
}

// CreateFileHolderOn is CreateFileHolder in another file system than the operating
// system's, in a folder that is there.
func CreateFileHolderOn(files Files, path string, passphrase []byte) (*FileHolder, error) {
	return createFile(files, path, passphrase, nil)
}

// TakeUpFileHolderOn is CreateFileHolderOn where a CreateFileHolder that was cut short
// may have left its file, which has no key yet: that one makes room. It is a Conflict
// if anything else lies there; what may have a key in it is left as it is.
func TakeUpFileHolderOn(files Files, path string, passphrase []byte) (*FileHolder, error) {
	taken := holdfast.Errorf(holdfast.Conflict, "there is something at %s already: it may be another hub's root key. Name a new file", path)
	info, err := files.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createFile(files, path, passphrase, nil)
	} else if err != nil {
		return nil, diskError("look at root key", err)
	}
	if link, err := isLink(files, path); err != nil {
		return nil, diskError("look at root key", err)
	} else if link || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 || info.Size() > maxWithoutKeys {
		return nil, taken
	}
	was, err := readFile(files, path)
	defer clear(was)
	if err != nil {
		return nil, diskError("read root key", err)
	}
	var doc rootFile
	err = doc.decode(was)
	again, _ := doc.encode()
	if err != nil || doc.Format != rootFormat || len(doc.Keys) > 0 || !bytes.Equal(again, was) {
		wipeAll(doc.Keys)
		return nil, taken
	}
	return createFile(files, path, passphrase, was)
}

// isLink reports whether a name leads elsewhere.
func isLink(files Files, path string) (bool, error) {
	entries, err := files.ReadDir(filepath.Dir(path))
	i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == filepath.Base(path) })
	return i >= 0 && entries[i].Type()&fs.ModeSymlink != 0, err
}

// maxWithoutKeys is more than a root key file has as long as no key is in it.
const maxWithoutKeys = 512

// createFile writes a file without keys, in place of was if that is not nil.
func createFile(files Files, path string, passphrase, was []byte) (*FileHolder, error) {
	var ring, salt [16]byte
	rand.Read(ring[:])
	h := &FileHolder{files: files, path: path, doc: rootFile{
		Format: rootFormat,
		Ring:   base64.StdEncoding.EncodeToString(ring[:]),
		Keys:   map[uint64][]byte{},
	}}
	if len(passphrase) > 0 {
		rand.Read(salt[:])
		h.doc.Salt = base64.StdEncoding.EncodeToString(salt[:])
		if err := h.derive(passphrase); err != nil {
			return nil, err
		}
	}
	if was != nil {
		h.seen = [][32]byte{sha256.Sum256(was)}
	}
	return h, h.save()
}

// MoveTo gives the file its place, where nothing may lie yet.
func (h *FileHolder) MoveTo(path string) error {
	if _, err := h.files.Stat(path); err == nil {
		return holdfast.Errorf(holdfast.Conflict, "there is a root key at %s already: name another place with --root-key", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return diskError("move root key", err)
	}
	if err := h.files.Rename(h.path, path); err != nil {
		return diskError("move root key", err)
	}
	h.path = path
	return syncDir(h.files, filepath.Dir(path))
}

// DiscardFileHolder overwrites and removes a root key file, with what a crash has left
// of its writing.
func DiscardFileHolder(files Files, path string) error {
	for _, p := range []string{path + tempExt, path + oldExt, path} {
		if err := scrub(files, p); err != nil {
			return err
		}
	}
	return nil
}

// OpenFileHolder reads the file. It refuses one that others may read, and a
// wrong passphrase.
func OpenFileHolder(path string, passphrase []byte) (*FileHolder, error) {
	return OpenFileHolderOn(osFiles{}, path, passphrase)
}

// OpenFileHolderOn is OpenFileHolder in another file system than the operating
// system's.
func OpenFileHolderOn(files Files, path string, passphrase []byte) (*FileHolder, error) {
	info, err := files.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no root key at %s: is its disk mounted?", path)
	} else if err != nil {
		return nil, fmt.Errorf("open root key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, holdfast.Errorf(holdfast.Invalid, "the root key %s is no file: an erasure could not overwrite it", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, holdfast.Errorf(holdfast.Denied, "others may read the root key %s (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	if _, err := finishReplace(files, path); err != nil {
		return nil, fmt.Errorf("open root key: %w", err)
	}
	// What is read must be what a power cut leaves: a replacement may have been cut
	// short before its folder was synced.
	if err := syncDir(files, filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("open root key: %w", err)
	}
	b, err := readFile(files, path)
	if err != nil {
		return nil, fmt.Errorf("open root key: %w", err)
	}
	defer clear(b)
	h := &FileHolder{files: files, path: path, seen: [][32]byte{sha256.Sum256(b)}}
	if err := h.doc.decode(b); h.doc.Format == "" {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s is not a root key of Holdfast", path)
	} else if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the root key %s is damaged", path)
	}
	if h.doc.Format != rootFormat {
		return nil, holdfast.Errorf(holdfast.Conflict, "the root key %s has format %q, this program knows %s: start the newer holdfast", path, h.doc.Format, rootFormat)
	}
	switch {
	case h.doc.Salt != "" && len(passphrase) == 0:
		return nil, holdfast.Errorf(holdfast.Denied, "the root key %s needs its passphrase: name the file that has it with --passphrase-file", path)
	case h.doc.Salt == "" && len(passphrase) > 0:
		return nil, holdfast.Errorf(holdfast.Invalid, "the root key %s has no passphrase", path)
	case h.doc.Salt != "":
		if err := h.derive(passphrase); err != nil {
			return nil, err
		}
	}
	for n := range h.doc.Keys {
		c, err := h.cipher(n)
		if err != nil {
			return nil, err
		}
		c.Wipe()
	}
	return h, nil
}

// FileLook is what can be seen of a root key file without opening it.
type FileLook struct {
	Protected   bool     // by a passphrase
	Generations []uint64 // that it has keys of, ascending
}

// LookAtFile looks at the root key at path. It is Invalid for what is no root key.
func LookAtFile(path string) (FileLook, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return FileLook{}, fmt.Errorf("look at root key: %w", err)
	}
	defer clear(b)
	var doc rootFile
	err = doc.decode(b)
	defer wipeAll(doc.Keys)
	if err != nil || doc.Format == "" {
		return FileLook{}, holdfast.Errorf(holdfast.Invalid, "%s is not a root key of Holdfast", path)
	}
	return FileLook{doc.Salt != "", doc.generations()}, nil
}

func (h *FileHolder) derive(passphrase []byte) error {
	salt, err := base64.StdEncoding.DecodeString(h.doc.Salt)
	if err != nil {
		return holdfast.Errorf(holdfast.Invalid, "the root key %s is damaged", h.path)
	}
	k, err := scrypt.Key(passphrase, salt, scryptN, 8, 1, len(h.pass))
	if err != nil {
		return fmt.Errorf("derive key from passphrase: %w", err)
	}
	copy(h.pass[:], k)
	clear(k)
	return nil
}

func (h *FileHolder) ring() (id [16]byte) {
	b, _ := base64.StdEncoding.DecodeString(h.doc.Ring)
	copy(id[:], b)
	return id
}

// cipher returns the wrapping key of generation n, for the caller to wipe. What leads
// there leaves traces on the stack: the vault overwrites it behind every call.
func (h *FileHolder) cipher(n uint64) (*seal.Cipher, error) {
	b, ok := h.doc.Keys[n]
	if !ok {
		return nil, holdfast.Errorf(holdfast.NotFound, "the root key file %s does not hold generation %d", h.path, n)
	}
	if h.doc.Salt != "" {
		pass := seal.NewCipher(h.pass)
		defer pass.Wipe()
		plain, err := pass.Open(nil, b, seal.RootPlace(h.ring(), n))
		if err != nil {
			return nil, holdfast.Errorf(holdfast.Denied, "the passphrase of the root key %s is wrong", h.path)
		}
		defer clear(plain)
		b = plain
	}
	if len(b) != len(seal.Key{}) {
		return nil, holdfast.Errorf(holdfast.Invalid, "the root key %s is damaged", h.path)
	}
	return seal.NewCipher(seal.Key(b)), nil
}

// ID tells the file's keys from those of other files.
func (h *FileHolder) ID() string { return h.doc.Ring }

// Path returns where the file lies.
func (h *FileHolder) Path() string { return h.path }

// Close overwrites what memory has of the keys. The file keeps them.
func (h *FileHolder) Close() error {
	wipeAll(h.doc.Keys)
	clear(h.doc.Keys)
	h.pass.Wipe()
	return nil
}

// Protected reports that a passphrase protects the file.
func (h *FileHolder) Protected() bool { return h.doc.Salt != "" }

func (h *FileHolder) Name() string { return "file" }
func (h *FileHolder) Kind() string { return "file" }
func (h *FileHolder) Grade() Grade { return Clear }

func (h *FileHolder) Generations(context.Context) ([]uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.there(); err != nil {
		return nil, err
	}
	return h.doc.generations(), nil
}

// Prepare draws a wrapping key for generation n, if there is none yet.
func (h *FileHolder) Prepare(_ context.Context, n uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.there(); err != nil {
		return err
	}
	if _, has := h.doc.Keys[n]; has {
		if h.unsynced {
			return h.save()
		}
		return nil
	}
	b, err := h.draw(n)
	if err != nil {
		return err
	}
	h.doc.Keys[n] = b
	if err := h.save(); err != nil {
		delete(h.doc.Keys, n)
		clear(b)
		return err
	}
	return nil
}

// draw makes a wrapping key as the file has it.
func (h *FileHolder) draw(n uint64) ([]byte, error) {
	k := seal.NewKey()
	defer k.Wipe()
	if h.doc.Salt == "" {
		return bytes.Clone(k[:]), nil
	}
	pass := seal.NewCipher(h.pass)
	defer pass.Wipe()
	return pass.Seal(nil, k[:], seal.RootPlace(h.ring(), n))
}

func (h *FileHolder) Seal(_ context.Context, n uint64, root seal.Key) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.there(); err != nil {
		return nil, err
	}
	c, err := h.cipher(n)
	if err != nil {
		return nil, err
	}
	defer c.Wipe()
	return c.Wrap(nil, root, seal.RootPlace(h.ring(), n))
}

func (h *FileHolder) Open(_ context.Context, n uint64, box []byte) (seal.Key, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.there(); err != nil {
		return seal.Key{}, err
	}
	c, err := h.cipher(n)
	if err != nil {
		return seal.Key{}, err
	}
	defer c.Wipe()
	plain, err := c.Open(nil, box, seal.RootPlace(h.ring(), n))
	defer clear(plain)
	if err != nil || len(plain) != len(seal.Key{}) {
		return seal.Key{}, holdfast.Errorf(holdfast.Denied, "the root key %s is not of this data folder", h.path)
	}
	return seal.Key(plain), nil
}

// Destroy takes the generations before below out of the file. After an error the
// file may have been replaced, but not for good: a power cut could bring the keys
// back. Then they are no longer among Generations, and Destroy is to be called
// again.
func (h *FileHolder) Destroy(_ context.Context, below uint64) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.there(); err != nil {
		return nil, err
	}
	gone := map[uint64][]byte{}
	for n, k := range h.doc.Keys {
		if n < below {
			gone[n] = k
			delete(h.doc.Keys, n)
		}
	}
	if len(gone) == 0 && !h.unsynced {
		return nil, nil
	}
	err := h.save()
	if err == nil {
		wipeAll(gone)
		return nil, nil
	}
	// What is on the disk decides whether a key is still given out.
	b, rerr := readFile(h.files, h.path)
	defer clear(b)
	for n, k := range gone {
		if rerr != nil || containsText(b, k) {
			h.doc.Keys[n] = k
			delete(gone, n)
		}
	}
	wipeAll(gone)
	return nil, fmt.Errorf("destroy root key: %w", err)
}

// Answers fails unless the file is there, as it was left. It may be asked beside other
// calls.
func (h *FileHolder) Answers() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.there()
}

// there fails unless the file is on the disk now, as it was read or written last. What
// memory has says nothing of a file that was unplugged: its keys live on there, and
// another one in its place would hide that. Whoever puts the same bytes back, wherever
// from, has brought the holder back; those of another time it refuses, and leaves
// alone: one of the two would bring back what the other has destroyed.
func (h *FileHolder) there() error {
	b, err := readFile(h.files, h.path)
	defer clear(b)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return holdfast.Errorf(holdfast.Unavailable, "the root key file %s is gone: put the same file back, or mount its disk. No other is made in its place, for whoever has it still opens what it opened", h.path)
	case err != nil:
		return diskError("read root key", err)
	case slices.Contains(h.seen, sha256.Sum256(b)):
		return nil
	}
	var is rootFile
	if is.decode(b) != nil || is.Ring != h.doc.Ring {
		return holdfast.Errorf(holdfast.Conflict, "%s is not the root key file that was there: put that one back. It is left alone", h.path)
	}
	defer wipeAll(is.Keys)
	has, wants := is.generations(), h.doc.generations()
	if len(has) > 0 && len(wants) > 0 && has[len(has)-1] < wants[len(wants)-1] {
		return holdfast.Errorf(holdfast.Conflict, "the root key file %s is an older copy: it holds generation %s, the file that was there generation %s. Put that one back, and never an older one over a newer. It is left alone", h.path, numbers(has), numbers(wants))
	}
	return holdfast.Errorf(holdfast.Conflict, "another program has changed the root key %s (it holds generation %s, this hub left it with %s): is a second hub at work with it? It is left alone", h.path, numbers(has), numbers(wants))
}

// save replaces the file and overwrites the old one's bytes. One that is not there is
// made only if there never was one.
func (h *FileHolder) save() error {
	b, err := h.doc.encode()
	if err != nil {
		return err
	}
	defer clear(b)
	fresh := len(h.seen) == 0
	if fresh {
		if _, err := h.files.Stat(h.path); err == nil {
			return holdfast.Errorf(holdfast.Conflict, "there is something at %s already: name another place", h.path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return diskError("write root key", err)
		}
	} else if err := h.there(); err != nil {
		return err
	}
	next := sha256.Sum256(b)
	put := replaceThere
	if fresh {
		put = replaceFile
	}
	if err = put(h.files, h.path, b); err != nil {
		h.unsynced, h.seen = true, append(h.seen, next)
		return err
	}
	h.unsynced, h.seen = false, [][32]byte{next}
	return nil
}
