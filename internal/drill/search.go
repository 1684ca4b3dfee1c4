package drill

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/holdfast-iot/holdfast/internal/seal/residue"
)

// words finds byte patterns of at least eight bytes in anything.
type words struct {
	near [1 << 21]byte // a bit for each first three bytes
	at   map[[8]byte][]word
	n    int
}

type word struct {
	rest []byte // behind the first eight
	name string
}

// longest pattern: pieces of what is searched overlap by as much.
const longest = 1 << 10

func (w *words) add(name string, b []byte) {
	if len(b) < 8 {
		return
	}
	if w.at == nil {
		w.at = map[[8]byte][]word{}
	}
	b = b[:min(len(b), longest)]
	first := [8]byte(b)
	w.at[first] = append(w.at[first], word{b[8:], name})
	n := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	w.near[n>>3] |= 1 << (n & 7)
}

// text adds a text as it is, in hex, in UTF-16, and as it stands within base64.
func (w *words) text(name, s string) {
	w.n++
	w.add(name, []byte(s))
	wide := make([]byte, 0, 2*len(s))
	for _, c := range []byte(s) {
		wide = append(wide, c, 0)
	}
	w.add(name+" in UTF-16", wide)
	w.encoded(name, []byte(s))
}

// encoded adds bytes in hex and as they stand within base64, wherever they begin.
func (w *words) encoded(name string, b []byte) {
	w.add(name+" in hex", []byte(hex.EncodeToString(b)))
	for lead := range 3 {
		from := (3 - lead) % 3 // bytes of the first group, which others share
		whole := b[from:]
		whole = whole[:len(whole)/3*3]
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			w.add(name+" in base64", []byte(e.EncodeToString(whole)))
		}
	}
}

// number adds a number as its bits, in both orders, and as its digits.
func (w *words) number(name string, f float64) {
	w.n++
	bits := math.Float64bits(f)
	w.add(name+", its bits", binary.LittleEndian.AppendUint64(nil, bits))
	w.add(name+", its bits", binary.BigEndian.AppendUint64(nil, bits))
	w.add(name+", its digits", strconv.AppendFloat(nil, f, 'f', -1, 64))
}

func (w *words) in(b []byte, found func(name string)) {
	nothing := w.near[0]&1 == 0 // no pattern begins with zeros, of which files and memory are full
	for i := 0; i+8 <= len(b); i++ {
		if nothing {
			if i += residue.Zeros(b[i:]); i+8 > len(b) {
				break
			}
		}
		if n := uint32(b[i]) | uint32(b[i+1])<<8 | uint32(b[i+2])<<16; w.near[n>>3]&(1<<(n&7)) == 0 {
			continue
		}
		for _, x := range w.at[[8]byte(b[i:])] {
			if len(b)-i-8 >= len(x.rest) && string(b[i+8:i+8+len(x.rest)]) == string(x.rest) {
				found(x.name)
			}
		}
	}
}

// wanted is what is looked for: what must be gone, and what must be found.
type wanted struct {
	dead, live         *words          // patterns
	deadKeys, liveKeys *residue.Search // and keys
}

func (w *wanted) look(b []byte, where string, t *Tally) {
	if w.dead != nil {
		w.dead.in(b, func(name string) { t.hit(name + " in " + where) })
	}
	if w.live != nil {
		w.live.in(b, func(string) { t.Control++ })
	}
	if w.deadKeys != nil {
		for _, h := range w.deadKeys.In(b, 0) {
			t.hit(h.Key + " (" + h.Part + ") in " + where)
		}
	}
	if w.liveKeys != nil {
		t.Control += len(w.liveKeys.In(b, 0))
	}
}

// stream searches all that r gives.
func (w *wanted) stream(r io.Reader, where string, t *Tally) error {
	buf := make([]byte, 1<<20)
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		t.Bytes += uint64(n)
		w.look(buf[:kept+n], where, t)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return err
		}
		kept = copy(buf, buf[len(buf)-longest:])
	}
}

// tree searches a folder: all files with what is in them, and their names.
func (w *wanted) tree(dir string, t *Tally) error {
	if t.Where == "" {
		t.Where = InFiles
	}
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running hub removes files
		} else if err != nil {
			return fmt.Errorf("search files: %w", err)
		}
		name, _ := filepath.Rel(filepath.Dir(dir), path)
		w.look([]byte(name), "the name of a file", t)
		if !e.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("search files: %w", err)
		}
		defer f.Close()
		t.Files++
		return w.stream(f, name, t)
	})
}

// process searches the memory of a process.
func (w *wanted) process(pid int, t *Tally) error {
	t.Where = InMemory
	n, err := residue.Memory(pid, longest, func(b []byte, at uint64) { w.look(b, "memory", t) })
	t.Bytes += n
	return err
}
