package tpmholder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
)

const stateFormat = "1"

// state is the state file's JSON; docs/format/tpm.md describes it.
type state struct {
	Format   string `json:"holdfast-tpm"`
	Ring     []byte `json:"ring"`     // 16 random bytes; ties boxes and evidence to this holder
	Index    handle `json:"index"`    // of the counter
	Password []byte `json:"password"` // of the counter
	Parent   handle `json:"parent"`   // persistent handle of the storage key
	Unique   []byte `json:"unique"`   // 32 bytes from which the TPM derives this holder's keys

	// Made says that the TPM has all that is named below.
	Made       bool   `json:"made"`
	Counter    []byte `json:"counter,omitempty"`     // TPMS_NV_PUBLIC of the counter, written
	ParentName []byte `json:"parent_name,omitempty"` // TPM name of the storage key
	Key        []byte `json:"key,omitempty"`         // TPMT_PUBLIC of the key that signs evidence

	EKCertificate []byte    `json:"ek_certificate,omitempty"` // DER
	Activated     time.Time `json:"activated,omitzero"`       // when the key was shown to be of the TPM with that certificate
	Unshown       string    `json:"unshown,omitempty"`        // why it was not

	First    uint64   `json:"first"` // value of the counter when it was made
	Start    *start   `json:"start,omitempty"`
	Prepared []uint64 `json:"prepared"` // generations, ascending; those that are destroyed are left out
	Below    uint64   `json:"below"`    // what Destroy was last asked for, written before the first increment
	Seen     uint64   `json:"seen"`     // the highest value of the counter that was read
}

// start ties generations to values of the counter.
type start struct {
	Generation uint64 `json:"generation"`
	Counter    uint64 `json:"counter"`
}

// at returns the last value of the counter at which boxes of generation n open.
func (s start) at(n uint64) uint64 { return s.Counter + (n - s.Generation) }

// handle is written in hexadecimal, as every TPM tool does.
type handle uint32

func (h handle) String() string               { return fmt.Sprintf("0x%08x", uint32(h)) }
func (h handle) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

func (h *handle) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 0, 32)
	*h = handle(n)
	return err
}

// file is the state file under its lock.
type file struct {
	path string
	lock *os.File
}

// lockState takes the lock beside the state file, which only one process has.
func lockState(path string) (*file, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state of TPM holder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, holdfast.Errorf(holdfast.Conflict, "another process uses the TPM holder of %s: only one may, stop it first", path)
	}
	return &file{path, lock}, nil
}

func (f *file) Close() error { return f.lock.Close() }

// read returns nil if there is no file.
func (f *file) read() (*state, error) {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read state of TPM holder: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, holdfast.Errorf(holdfast.Denied, "others may read the state of the TPM holder %s (mode %04o): chmod 600 it", f.path, info.Mode().Perm())
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("read state of TPM holder: %w", err)
	}
	defer clear(b)
	s, err := parseState(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	return s, nil
}

func parseState(b []byte) (*state, error) {
	var s state
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&s); err != nil || s.Format == "" {
		return nil, holdfast.Errorf(holdfast.Invalid, "it is not the state of a TPM holder, or damaged")
	}
	if s.Format != stateFormat {
		return nil, holdfast.Errorf(holdfast.Conflict, "it has format %q, this program knows %s: start the newer holdfast", s.Format, stateFormat)
	}
	if len(s.Ring) != 16 || len(s.Password) != 32 || len(s.Unique) != 32 ||
		s.Made && (len(s.Counter) == 0 || len(s.ParentName) != 34 || len(s.Key) == 0) ||
		s.Start != nil && s.Start.Generation == 0 || s.Start == nil && len(s.Prepared) > 0 || !slices.IsSorted(s.Prepared) {
		return nil, holdfast.Errorf(holdfast.Invalid, "the state of the TPM holder is damaged: put back a copy of it")
	}
	return &s, nil
}

// there fails unless the file is on the disk now; a copy of another time will do. No
// other is made in its place: it would lie on another disk, with the counter's password.
func (f *file) there(s *state) error {
	is, err := f.read()
	if err != nil {
		return err
	}
	if is == nil {
		return holdfast.Errorf(holdfast.Unavailable, "the state %s of the TPM holder is gone: put it back, or a copy of it, or mount its disk", f.path)
	}
	if !bytes.Equal(is.Ring, s.Ring) {
		return holdfast.Errorf(holdfast.Conflict, "%s is the state of another TPM holder than was there: put that one back. It is left alone", f.path)
	}
	return nil
}

// write replaces the file, which must be there; it is durable when write returns.
func (f *file) write(s *state) error {
	if err := f.there(s); err != nil {
		return fmt.Errorf("write state of TPM holder: %w", err)
	}
	return f.make(s)
}

// make is write of a file that may be missing.
func (f *file) make(s *state) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write state of TPM holder: %w", err)
	}
	defer clear(b)
	if err := f.replace(append(b, '\n')); err != nil {
		return fmt.Errorf("write state of TPM holder: %w", err)
	}
	return nil
}

func (f *file) replace(b []byte) error {
	tmp := f.path + ".tmp"
	w, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	if err = errors.Join(err, w.Sync(), w.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, f.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
