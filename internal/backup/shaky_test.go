package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// How a step fails.
type mode int

const (
	fails   mode = iota // it is not done, and what follows works
	unheard             // it is done, but an error is returned
	dies                // it is not done, and nothing follows: the process was killed
	full                // there is no room for a byte from then on
)

var (
	errDisk   = errors.New("the test's disk fails")
	errKilled = errors.New("the test's process is dead")
)

// shaky is a disk of which one step fails. It knows what was not made durable, which
// the test can take away as a power cut does.
type shaky struct {
	disk
	dir  string
	mode mode
	at   int // which step; 0: none

	mu     sync.Mutex
	steps  int
	dead   bool
	full   bool
	names  map[string]map[string]bool // made since the folder was synced
	unsure map[string]bool            // files with content that was not synced
}

func newShaky(t *testing.T, dir string, m mode, at int) *shaky {
	t.Helper()
	d, err := openDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &shaky{disk: d, dir: dir, mode: m, at: at, names: map[string]map[string]bool{}, unsure: map[string]bool{}}
}

// step says whether the next thing is done, and what is returned of it.
func (s *shaky) step(write bool) (do bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false, errKilled
	}
	if s.steps++; s.steps == s.at {
		switch s.mode {
		case fails:
			return false, errDisk
		case unheard:
			return true, errDisk
		case dies:
			s.dead = true
			return false, errKilled
		case full:
			s.full = true
		}
	}
	if s.full && write {
		return false, syscall.ENOSPC
	}
	return true, nil
}

func (s *shaky) reached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.steps >= s.at
}

// made notes a name that a power cut takes away.
func (s *shaky) made(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := filepath.Dir(name)
	if s.names[dir] == nil {
		s.names[dir] = map[string]bool{}
	}
	s.names[dir][name] = true
}

func (s *shaky) OpenFile(name string, flag int, mode fs.FileMode) (file, error) {
	if flag&os.O_CREATE == 0 {
		return s.disk.OpenFile(name, flag, mode)
	}
	do, err := s.step(true)
	if !do {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f, oerr := s.disk.OpenFile(name, flag, mode)
	if oerr == nil {
		s.made(name)
	}
	if err != nil && oerr == nil {
		f.Close()
	}
	if err := errors.Join(oerr, err); err != nil {
		return nil, err
	}
	return &shakyFile{f, s, name}, nil
}

func (s *shaky) Mkdir(name string, mode fs.FileMode) error {
	do, err := s.step(true)
	if do {
		if merr := s.disk.Mkdir(name, mode); merr != nil {
			return merr
		}
		s.made(name)
	}
	return err
}

func (s *shaky) Rename(from, to string) error {
	do, err := s.step(false)
	if do {
		if rerr := s.disk.Rename(from, to); rerr != nil {
			return rerr
		}
		s.made(to)
		s.mu.Lock()
		if s.unsure[from] {
			delete(s.unsure, from)
			s.unsure[to] = true
		}
		s.mu.Unlock()
	}
	return err
}

func (s *shaky) Remove(name string) error {
	do, err := s.step(false)
	if do {
		err = errors.Join(err, s.disk.Remove(name))
	}
	return err
}

func (s *shaky) SyncFolder(name string) error {
	do, err := s.step(false)
	if do {
		s.mu.Lock() // the real one would only take its time
		delete(s.names, filepath.Clean(name))
		s.mu.Unlock()
	}
	return err
}

// powerCut takes away what no sync has made durable.
func (s *shaky) powerCut(t *testing.T) {
	t.Helper()
	for name := range s.unsure {
		if err := os.Truncate(filepath.Join(s.dir, name), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for _, names := range s.names {
		for name := range names {
			if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

type shakyFile struct {
	file
	on   *shaky
	name string
}

func (f *shakyFile) Write(p []byte) (n int, err error) {
	do, err := f.on.step(true)
	if do {
		f.on.mu.Lock()
		f.on.unsure[f.name] = true
		f.on.mu.Unlock()
		var werr error
		if n, werr = f.file.Write(p); werr != nil {
			return n, werr
		}
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (f *shakyFile) Sync() error {
	do, err := f.on.step(true)
	if do {
		f.on.mu.Lock()
		delete(f.on.unsure, f.name)
		f.on.mu.Unlock()
	}
	return err
}

func (f *shakyFile) Close() error {
	_, err := f.on.step(false)
	return errors.Join(err, f.file.Close())
}
