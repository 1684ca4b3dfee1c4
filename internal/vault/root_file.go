package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// rootFile is the JSON of a root key file. Each generation's key wraps the root key of
// that generation.
type rootFile struct {
	Format string            `json:"holdfast-root-key"`
	Ring   string            `json:"ring"` // random; ties keys to this file
	Salt   string            `json:"scrypt-salt,omitempty"`
	Keys   map[uint64][]byte `json:"keys"` // base64: 32 bytes, or their box
}

// decode reads a file. Of what stands in it, nothing but the keys themselves stays in
// memory when the caller has overwritten b: the decoder works in place.
func (f *rootFile) decode(b []byte) error {
	err := json.Unmarshal(b, f)
	if f.Keys == nil {
		f.Keys = map[uint64][]byte{}
	}
	return err
}

// generations are those that the file has keys of, ascending.
func (f *rootFile) generations() []uint64 { return slices.Sorted(maps.Keys(f.Keys)) }

// encode returns the file, in one buffer that the caller overwrites. It does without
// the library's encoder, which keeps its buffers.
func (f *rootFile) encode() ([]byte, error) {
	without := *f
	without.Keys = map[uint64][]byte{}
	head, err := json.MarshalIndent(without, "", "  ")
	if err != nil {
		return nil, err
	}
	size := len(head) + 16
	for _, k := range f.Keys {
		size += 40 + base64.StdEncoding.EncodedLen(len(k))
	}
	b := append(make([]byte, 0, size), bytes.TrimSuffix(head, []byte("}\n}"))...)
	byText := func(x, y uint64) int {
		return bytes.Compare(strconv.AppendUint(nil, x, 10), strconv.AppendUint(nil, y, 10))
	}
	for i, n := range slices.SortedFunc(maps.Keys(f.Keys), byText) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n    \""...)
		b = strconv.AppendUint(b, n, 10)
		b = append(b, "\": \""...)
		b = base64.StdEncoding.AppendEncode(b, f.Keys[n])
		b = append(b, '"')
	}
	if len(f.Keys) > 0 {
		b = append(b, "\n  "...)
	}
	return append(b, "}\n}\n"...), nil
}

// containsText reports whether a file has a key in it.
func containsText(file, key []byte) bool {
	text := base64.StdEncoding.AppendEncode(nil, key)
	defer clear(text)
	return bytes.Contains(file, text)
}

func wipeAll(keys map[uint64][]byte) {
	for _, k := range keys {
		clear(k)
	}
}
