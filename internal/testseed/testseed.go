// Package testseed gives random tests their seed: the same in every run of one
// commit, so that what decides about a change answers the same twice; another one in
// each long run (HOLDFAST_LONG=1), which is there to find what nobody thought of; and
// with HOLDFAST_SEED=n the one that a log names.
package testseed

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Of returns the seed of a test and logs it. Tests of other names have other seeds.
func Of(t testing.TB) uint64 {
	t.Helper()
	seed := of(t.Name())
	switch text := os.Getenv("HOLDFAST_SEED"); {
	case text != "":
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("read HOLDFAST_SEED: %v", err)
		}
	case os.Getenv("HOLDFAST_LONG") != "":
		seed = rand.Uint64()
	}
	t.Logf("HOLDFAST_SEED=%d", seed)
	return seed
}

func of(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

// Given tells that HOLDFAST_SEED names one, so that a test of many seeds plays but it.
func Given() bool { return os.Getenv("HOLDFAST_SEED") != "" }
