package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// The data folder:
//
//	holdfast.json   what this folder is, and where its root key lies
//	keys.json       who holds the root key, if not only the file that holdfast.json names
//	lock            held by the process that uses the folder
//	catalog/        the database
//	journal/        readings not yet rolled
//	segments/       readings, sealed and compressed
//	keyring/        owner keys, wrapped
//	staging/        copies of the catalog while backups are under way
//	admin/          the first administrator's certificate and key
//	ledger.json     the last head of the ledger that was signed
//	release.json    which program it is for, and what it can go back to
//	restore.json    that it was restored, until that is confirmed
//	restore.lock    held by a restore under way
//	run.json        where the running hub listens; gone when it has stopped
const (
	folderFile  = "holdfast.json"
	lockFile    = "lock"
	runFile     = "run.json"
	restoreFile = "restore.json"
	ledgerFile  = "ledger.json"
	catalogDir  = "catalog"
	journalDir  = "journal"
	segmentsDir = "segments"
	keyringDir  = "keyring"
	adminDir    = "admin"
	stagingDir  = "staging"
)

// folderFormat is the version of the layout.
const folderFormat = "1"

// folder is holdfast.json.
type folder struct {
	Format  string `json:"holdfast-data"`
	Hub     string `json:"hub"`      // random; part of the ledger's origin
	RootKey string `json:"root_key"` // where init put it, absolute
}

func readFolder(on Folder, dir string) (folder, error) {
	var f folder
	b, err := on.ReadFile(folderFile)
	if errors.Is(err, fs.ErrNotExist) {
		if r, err := readRestored(on); err == nil && r.Format != "" {
			return f, unfinished(dir)
		}
		return f, holdfast.Errorf(holdfast.NotFound, "%s is not a data folder: make one with `holdfast init %s`", dir, dir)
	} else if err != nil {
		return f, fmt.Errorf("open data folder: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	err = d.Decode(&f)
	if err == nil && newer(f.Format, folderFormat) { // what else it says only that one knows
		return f, holdfast.Errorf(holdfast.Conflict, "%s has format %s, this program knows %s: start the newer holdfast that wrote it", filepath.Join(dir, folderFile), f.Format, folderFormat)
	}
	if err == nil {
		err = f.check(b)
	}
	if err != nil {
		return f, damagedFolder(dir, "at byte %d: %w", d.InputOffset(), err)
	}
	return f, nil
}

// newer tells a later format, which is a greater number, from a damaged one.
func newer(format, known string) bool {
	has, err := strconv.Atoi(format)
	knows, _ := strconv.Atoi(known)
	return err == nil && has > knows
}

func damagedFolder(dir, format string, args ...any) error {
	return holdfast.Errorf(holdfast.Invalid, "%s is damaged "+format+". Nothing was changed. Put back an undamaged copy of this file", append([]any{filepath.Join(dir, folderFile)}, args...)...)
}

// check accepts what init writes, and nothing else.
func (f folder) check(file []byte) error {
	if whole, err := f.text(); err != nil || !bytes.Equal(whole, file) {
		return errors.New("it does not read as init wrote it")
	}
	if _, err := holdfast.ParseID[holdfast.PartyID](f.Hub); err != nil {
		return errors.New("the hub's id can't be read")
	}
	if f.Format != folderFormat {
		return errors.New("its format is none")
	}
	if !filepath.IsAbs(f.RootKey) {
		return errors.New("the path of the root key is not absolute")
	}
	if strings.Contains(f.RootKey, "?") { // which begins what a holder's URL says beside the path
		return errors.New("the path of the root key can't be read")
	}
	return nil
}

func (f folder) text() ([]byte, error) {
	b, err := json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}

// origin is the name of the hub's ledger; one that was renewed has a number after
// it.
func (f folder) origin() string { return "holdfast/" + f.Hub }

// named reports whether a ledger of this name is the hub's.
func (f folder) named(origin string) bool {
	number, renewed := strings.CutPrefix(origin, f.origin()+"/")
	if !renewed {
		return origin == f.origin()
	}
	n, err := strconv.Atoi(number)
	return err == nil && n > 1
}

// headFile keeps the ledger's last head in the data folder, beside the catalog.
type headFile struct {
	folder Folder
}

func (f headFile) Load() (k ledger.Kept, err error) {
	b, err := f.folder.ReadFile(ledgerFile)
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return k, holdfast.Errorf(holdfast.Conflict, "%s is not as the hub wrote it", ledgerFile)
	}
	return k, nil
}

func (f headFile) Save(k ledger.Kept) error { return f.folder.WriteJSON(ledgerFile, k) }

// writeJSON writes a small file whole or not at all, mode 0600, and makes it
// durable.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	temp := path + ".tmp"
	if err := writeFile(temp, append(b, '\n')); err != nil {
		return err
	}
	return errors.Join(os.Rename(temp, path), syncFolder(filepath.Dir(path)))
}

// writeFile writes a file of mode 0600, durably but for its name.
func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// syncFolder makes the names in a folder durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// inside reports whether path lies in dir, links resolved as far as they exist.
func inside(dir, path string) bool {
	real := func(p string) string {
		p, _ = filepath.Abs(p)
		for rest := ""; ; {
			if r, err := filepath.EvalSymlinks(p); err == nil {
				return filepath.Join(r, rest)
			}
			parent := filepath.Dir(p)
			if parent == p {
				return filepath.Join(p, rest)
			}
			rest = filepath.Join(filepath.Base(p), rest)
			p = parent
		}
	}
	rel, err := filepath.Rel(real(dir), real(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
