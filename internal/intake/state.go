package intake

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/sparkplug"
)

// state is what an intake keeps in its folder.
type state struct {
	dir    string
	lock   *os.File
	times  *times
	tables *sparkplug.Tables
}

// openState opens the folder, making it first. One intake at a time has it: two
// would be one client to the broker, which throws the first out for the second.
func openState(dir string, key []byte, now func() int64) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of state: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, holdfast.Errorf(holdfast.Conflict, "another intake runs with the state in %s", dir)
	}
	s := &state{dir: dir, lock: lock, tables: &sparkplug.Tables{}}
	text, err := os.ReadFile(s.births())
	if err == nil {
		err = json.Unmarshal(text, s.tables)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		lock.Close()
		return nil, fmt.Errorf("read state: %w", err)
	}
	if s.times, err = openTimes(dir, key, now); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *state) births() string { return filepath.Join(s.dir, "births.json") }

// keepBirths makes Sparkplug's births durable.
func (s *state) keepBirths() error {
	return replaceFile(s.births(), func(w *bufio.Writer) error { return json.NewEncoder(w).Encode(s.tables) })
}

func (s *state) close() {
	s.times.close()
	s.lock.Close()
}
