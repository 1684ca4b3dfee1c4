package intake

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// times remembers when messages without a time of their own were first received:
// on disk before their readings leave, so that a message which is delivered again
// gets the same time again, also after this process was killed. For each packet id
// it keeps the last message that had it: a check, keyed with what only this
// identity knows, and the time. The file times.log has a line of packet id, check
// and time for each; what a crash leaves of a line is ignored.
type times struct {
	path  string
	key   []byte
	now   func() int64
	last  int64
	known map[uint16]receipt
	file  *os.File
	lines int
}

type receipt struct {
	check [8]byte
	at    int64
}

// maxLines is when the file is written anew.
const maxLines = 200_000

func openTimes(dir string, key []byte, now func() int64) (*times, error) {
	t := &times{path: filepath.Join(dir, "times.log"), key: key, now: now, known: map[uint16]receipt{}}
	text, err := os.ReadFile(t.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read state: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		id, r, ok := parseReceipt(line)
		if ok {
			t.known[id] = r
			t.last = max(t.last, r.at)
		}
	}
	return t, t.rewrite()
}

func parseReceipt(line string) (id uint16, r receipt, ok bool) {
	line, whole := strings.CutSuffix(line, "\n")
	parts := strings.Split(line, " ")
	if !whole || len(parts) != 3 {
		return 0, r, false
	}
	n, err := strconv.ParseUint(parts[0], 10, 16)
	check, err2 := hex.DecodeString(parts[1])
	at, err3 := strconv.ParseInt(parts[2], 10, 64)
	if err != nil || err2 != nil || err3 != nil || len(check) != len(r.check) {
		return 0, r, false
	}
	copy(r.check[:], check)
	r.at = at
	return uint16(n), r, true
}

// of is when a message was first received. fresh: the file must be synced before
// its readings leave.
func (t *times) of(m *Message) (at int64, fresh bool) {
	if m.QoS == 0 {
		return t.next(), false
	}
	check := t.check(m)
	if r, ok := t.known[m.ID]; ok && m.Dup && r.check == check {
		return r.at, false
	}
	r := receipt{check, t.next()}
	t.known[m.ID] = r
	return r.at, true
}

// next never gives the same time twice: two messages of one moment are two.
func (t *times) next() int64 {
	t.last = max(t.last+1, t.now())
	return t.last
}

func (t *times) check(m *Message) (out [8]byte) {
	h := hmac.New(sha256.New, t.key)
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(m.Topic)))
	h.Write(n[:])
	h.Write([]byte(m.Topic))
	h.Write(m.Payload)
	copy(out[:], h.Sum(nil))
	return out
}

// keep makes the times of these messages durable.
func (t *times) keep(ids []uint16) error {
	if len(ids) == 0 {
		return nil
	}
	if t.lines+len(ids) > maxLines {
		return t.rewrite()
	}
	var b []byte
	for _, id := range ids {
		b = t.append(b, id)
	}
	t.lines += len(ids)
	if _, err := t.file.Write(b); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (t *times) append(b []byte, id uint16) []byte {
	r := t.known[id]
	return fmt.Appendf(b, "%d %x %d\n", id, r.check, r.at)
}

// rewrite replaces the file by what is known now, and opens it for more.
func (t *times) rewrite() error {
	err := replaceFile(t.path, func(w *bufio.Writer) error {
		var b []byte
		for id := range t.known {
			b = t.append(b[:0], id)
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.close()
	t.lines = len(t.known)
	if t.file, err = os.OpenFile(t.path, os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (t *times) close() {
	if t.file != nil {
		t.file.Close()
	}
}

// replaceFile writes a file that is there whole, or as it was.
func replaceFile(path string, write func(*bufio.Writer) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write state: %w", err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	w := bufio.NewWriter(f)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func systemNow() int64 { return time.Now().UnixNano() }
