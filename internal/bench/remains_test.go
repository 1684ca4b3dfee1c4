package bench

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
)

// What came is found wherever it lies, and nothing else is.
func TestRemains(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		rand.Read(b)
		return b
	}
	write("a", random(4096))
	r, err := NewRemains(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := random(64 * 100)
	write("b", data)
	if err := r.Came(dir); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name  string
		b     []byte
		least int64
		most  int64
	}{
		{"all of it", data, 6300, 6400}, // a piece of few different bytes is left out
		{"shifted", append([]byte{1, 2, 3}, data...), 6300, 6400},
		{"half of it", append(make([]byte, 3200), data[3200:]...), 3100, 3200},
		{"zeros", make([]byte, len(data)), 0, 0},
		{"something else", random(len(data)), 0, 0},
	} {
		write("b", x.b)
		came, found, err := r.Found(dir)
		if err != nil || came < 6300 || came > 6400 || found < x.least || found > x.most {
			t.Errorf("%s: %d of %d bytes: %v", x.name, found, came, err)
		}
	}
}
