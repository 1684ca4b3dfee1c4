package main

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast/internal/escrow"
)

// Only serve and upgrade carry a folder of an older version to this one. Every other
// command that works on a folder by itself refuses it or only looks, and leaves each
// byte as it is. A command that is new fails this test until it says which it does.
func TestOnlyServeAndUpgradeMigrate(t *testing.T) {
	p := &plant{t: t, dir: t.TempDir()}
	if out, err := exec.Command("tar", "xzf", "../../internal/simtest/testdata/releases/0.1.0.tar.gz", "-C", p.dir, "--exclude=*.journal", "--exclude=spare.*").CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v: %s", err, out)
	}
	data, key := p.file("house/data"), p.file("house/root.key")
	if err := errors.Join(os.MkdirAll(p.file("copy"), 0o700), os.MkdirAll(data+"/journal", 0o700)); err != nil {
		t.Fatal(err)
	}
	refused := map[string][]string{
		"holder add":          {"file:" + p.file("second.key"), "--name", "usb", "--root-key", key},
		"holder fence":        {"file", "--root-key", key},
		"holder return":       {"file", "--root-key", key},
		"holder remove":       {"file", "--root-key", key},
		"keyring add-copy":    {"file:" + p.file("copy"), "--name", "nas", "--root-key", key},
		"keyring remove-copy": {"nas", "--root-key", key},
		"ledger renew":        {"--force", "--root-key", key},
		"restore confirm":     {"--root-key", key},
		"backup":              {p.file("shelf"), "--recipient", anyRecipient, "--root-key", key},
		"recovery open":       append(p.twoShares(), "--root-key", p.file("new.key")),
	}
	looks := map[string][]string{
		"holder list":    {"--root-key", key},
		"keyring show":   nil,
		"keyring verify": nil,
		"doctor":         {"--root-key", key},
		"upgrade":        {"--dry-run"},
	}
	only := []string{"serve", "intake mqtt", "party redeem", "login", "restore drill"} // but for serve, these ask the hub that runs
	known := slices.Concat(slices.Collect(maps.Keys(refused)), slices.Collect(maps.Keys(looks)), only)
	for _, n := range verbs(t).Model.Leaves(false) {
		if slices.ContainsFunc(n.Flags, func(f *kong.Flag) bool { return f.Name == "data" }) && !asksAHub(n.Target) {
			if name := strings.TrimPrefix(n.Path(), "holdfast "); !slices.Contains(known, name) {
				t.Errorf("how %s treats a folder of an older version is not tried", name)
			}
		}
	}
	before := filesOf(t, p.file("house"))
	for name, args := range refused {
		out, err := p.holdfast(append(append(strings.Fields(name), args...), "--data", data)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "holdfast upgrade --data") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	for name, args := range looks {
		p.holdfast(append(append(strings.Fields(name), args...), "--data", data)...).Run() // doctor finds things, and says so by its exit code
	}
	if diff := cmp.Diff(before, filesOf(t, p.file("house"))); diff != "" {
		t.Errorf("the folder was changed: %s", diff)
	}
	for _, made := range []string{"second.key", "new.key"} {
		if _, err := os.Stat(p.file(made)); err == nil {
			t.Errorf("%s was made", made)
		}
	}
	p.must("upgrade", "--data", data)
	if out, err := p.holdfast("holder", "add", "file:"+p.file("second.key"), "--name", "usb", "--root-key", key, "--data", data).CombinedOutput(); err == nil || !strings.Contains(string(out), "is not confirmed") {
		t.Errorf("the upgrade is not confirmed, and a holder was added: %v: %s", err, out)
	}
}

// asksAHub reports whether a command asks a running hub: of the folder it reads where
// that listens.
func asksAHub(target reflect.Value) bool {
	for i := range target.NumField() {
		f := target.Type().Field(i)
		if f.Type == reflect.TypeFor[hubFlags]() || f.Anonymous && f.Type.Kind() == reflect.Struct && asksAHub(target.Field(i)) {
			return true
		}
	}
	return false
}

// twoShares are flags for shares that come together.
func (p *plant) twoShares() (flags []string) {
	p.t.Helper()
	_, shares, err := escrow.Deal("holdfast/x", 2, []string{"a", "b"}, time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, s := range shares {
		if err := os.WriteFile(p.file(s.Name+".share"), []byte(s.Text()), 0o600); err != nil {
			p.t.Fatal(err)
		}
		flags = append(flags, "--share", p.file(s.Name+".share"))
	}
	return flags
}

// filesOf is every file of a folder, by its hash.
func filesOf(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	all := map[string][32]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		all[path] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
