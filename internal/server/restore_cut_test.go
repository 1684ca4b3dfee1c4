package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

// restoreArgument makes the test binary a restore that is killed after a step.
const restoreArgument = "restores"

type restoreChild struct{ Data, RootKey, From, Identity, Keyring, Step string }

func restoreMain(text string) int {
	var c restoreChild
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		var id *age.X25519Identity
		if id, err = age.ParseX25519Identity(c.Identity); err == nil {
			var f *backup.Folder
			if f, err = backup.ReadFolder(c.From); err == nil {
				_, err = Restore(context.Background(), Config{Data: c.Data, RootKey: c.RootKey}, RestoreOptions{From: f, Identities: []age.Identity{id}, Keyring: c.Keyring,
					fault: func(step string) error {
						if step == c.Step {
							syscall.Kill(os.Getpid(), syscall.SIGKILL)
							select {}
						}
						return nil
					}})
			}
		}
	}
	fmt.Fprintln(os.Stderr, "not killed:", err)
	return 1
}

// A restore that is killed after any of its steps leaves a folder that says so, that
// nobody starts, and in which it goes on; it ends with what one in one go ends with.
func TestARestoreThatIsKilledGoesOn(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada, ben := h.owner("ada"), h.owner("ben")
	at := time.Now().Add(-time.Hour)
	for i := range 20 {
		h.mustSend(ada.device, number("lux", at.Add(time.Duration(i)*time.Second), 1))
		h.mustSend(ben.device, number("lux", at.Add(time.Duration(i)*time.Second), 2))
	}
	h.halt()
	ring := t.TempDir()
	if err := AddCopy(t.Context(), Config{Data: h.dir}, "safe", "file:"+ring); err != nil {
		t.Fatal(err)
	}
	h.start()
	b.take(h)
	scope, err := h.custody.ScopeOfParty(t.Context(), ada.Party)
	if err != nil {
		t.Fatal(err)
	}
	h.erase(ada.Principal, scope)
	if err := h.stores.vault.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.halt()

	var steps []string
	o := b.options(ring)
	o.fault = func(step string) error { steps = append(steps, step); return nil }
	want, err := Restore(t.Context(), Config{Data: filepath.Join(t.TempDir(), "new"), RootKey: h.rootKey}, o)
	if err != nil || want.TakenBack == 0 || want.Readings != 20 || len(want.Lost) != 1 || want.Suspended != "" || len(steps) < 8 {
		t.Fatalf("in one go, %d steps: %+v, %v", len(steps), want, err)
	}
	o.fault = nil
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		if long := os.Getenv("HOLDFAST_LONG") != ""; !long && slices.Contains([]string{"catalog", "segments", "examined"}, step) {
			continue // what these leave is written over or looked at again, as after the one before
		}
		dir := filepath.Join(t.TempDir(), "new")
		c := Config{Data: dir, RootKey: h.rootKey}
		text, err := json.Marshal(restoreChild{dir, h.rootKey, b.dir, b.ids[0].(*age.X25519Identity).String(), ring, step})
		if err != nil {
			t.Fatal(err)
		}
		said, err := exec.CommandContext(t.Context(), self, restoreArgument, string(text)).CombinedOutput()
		if left, ok := errors.AsType[*exec.ExitError](err); !ok || left.ExitCode() != -1 {
			t.Fatalf("%s: it was not killed: %v, %s", step, err, said)
		}
		if step == "finished" { // it was
			restored := &house{t: t, dir: dir, rootKey: h.rootKey}
			restored.start()
			if have, err := restored.read(ben.Principal, ben.device, "lux"); err != nil || len(have) != 20 {
				t.Errorf("%d readings (%v)", len(have), err)
			}
			restored.halt()
			continue
		}
		if _, err := Open(t.Context(), c); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "has not ended: run it again") {
			t.Errorf("%s: the folder starts, or does not say what it is: %v", step, err)
		}
		r, err := Restore(t.Context(), c, o)
		if err != nil {
			t.Errorf("%s: it does not go on: %v", step, err)
			continue
		}
		if r.TakenBack != want.TakenBack || r.Readings != want.Readings || !slices.Equal(r.Lost, want.Lost) || r.Backups != want.Backups {
			t.Errorf("%s: it ends with %+v, in one go with %+v", step, r, want)
		}
		if _, err := os.Stat(filepath.Join(dir, restoreFile)); err == nil {
			t.Errorf("%s: it has ended, and the folder says that it has not", step)
		}
	}
}

// A disk that fills while a restore writes: it says so, nothing starts, and it goes on
// when there is space.
func TestARestoreOntoAFullDisk(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada := h.owner("ada")
	text := make([]byte, 64<<10)
	r := rand.NewChaCha8([32]byte{1})
	at := time.Now().Add(-time.Hour)
	for i := range 40 {
		r.Read(text)
		h.mustSend(ada.device, holdfast.Sample{Stream: "noise", Time: at.Add(time.Duration(i) * time.Second).UnixNano(), Timed: true, Value: holdfast.BytesValue(slices.Clone(text))})
	}
	b.take(h)
	h.halt()
	disk := mounted(t, 160)
	c := Config{Data: filepath.Join(disk, "new"), RootKey: h.rootKey}
	o := b.options(filepath.Join(h.dir, keyringDir))
	full := 0
	for _, free := range []int64{0, 128 << 10, 1 << 20, 3 << 20} { // it gets further each time
		ballast := leftOn(t, disk, free)
		_, err := Restore(t.Context(), c, o)
		if err == nil {
			t.Logf("with %d bytes it ends", free)
			return
		}
		if holdfast.KindOf(err) != holdfast.Unavailable && !strings.Contains(err.Error(), "space") && !strings.Contains(err.Error(), "full") {
			t.Errorf("with %d bytes: %v", free, err)
		}
		full++
		if _, err := Open(t.Context(), c); err == nil {
			t.Errorf("with %d bytes: it starts", free)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Restore(t.Context(), c, o); err != nil || full < 2 {
		t.Fatalf("%d times full, then %v", full, err)
	}
}
