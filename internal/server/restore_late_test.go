package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// The machine burned, and with it keys.json: a holder that was added after the newest
// backup is known by name only. It comes back when somebody says where it is, if it is
// that one.
func TestALateHolderReturns(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	b.take(h)
	h.halt()
	at := t.TempDir()
	usb, third := filepath.Join(at, "usb.key"), filepath.Join(at, "third.key")
	for name, path := range map[string]string{"usb": usb, "third": third} {
		if _, err := AddHolder(t.Context(), Config{Data: h.dir}, HolderSpec{Name: name, URL: "file:" + path}); err != nil {
			t.Fatal(err)
		}
	}
	ring := t.TempDir() // a copy, away from keys.json
	if err := os.CopyFS(ring, os.DirFS(filepath.Join(h.dir, keyringDir))); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	r, err := Restore(t.Context(), Config{Data: dir, RootKey: h.rootKey}, b.options(ring))
	if slices.Sort(r.Fenced); err != nil || !slices.Equal(r.Fenced, []string{"third", "usb"}) {
		t.Fatalf("%+v, %v", r, err)
	}
	c := Config{Data: dir}
	if _, err := ReturnHolder(t.Context(), c, "usb", ""); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "holdfast holder return usb --url URL") {
		t.Errorf("without a place: %v", err)
	}
	other := newHouse(t)
	other.halt()
	was, err := os.ReadFile(third)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{third, other.rootKey, h.rootKey, filepath.Join(at, "none")} { // another holder's, another hub's, the one at work, nobody's
		if _, err := ReturnHolder(t.Context(), c, "usb", "file:"+path); err == nil {
			t.Errorf("%s comes back as usb", path)
		}
	}
	if is, err := os.ReadFile(third); err != nil || string(is) != string(was) {
		t.Errorf("what is not usb was changed (%v)", err)
	}
	s, err := ReturnHolder(t.Context(), c, "usb", "file:"+usb)
	if err != nil || s.State != HolderHolds || s.URL != "file:"+usb || !slices.Equal(s.Generations, []uint64{1}) {
		t.Errorf("%+v, %v", s, err)
	}
	if err := opens(t, dir); err != nil {
		t.Error(err)
	}
	all, err := ListHolders(t.Context(), c)
	if i := slices.IndexFunc(all, func(s HolderState) bool { return s.Name == "usb" }); err != nil || i < 0 || all[i].State != HolderHolds {
		t.Errorf("%+v, %v", all, err)
	}
}
