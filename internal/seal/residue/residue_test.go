package residue

import (
	"encoding/hex"
	"math/rand/v2"
	"os"
	"testing"
)

// FIPS 197, appendix A.3, has the words of this key's schedule.
func TestExpandIsThatOfTheStandard(t *testing.T) {
	var key [32]byte
	hex.Decode(key[:], []byte("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"))
	s := Expand(key)
	for at, want := range map[int]string{0: "603deb10", 8 * 4: "9ba35411", 12 * 4: "a8b09c1a", 59 * 4: "706c631e"} {
		if got := hex.EncodeToString(s.Encrypt[at : at+4]); got != want {
			t.Errorf("word %d is %s, want %s", at/4, got, want)
		}
	}
	if string(s.Decrypt[:16]) != string(s.Encrypt[14*16:]) || string(s.Decrypt[14*16:]) != string(s.Encrypt[:16]) {
		t.Error("the schedule for decryption does not begin and end with the other's ends")
	}
}

func TestSearchFindsEachPart(t *testing.T) {
	var key [32]byte
	for i := range key {
		key[i] = byte(7 * i)
	}
	s := new(Search)
	s.Add("a key", key)
	sched := Expand(key)
	memory := make([]byte, 4096)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range memory {
		memory[i] = byte(r.Uint32())
	}
	if hits := s.In(memory, 0); hits != nil {
		t.Fatalf("in noise: %v", hits)
	}
	copy(memory[101:], key[:])
	copy(memory[501:], sched.Encrypt[5*16:6*16])
	copy(memory[1001:], swapped(sched.Decrypt[9*16:10*16]))
	copy(memory[4096-16:], key[16:])
	var at []uint64
	for _, h := range s.In(memory, 1<<20) {
		at = append(at, h.At-1<<20)
	}
	want := []uint64{101, 117, 501, 1001, 4096 - 16}
	if len(at) != len(want) {
		t.Fatalf("found at %v, want %v", at, want)
	}
	for i := range at {
		if at[i] != want[i] {
			t.Fatalf("found at %v, want %v", at, want)
		}
	}
}

// The process finds in itself what it keeps, wherever in memory that is.
func TestSearchOfAProcess(t *testing.T) {
	var key [32]byte
	for i := range key {
		key[i] = byte(11*i + 3)
	}
	s := new(Search)
	s.Add("kept", key)
	keep := make([]byte, 3<<20)
	copy(keep[1<<20+5:], key[:])
	hits, searched, err := s.Process(os.Getpid())
	if os.IsNotExist(err) {
		t.Skip("NOT TESTED: this system does not show the memory of processes")
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(hits) < 2 || searched < uint64(len(keep)) {
		t.Errorf("found %v in %d bytes", hits, searched)
	}
	_ = keep[len(key)]
}
