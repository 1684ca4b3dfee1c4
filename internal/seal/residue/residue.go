// Package residue finds what keys leave in memory: the keys themselves and what
// AES-256 expands them to. It is for tests and drills, which know the keys.
//
// It promises to find a key that stands in memory in one piece, a round key of
// either direction, or half of one of the two, in either order of bytes, and a text that
// it is told of. It does not find a key that is encoded otherwise, masked or in pieces of
// less than 16 bytes.
package residue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"strconv"
	"strings"
)

const (
	keySize = 32
	round   = 16
	rounds  = 15 // round keys of AES-256
)

// Schedule is the round keys of an AES-256 key. Those for decryption are the ones of
// the equivalent inverse cipher, in the order in which they are used.
type Schedule struct{ Encrypt, Decrypt [rounds * round]byte }

// Expand works out the schedule of a key (FIPS 197, sections 5.2 and 5.3.5).
func Expand(key [32]byte) (s Schedule) {
	sbox := substitutions()
	w := s.Encrypt[:]
	copy(w, key[:])
	rcon := byte(1)
	for i := keySize; i < len(w); i += 4 {
		t := [4]byte(w[i-4 : i])
		switch i % keySize {
		case 0:
			t = [4]byte{sbox[t[1]] ^ rcon, sbox[t[2]], sbox[t[3]], sbox[t[0]]}
			rcon = double(rcon)
		case keySize / 2:
			t = [4]byte{sbox[t[0]], sbox[t[1]], sbox[t[2]], sbox[t[3]]}
		}
		for j := range t {
			w[i+j] = w[i+j-keySize] ^ t[j]
		}
	}
	for r := range rounds {
		from := w[(rounds-1-r)*round:][:round]
		to := s.Decrypt[r*round:][:round]
		copy(to, from)
		if r == 0 || r == rounds-1 {
			continue
		}
		for c := 0; c < round; c += 4 {
			for j := range 4 {
				a, b, d, e := from[c+j], from[c+(j+1)%4], from[c+(j+2)%4], from[c+(j+3)%4]
				to[c+j] = times(a, 14) ^ times(b, 11) ^ times(d, 13) ^ times(e, 9)
			}
		}
	}
	return s
}

func double(b byte) byte {
	if b&0x80 != 0 {
		return b<<1 ^ 0x1b
	}
	return b << 1
}

// times multiplies in GF(2^8).
func times(a, b byte) (p byte) {
	for ; b > 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		a = double(a)
	}
	return p
}

// substitutions is the S-box of AES: the inverse in GF(2^8), then an affine map.
func substitutions() (box [256]byte) {
	for x := range 256 {
		var inverse byte
		for y := range 256 {
			if times(byte(x), byte(y)) == 1 {
				inverse = byte(y)
			}
		}
		box[x] = inverse ^ 0x63
		for turn := 1; turn <= 4; turn++ {
			box[x] ^= bits.RotateLeft8(inverse, turn)
		}
	}
	return box
}

// Hit is a piece of a key that was found.
type Hit struct {
	Key  string // as it was named to Add
	Part string
	At   uint64
}

func (h Hit) String() string { return fmt.Sprintf("%s: %s at %#x", h.Key, h.Part, h.At) }

// Search looks for the traces of keys. The zero value looks for none.
type Search struct {
	near    [1 << 21]byte // a bit for each first three bytes of a pattern
	pattern map[[round]byte]trace
}

type trace struct{ key, part string }

// Add has the search look for a key, which hits call by name.
func (s *Search) Add(name string, key [32]byte) {
	sched := Expand(key)
	for i := range keySize / round {
		s.add(key[i*round:], trace{name, fmt.Sprintf("half %d of the key", i+1)})
	}
	for i := 2; i < rounds; i++ { // the first two are the key
		s.addBoth(sched.Encrypt[i*round:], trace{name, fmt.Sprintf("round key %d", i)})
	}
	for i := 1; i < rounds-2; i++ { // the first is the last of the other direction
		s.addBoth(sched.Decrypt[i*round:], trace{name, fmt.Sprintf("decryption round key %d", i)})
	}
	for i := range keySize / round {
		s.add(swapped(key[i*round:][:round]), trace{name, fmt.Sprintf("half %d of the key, as words", i+1)})
	}
}

// AddText has the search look for a text in which a key is written, in base64 for one,
// piece by piece. It has at least 16 bytes.
func (s *Search) AddText(name string, text []byte) {
	for i := 0; i < len(text); i += round {
		i = min(i, len(text)-round)
		s.add(text[i:], trace{name, fmt.Sprintf("bytes %d to %d of it as text", i, i+round)})
	}
}

