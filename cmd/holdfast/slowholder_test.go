package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// slowHolder is a program that holds root keys in the folder that it is given, a
// wrapping key to a file. While there is a file `away` it says that it can't be had, and
// while there is one `hang` it does not answer, and leaves `hangs` to be seen.
func slowHolder() int {
	var q struct {
		Do                string
		Generation, Below uint64
		Box, Key          []byte
	}
	if len(os.Args) != 2 || json.NewDecoder(os.Stdin).Decode(&q) != nil {
		return 2
	}
	dir := os.Args[1]
	there := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	answer := map[string]any{"holdfast-holder": "1"}
	say := func(err error) int {
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(answer)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if there("away") {
		answer["error"], answer["why"] = "unavailable", "the HSM is being moved"
		return say(nil)
	}
	for there("hang") {
		if err := os.WriteFile(filepath.Join(dir, "hangs"), nil, 0o600); err != nil {
			return say(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	held := []uint64{}
	files, _ := filepath.Glob(filepath.Join(dir, "*.key"))
	for _, f := range files {
		n, err := strconv.ParseUint(filepath.Base(f[:len(f)-len(".key")]), 10, 64)
		if err != nil {
			return say(err)
		}
		held = append(held, n)
	}
	slices.Sort(held)
	path := func(n uint64) string { return filepath.Join(dir, fmt.Sprintf("%d.key", n)) }
	switch q.Do {
	case "describe":
		answer["protocols"], answer["about"] = []string{"1"}, "a slow holder"
	case "evidence":
		answer["generations"] = held
	case "prepare":
		if slices.Contains(held, q.Generation) {
			break
		}
		key := make([]byte, 32)
		rand.Read(key)
		if err := os.WriteFile(path(q.Generation), key, 0o600); err != nil {
			return say(err)
		}
	case "destroy":
		for _, n := range held {
			if n < q.Below {
				if err := os.Remove(path(n)); err != nil {
					return say(err)
				}
			}
		}
	case "wrap", "unwrap":
		key, err := os.ReadFile(path(q.Generation))
		if err != nil {
			answer["error"] = "gone"
			return say(nil)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return say(err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return say(err)
		}
		if q.Do == "wrap" {
			answer["box"] = aead.Seal(nil, nil, q.Key, nil)
			break
		}
		opened, err := aead.Open(nil, nil, q.Box, nil)
		if err != nil {
			answer["error"] = "denied"
			return say(nil)
		}
		answer["key"] = opened
	}
	return say(nil)
}
