package vault

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
)

// The file is what the library's encoder makes of it, which wrote it before, to the
// last byte; and comes back as it was.
func TestRootFileIsWrittenAsEver(t *testing.T) {
	for _, keys := range []map[uint64][]byte{
		{},
		{1: bytes.Repeat([]byte{0xff}, 32)},
		{9: bytes.Repeat([]byte{1}, 32), 10: bytes.Repeat([]byte{2}, 60), 1<<64 - 1: {}},
	} {
		for _, salt := range []string{"", "c2FsdA=="} {
			f := rootFile{Format: rootFormat, Ring: "cmluZw==", Salt: salt, Keys: keys}
			got, err := f.encode()
			if err != nil {
				t.Fatal(err)
			}
			want, err := json.MarshalIndent(f, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want)+"\n", string(got)); d != "" {
				t.Error(d)
			}
			var back rootFile
			if err := back.decode(got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(f, back); d != "" {
				t.Error(d)
			}
		}
	}
}

// A pipe can't be overwritten, and would keep its reader waiting.
func TestARootKeyThatIsNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFileHolder(path, nil); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("it is opened, or refused with %v", err)
	}
}