func (s *Search) addBoth(b []byte, t trace) {
	s.add(b, t)
	s.add(swapped(b[:round]), t)
}

func (s *Search) add(b []byte, t trace) {
	if s.pattern == nil {
		s.pattern = map[[round]byte]trace{}
	}
	s.pattern[[round]byte(b)] = t
	n := first(b)
	s.near[n>>3] |= 1 << (n & 7)
}

func first(b []byte) uint32 { return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 }

// swapped turns the bytes of each word of four round.
func swapped(b []byte) []byte {
	out := make([]byte, len(b))
	for i := 0; i < len(b); i += 4 {
		binary.LittleEndian.PutUint32(out[i:], binary.BigEndian.Uint32(b[i:]))
	}
	return out
}

// In returns what there is in memory that begins at the address base.
func (s *Search) In(memory []byte, base uint64) (hits []Hit) {
	nothing := s.near[0]&1 == 0 // no pattern begins with zeros, of which memory is full
	for i := 0; i+round <= len(memory); i++ {
		if nothing {
			if i += Zeros(memory[i:]); i+round > len(memory) {
				break
			}
		}
		if n := first(memory[i:]); s.near[n>>3]&(1<<(n&7)) == 0 {
			continue
		}
		if t, ok := s.pattern[[round]byte(memory[i:])]; ok {
			hits = append(hits, Hit{t.key, t.part, base + uint64(i)})
		}
	}
	return hits
}

// Zeros returns how many bytes may be passed over by who looks for what does not begin
// with three zeros.
func Zeros(b []byte) (n int) {
	for len(b) >= n+zeroRun && [zeroRun]byte(b[n:]) == [zeroRun]byte{} {
		n += zeroRun - 2
	}
	for len(b) >= n+8 && binary.LittleEndian.Uint64(b[n:]) == 0 {
		n += 6
	}
	return n
}

// zeroRun is how many zeros are passed over at once.
const zeroRun = 256

// Process searches all memory of a process that may be written to, where the system
// shows it (Linux, and it takes the right to trace the process). searched is how
// many bytes that was.
func (s *Search) Process(pid int) (hits []Hit, searched uint64, err error) {
	searched, err = Memory(pid, round-1, func(b []byte, at uint64) { hits = append(hits, s.In(b, at)...) })
	return hits, searched, err
}

// Memory gives all memory of a process that may be written to, piece by piece, for
// the time of the call. Pieces that follow each other overlap by so many bytes, so
// that nothing is missed between them.
func Memory(pid, overlap int, each func(b []byte, at uint64)) (searched uint64, err error) {
	folder := "/proc/" + strconv.Itoa(pid)
	maps, err := os.ReadFile(folder + "/maps")
	if err != nil {
		return 0, fmt.Errorf("read memory map: %w", err)
	}
	mem, err := os.Open(folder + "/mem")
	if err != nil {
		return 0, fmt.Errorf("open memory: %w", err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		from, to, ok := writable(line)
		if !ok {
			continue
		}
		n, err := region(mem, from, to, overlap, each)
		searched += n
		if err != nil {
			return searched, err
		}
	}
	return searched, nil
}

// writable reads a line of a memory map; it is false for memory that is only read,
// and for what the kernel and devices share.
func writable(line string) (from, to uint64, ok bool) {
	f := strings.Fields(line)
	if len(f) < 2 || !strings.HasPrefix(f[1], "rw") || strings.HasPrefix(f[len(f)-1], "[v") || strings.HasPrefix(f[len(f)-1], "/dev/") {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(f[0], "-")
	from, err1 := strconv.ParseUint(a, 16, 64)
	to, err2 := strconv.ParseUint(b, 16, 64)
	return from, to, errors.Join(err1, err2) == nil
}

func region(mem io.ReaderAt, from, to uint64, overlap int, each func([]byte, uint64)) (searched uint64, err error) {
	buf := make([]byte, 1<<20)
	defer clear(buf)
	for at := from; at < to; {
		n, err := mem.ReadAt(buf[:min(uint64(len(buf)), to-at)], int64(at))
		if n == 0 {
			// The process gave it back since the map was read, or the page can't be
			// read: what is there may only be skipped a page at a time.
			if err == nil || errors.Is(err, io.EOF) || strings.Contains(err.Error(), "input/output error") {
				at = at/4096*4096 + 4096
				continue
			}
			return searched, fmt.Errorf("read memory: %w", err)
		}
		each(buf[:n], at)
		searched += uint64(n)
		if at+uint64(n) >= to {
			break
		}
		at += uint64(max(n-overlap, 1))
	}
	return searched, nil
}
