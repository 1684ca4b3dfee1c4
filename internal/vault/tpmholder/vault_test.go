package tpmholder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// house is a vault whose root key a TPM holds, beside a file or alone.
type house struct {
	dir, root string // root: the root key file; none: the TPM alone
	o         Options
	db        *catalog.DB
	tpm       *Holder
	*vault.Vault
}

func (h *house) open(ctx context.Context, create bool) (err error) {
	if h.db, err = catalog.Open(ctx, h.dir, catalog.Options{}); err != nil {
		return err
	}
	ring := filepath.Join(h.dir, "keyring")
	makeTPM, makeFile, makeVault := Open, func(p string) (*vault.FileHolder, error) { return vault.OpenFileHolder(p, nil) }, vault.Open
	if create {
		makeTPM, makeFile, makeVault = Create, func(p string) (*vault.FileHolder, error) { return vault.CreateFileHolder(p, nil) }, vault.Create
		if err := os.MkdirAll(ring, 0o700); err != nil {
			return err
		}
	}
	if h.tpm, err = makeTPM(ctx, h.o); err != nil {
		return err
	}
	holders := []vault.Holder{h.tpm}
	if h.root != "" {
		f, err := makeFile(h.root)
		if err != nil {
			return err
		}
		holders = []vault.Holder{f, h.tpm}
	}
	h.Vault, err = makeVault(ctx, h.db, vault.Dir(ring), holders, vault.Options{})
	return err
}

func (h *house) close() error {
	var errs []error
	if h.Vault != nil {
		errs = append(errs, h.Vault.Close())
	}
	if h.tpm != nil {
		errs = append(errs, h.tpm.Close())
	}
	return errors.Join(append(errs, h.db.Close())...)
}

