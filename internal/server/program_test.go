package server

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// holderArgument makes the test binary a program that holds root keys in a folder.
const holderArgument = "holds-root-keys"

// programHolder is the URL of such a program, with a folder of its own.
func programHolder(t *testing.T) (url, keys string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "holder")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	keys = t.TempDir()
	return "exec:" + program + " " + holderArgument + " " + keys, keys
}

// holderMain answers one question: a file is a wrapping key, named for keyring and
// generation.
func holderMain(dir string) int {
	var q struct {
		Do         string `json:"do"`
		Keyring    string `json:"keyring"`
		Generation uint64 `json:"generation"`
		Below      uint64 `json:"below"`
		Box        []byte `json:"box"`
		Key        []byte `json:"key"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	path := func(n uint64) string { return filepath.Join(dir, fmt.Sprintf("%s.%020d", q.Keyring, n)) }
	held := []uint64{}
	files, _ := filepath.Glob(filepath.Join(dir, q.Keyring+".*"))
	for _, f := range files {
		n, _ := strconv.ParseUint(strings.TrimPrefix(filepath.Ext(f), "."), 10, 64)
		held = append(held, n)
	}
	out := map[string]any{"holdfast-holder": "1"}
	box := func(do func(cipher.AEAD) ([]byte, error)) []byte {
		k, err := os.ReadFile(path(q.Generation))
		if err != nil {
			out["error"] = "gone"
			return nil
		}
		block, _ := aes.NewCipher(k)
		aead, _ := cipher.NewGCMWithRandomNonce(block)
		b, err := do(aead)
		if err != nil {
			out["error"] = "denied"
		}
		return b
	}
	about := binary.BigEndian.AppendUint64([]byte(q.Keyring), q.Generation)
	switch q.Do {
	case "describe":
		out["protocols"], out["about"] = []string{"1"}, "a folder of a test"
	case "prepare":
		if _, err := os.Stat(path(q.Generation)); err != nil {
			k := make([]byte, 32)
			rand.Read(k)
			if err := os.WriteFile(path(q.Generation), k, 0o600); err != nil {
				out["error"] = "unavailable"
			}
		}
	case "wrap":
		out["box"] = box(func(a cipher.AEAD) ([]byte, error) { return a.Seal(nil, nil, q.Key, about), nil })
	case "unwrap":
		out["key"] = box(func(a cipher.AEAD) ([]byte, error) { return a.Open(nil, nil, q.Box, about) })
	case "destroy":
		for _, n := range held {
			if n < q.Below {
				os.Remove(path(n))
			}
		}
	case "evidence":
		out["generations"] = held
	}
	var b bytes.Buffer
	json.NewEncoder(&b).Encode(out)
	os.Stdout.Write(b.Bytes())
	return 0
}
