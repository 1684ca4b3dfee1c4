package bench

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Remains tells how much of what came into a folder's files between two moments is
// still in them at a third: what a person who has the disk would find of data that
// were deleted. It knows nothing of formats: it looks for pieces of bytes.
type Remains struct {
	before, came map[uint64]struct{}
}

// piece is how many bytes are looked for together: a time and a value of a row are so
// many. Of pieces with fewer than distinct different bytes nothing can be said.
const (
	piece    = 16
	distinct = 9
)

// NewRemains remembers what is in the files of some folders now.
func NewRemains(dirs ...string) (*Remains, error) {
	r := &Remains{before: map[uint64]struct{}{}}
	return r, eachFile(dirs, func(b []byte) { aligned(b, func(h uint64) { r.before[h] = struct{}{} }) })
}

// Came remembers what has come into the files since.
func (r *Remains) Came(dirs ...string) error {
	r.came = map[uint64]struct{}{}
	err := eachFile(dirs, func(b []byte) {
		aligned(b, func(h uint64) {
			if _, had := r.before[h]; !had {
				r.came[h] = struct{}{}
			}
		})
	})
	r.before = nil
	return err
}

// Found returns how many bytes had come, and how many of them are still in the files,
// wherever.
func (r *Remains) Found(dirs ...string) (came, found int64, err error) {
	came = int64(len(r.came)) * piece
	var maybe [1 << 21]uint64 // a filter: most places are none
	for h := range r.came {
		maybe[h>>6&(1<<21-1)] |= 1 << (h & 63)
	}
	seen := map[uint64]struct{}{}
	err = eachFile(dirs, func(b []byte) {
		rolling(b, func(h uint64, _ int) {
			if maybe[h>>6&(1<<21-1)]&(1<<(h&63)) == 0 {
				return
			}
			if _, ok := r.came[h]; ok {
				seen[h] = struct{}{}
			}
		})
	})
	return came, int64(len(seen)) * piece, err
}

// aligned gives the hash of each piece that stands at a multiple of its length and
// says something.
func aligned(b []byte, f func(uint64)) {
	for ; len(b) >= piece; b = b[piece:] {
		var have [256]bool
		n := 0
		for _, c := range b[:piece] {
			if !have[c] {
				have[c] = true
				n++
			}
		}
		if n >= distinct {
			rolling(b[:piece], func(h uint64, _ int) { f(h) })
		}
	}
}

// rolling gives the hash of each piece, at every place.
func rolling(b []byte, f func(h uint64, at int)) {
	const base = 0x9E3779B97F4A7C15
	out := uint64(1)
	for range piece {
		out *= base
	}
	var h uint64
	for i, c := range b {
		h = h*base + uint64(c) + 1
		if i >= piece {
			h -= out * (uint64(b[i-piece]) + 1)
		}
		if i >= piece-1 {
			f(h^h>>29, i)
		}
	}
}

// eachFile gives the content of every file. One that goes meanwhile is passed over.
func eachFile(dirs []string, f func([]byte)) error {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && !d.Type().IsRegular() {
				return nil
			}
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			f(b)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