// A vault whose root key is in a TPM alone: twenty rotations, and none of the copies
// made on the way, keyring and state file and all, opens anything later.
func TestVaultInTPM(t *testing.T) {
	e := newEmulator(t)
	h := &house{dir: t.TempDir(), o: e.options()}
	if err := h.open(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	alive := addOwner(t, h)
	box := seals(t, h, alive)
	type kept struct{ ring, state string }
	var copies []kept
	const rotations = 20
	for range rotations {
		k := kept{filepath.Join(t.TempDir(), "keyring"), filepath.Join(t.TempDir(), "tpm.json")}
		if err := os.CopyFS(k.ring, os.DirFS(filepath.Join(h.dir, "keyring"))); err != nil {
			t.Fatal(err)
		}
		copyFile(t, h.o.State, k.state)
		copies = append(copies, k)
		rot, err := h.Destroy(t.Context(), vault.Destruction{Owners: []vault.Owner{addOwner(t, h)}})
		if err != nil {
			t.Fatal(err)
		}
		if len(rot.Holders) != 1 || rot.Holders[0].Kind != "tpm" || rot.Holders[0].State != vault.HolderDestroyed {
			t.Fatalf("holders %+v", rot.Holders)
		}
		if r, err := Verify(rot.Holders[0].Evidence); err != nil || r.Below != rot.To {
			t.Fatalf("evidence of %d to %d: %+v, %v", rot.From, rot.To, r, err)
		}
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	e.powerCut()
	if err := h.open(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if !opensField(t, h, alive, box) || h.Generation() != rotations+1 {
		t.Errorf("the living does not open; generation %d", h.Generation())
	}
	if s, err := h.tpm.Status(t.Context()); err != nil || s.Increments != rotations+1 || s.Ahead {
		t.Errorf("status %+v, %v", s, err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	for i, k := range copies {
		old := h.o
		old.State = k.state
		tpm, err := Open(t.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := vault.Open(t.Context(), reopenCatalog(t, h.dir), vault.Dir(k.ring), []vault.Holder{tpm}, vault.Options{}); err == nil {
			t.Errorf("copy %d opens, with generation %d", i+1, v.Generation())
		}
		head, err := os.ReadFile(filepath.Join(k.ring, fmt.Sprintf("head-%020d", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(head, []byte(boxMagic))
		for end := len(head); end > at; end-- { // the box is somewhere in the head
			if b, err := parseBox(head[at:end]); err == nil {
				refuses(t, tpm, b.generation, head[at:end], holdfast.NotFound)
				break
			}
		}
		if err := tpm.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func reopenCatalog(t *testing.T, dir string) *catalog.DB {
	t.Helper()
	db, err := catalog.Open(t.Context(), dir, catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func addOwner(t testing.TB, h *house) vault.Owner {
	t.Helper()
	o := holdfast.NewID[vault.Owner]()
	if err := h.AddOwner(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return o
}

func seals(t testing.TB, h *house, o vault.Owner) []byte {
	t.Helper()
	box, err := h.SealField(t.Context(), o, "t", []byte("r"), "c", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func opensField(t testing.TB, h *house, o vault.Owner, box []byte) bool {
	t.Helper()
	plain, err := h.OpenField(t.Context(), o, "t", []byte("r"), "c", box)
	return err == nil && string(plain) == "secret"
}

// TestMain is also the program that TestKilledInARotation kills.
func TestMain(m *testing.M) {
	if at := os.Getenv("HOLDFAST_TPM_DIES_AT"); at != "" {
		n, err := strconv.Atoi(at)
		if err == nil {
			err = rotateAndDie(n)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// rotateAndDie opens the vault, counts its holder's commands and kills itself with
// one of them: an even number before, an odd one after the TPM has done it. If the
// rotation ends first it returns nothing but says that it is done.
func rotateAndDie(at int) error {
	ctx := context.Background()
	o, err := ParseURL(os.Getenv("HOLDFAST_TPM_URL"))
	if err != nil {
		return err
	}
	real, commands := o.dial, 0
	o.dial = func(ctx context.Context) (transport.TPMCloser, error) {
		tpm, err := real(ctx)
		return mortal{tpm, at, &commands}, err
	}
	h := &house{dir: os.Getenv("HOLDFAST_TPM_DIR"), root: os.Getenv("HOLDFAST_TPM_ROOT"), o: o}
	if err := h.open(ctx, false); err != nil {
		return err
	}
	owner, err := holdfast.ParseID[vault.Owner](os.Getenv("HOLDFAST_TPM_OWNER"))
	if err != nil {
		return err
	}
	if _, err := h.Destroy(ctx, vault.Destruction{Owners: []vault.Owner{owner}}); err != nil {
		return err
	}
	return errors.New("done")
}

type mortal struct {
	transport.TPMCloser
	at       int
	commands *int
}

func (m mortal) Send(command []byte) ([]byte, error) {
	*m.commands++
	if *m.commands != m.at/2 {
		return m.TPMCloser.Send(command)
	}
	if m.at%2 == 1 {
		m.TPMCloser.Send(command)
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// With a file and a TPM, the hub is killed at each command that goes to the TPM.
// At the next start either everything is as before or the rotation is past its commit
// point; the living open, and the dead open in no copy.
func TestKilledInARotation(t *testing.T) {
	e := newEmulator(t)
	h := &house{dir: t.TempDir(), root: filepath.Join(t.TempDir(), "root.key"), o: e.options()}
	if err := h.open(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	alive := addOwner(t, h)
	box := seals(t, h, alive)
	step := 11
	if long() {
		step = 1
	}
	rounds, past := 0, 0
	for at := 2; ; at += step {
		dead := addOwner(t, h)
		deadBox := seals(t, h, dead)
		before := h.Generation()
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), os.Args[0])
		c.Env = append(os.Environ(), "HOLDFAST_TPM_DIES_AT="+strconv.Itoa(at), "HOLDFAST_TPM_DIR="+h.dir, "HOLDFAST_TPM_ROOT="+h.root, "HOLDFAST_TPM_OWNER="+dead.String(),
			"HOLDFAST_TPM_URL=tpm:"+h.o.Address+"?state="+h.o.State)
		out, err := c.CombinedOutput()
		killed := c.ProcessState.Sys().(syscall.WaitStatus).Signaled()
		if !killed && string(out) != "done\n" {
			t.Fatalf("killed at %d: %v\n%s", at, err, out)
		}
		if err := h.open(t.Context(), false); err != nil {
			t.Fatalf("killed at %d: start: %v", at, err)
		}
		rounds++
		gone := !h.HasOwner(dead)
		if gone {
			past++
		}
		if gone != (h.Generation() > before) || gone == opensField(t, h, dead, deadBox) || !opensField(t, h, alive, box) {
			t.Fatalf("killed at %d: generation %d after %d, the dead gone %v", at, h.Generation(), before, gone)
		}
		for _, holder := range h.Holders() {
			gens, err := holder.Generations(t.Context())
			if err != nil || len(gens) == 0 || gens[0] != h.Generation() {
				t.Fatalf("killed at %d: holder %s has %v, %v, and %d is in force", at, holder.Name(), gens, err, h.Generation())
			}
		}
		if !killed {
			break
		}
	}
	if rounds < 5 || past == 0 || past == rounds {
		t.Errorf("%d kills, %d of them past the commit point: the commands are not what they were", rounds, past)
	}
	t.Logf("%d kills, %d of them past the commit point", rounds, past)
	if left := e.loaded(); left != nil {
		t.Errorf("the TPM still has %v", left)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
}
