package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Only the first holder's file is named to serve; of a second one the mend says what
// works, and its loss is not the loss of everything.
func TestSecondHolderIsMovedAndFencedByName(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "root.key")
	one := func(name string, alone bool, other string) api.Finding {
		x := examine(machineHost(), t.TempDir())
		x.rootKey(keyFile{name: name, path: gone, protected: true, alone: alone, other: other})
		if len(x.out) != 1 || x.out[0].ID != "root-key-missing" {
			t.Fatalf("%+v", x.out)
		}
		return x.out[0]
	}
	if f := one(rootKeyHolder, true, ""); !strings.Contains(f.What, "nothing can be read") {
		t.Errorf("the only holder: %+v", f)
	}
	if f := one("fourth", false, "third"); strings.Contains(f.What, "nothing can be read") || !strings.Contains(f.Mend, "holder fence fourth --data") {
		t.Errorf("a second holder: %+v", f)
	}
	// Nobody is told to fence the last that may come back.
	if f := one("fourth", false, ""); !strings.Contains(f.What, "nothing can be read") || strings.Contains(f.What, "opens everything") || strings.Contains(f.Mend, "holdfast holder fence") {
		t.Errorf("with no other that answers: %+v", f)
	}
	x := examine(machineHost(), t.TempDir())
	if m := x.move("fourth", gone); strings.Contains(m, "--root-key") || !strings.Contains(m, "holder add") || !strings.Contains(m, "holder remove fourth") {
		t.Errorf("moves by: %s", m)
	}
	if m := x.move(rootKeyHolder, gone); !strings.Contains(m, "--root-key") {
		t.Errorf("the first moves by: %s", m)
	}
}

// A file of another time in the place of the root key is found as long as it is there,
// with the generation that it has and the one that is needed, while the hub runs and
// when it is stopped.
func TestDoctorKeepsItsFindingUntilTheFileAnswers(t *testing.T) {
	h := newHouse(t)
	found := func(all []api.Finding) string {
		i := slices.IndexFunc(all, func(f api.Finding) bool { return f.ID == "root-key-missing" })
		if i < 0 {
			return ""
		}
		return all[i].What + all[i].Mend
	}
	older, err := os.ReadFile(h.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.stores.vault.Destroy(t.Context(), vault.Destruction{AllPages: true}); err != nil {
		t.Fatal(err)
	}
	same, err := os.ReadFile(h.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	look := func(what string, content []byte, want ...string) {
		t.Helper()
		if err := os.Remove(h.rootKey); err != nil {
			t.Fatal(err)
		}
		if content != nil {
			if err := os.WriteFile(h.rootKey, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		stopped, err := doctorStopped(soundHost(h, 0), Config{Data: h.dir, RootKey: h.rootKey}.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		for how, said := range map[string]string{"running": found(h.doctor(soundHost(h, 0))), "stopped": found(stopped)} {
			if len(want) == 0 && said != "" {
				t.Errorf("%s, %s: %s", what, how, said)
			}
			for _, w := range want {
				if !strings.Contains(said, w) {
					t.Errorf("%s, %s: %q lacks %q", what, how, said, w)
				}
			}
		}
	}
	look("an older file", older, "generation 1,", "generation 2", "never an older copy over a newer", "nothing can be read")
	look("the same file", same)
	look("none", nil, "there is no root key", "never an older copy over a newer")
	if err := os.WriteFile(h.rootKey, same, 0o600); err != nil {
		t.Fatal(err)
	}
	look("the same file again", same)
}
