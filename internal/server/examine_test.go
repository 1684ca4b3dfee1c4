package server

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/api"
)

// Only the first holder's file is named to serve; of a second one the mend says what
// works, and its loss is not the loss of everything.
func TestSecondHolderIsMovedAndFencedByName(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "root.key")
	one := func(name string, alone bool) api.Finding {
		x := examine(machineHost(), t.TempDir())
		x.rootKey(name, gone, true, alone)
		if len(x.out) != 1 || x.out[0].ID != "root-key-missing" {
			t.Fatalf("%+v", x.out)
		}
		return x.out[0]
	}
	if f := one(rootKeyHolder, true); !strings.Contains(f.What, "nothing can be read") {
		t.Errorf("the only holder: %+v", f)
	}
	if f := one("fourth", false); strings.Contains(f.What, "nothing can be read") || !strings.Contains(f.Mend, "holder fence fourth --data") {
		t.Errorf("a second holder: %+v", f)
	}
	x := examine(machineHost(), t.TempDir())
	if m := x.move("fourth", gone); strings.Contains(m, "--root-key") || !strings.Contains(m, "holder add") || !strings.Contains(m, "holder remove fourth") {
		t.Errorf("moves by: %s", m)
	}
	if m := x.move(rootKeyHolder, gone); !strings.Contains(m, "--root-key") {
		t.Errorf("the first moves by: %s", m)
	}
}
