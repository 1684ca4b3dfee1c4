package server

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Debian's age, openssl, a shell and Python's SQLite read the backup of a hub: each
// piece is what its name and the signed list say, and the catalog's pieces, one behind
// the other, are a sound database.
func TestOthersReadABackup(t *testing.T) {
	need(t, "age", "openssl", "bash", "python3", "basenc")
	h, b := newHouse(t), newShelf(t)
	lamp := h.device(h.person("Ada").Party, "lamp")
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range 100 {
		h.mustSend(lamp, number("lux", at.Add(time.Duration(i)*time.Second), float64(i)))
	}
	r := b.take(h)
	page, err := os.ReadFile("../../docs/format/backup.md")
	if err != nil {
		t.Fatal(err)
	}
	script := regexp.MustCompile("(?s)```bash\n(.*?)```").FindSubmatch(page)
	if script == nil {
		t.Fatal("docs/format/backup.md has no script")
	}
	key := filepath.Join(t.TempDir(), "backup.key")
	if err := os.WriteFile(key, fmt.Appendln(nil, b.ids[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "bash", "-c", string(script[1]), "check.sh", b.dir, key).CombinedOutput()
	if want := fmt.Sprintf("%d pieces\n", r.Pieces); err != nil || string(out) != want {
		t.Errorf("the script of docs/format/backup.md says (%v):\n%swant %s", err, out, want)
	}
	join := `cd "$1"; grep '^c ' "snapshots/$3.list" | while read -r letter file size; do age -d -i "$2" "pieces/${file:0:2}/$file.age"; done > "$4"
python3 -c 'import sqlite3, sys; print(*(c.execute(q).fetchone()[0] for c in [sqlite3.connect(sys.argv[1])] for q in ["PRAGMA integrity_check", "SELECT count(*) FROM segment"]))' "$4"`
	out, err = exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", join, "join", b.dir, key, r.Snapshot, filepath.Join(t.TempDir(), "catalog.db")).CombinedOutput()
	if want := fmt.Sprint("ok ", r.Statement.Segments); err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("SQLite says of the catalog (%v):\n%swant %s", err, out, want)
	}
}
