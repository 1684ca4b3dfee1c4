package tpmholder

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func create(t testing.TB, o Options) *Holder {
	t.Helper()
	h, err := Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func sealed(t testing.TB, h vault.Holder, n uint64) (seal.Key, []byte) {
	t.Helper()
	root := seal.NewKey()
	if err := h.Prepare(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	box, err := h.Seal(t.Context(), n, root)
	if err != nil {
		t.Fatal(err)
	}
	return root, box
}

func opens(t testing.TB, h vault.Holder, n uint64, box []byte, want seal.Key) {
	t.Helper()
	got, err := h.Open(t.Context(), n, box)
	if err != nil {
		t.Fatalf("generation %d: %v", n, err)
	}
	if got != want {
		t.Fatalf("generation %d gives another key", n)
	}
}

func refuses(t testing.TB, h vault.Holder, n uint64, box []byte, kind holdfast.Kind) {
	t.Helper()
	if _, err := h.Open(t.Context(), n, box); holdfast.KindOf(err) != kind {
		t.Fatalf("generation %d: %v, want %v", n, err, kind)
	}
}

func long() bool { return os.Getenv("HOLDFAST_LONG") != "" }

// A root key opens until its generation is destroyed, in whatever order; numbers
// may be left out.
func TestGenerations(t *testing.T) {
	e := newEmulator(t)
	h := create(t, e.options())
	has := func(want ...uint64) {
		t.Helper()
		if got, err := h.Generations(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Fatalf("generations %v, %v, want %v", got, err, want)
		}
	}
	has()
	if _, err := h.Destroy(t.Context(), 70); err != nil {
		t.Fatalf("nothing was prepared, so there is nothing to destroy: %v", err)
	}
	if _, err := h.Seal(t.Context(), 5000, seal.NewKey()); holdfast.KindOf(err) != holdfast.NotFound {
		t.Fatalf("a generation that nobody prepared: %v", err)
	}
	root, box := sealed(t, h, 5000) // the holder is added to an old keyring
	opens(t, h, 5000, box, root)
	has(5000)
	root2, box2 := sealed(t, h, 5001)
	has(5000, 5001)
	opens(t, h, 5000, box, root)
	opens(t, h, 5001, box2, root2)
	refuses(t, h, 5000, box2, holdfast.Denied)
	refuses(t, h, 5002, box2, holdfast.Denied)
	refuses(t, h, 4999, box2, holdfast.NotFound)
	if bytes.Contains(box, root[:]) {
		t.Fatal("the box holds the key in clear")
	}
	destroy(t, h, 5001)
	has(5001)
	refuses(t, h, 5000, box, holdfast.NotFound)
	opens(t, h, 5001, box2, root2)
	destroy(t, h, 5001) // making sure
	destroy(t, h, 5000)
	destroy(t, h, 3)
	root4, box4 := sealed(t, h, 5004) // two attempts were given up
	opens(t, h, 5001, box2, root2)
	destroy(t, h, 5004)
	has(5004)
	refuses(t, h, 5001, box2, holdfast.NotFound)
	opens(t, h, 5004, box4, root4)
	if err := h.Prepare(t.Context(), 5003); holdfast.KindOf(err) != holdfast.Conflict {
		t.Fatalf("a destroyed generation is prepared: %v", err)
	}
	if err := h.Prepare(t.Context(), 5004); err != nil {
		t.Fatalf("prepared twice: %v", err)
	}
	destroy(t, h, 5005)
	has()
	refuses(t, h, 5004, box4, holdfast.NotFound)
	if _, err := h.Destroy(t.Context(), 1<<40); holdfast.KindOf(err) != holdfast.Invalid {
		t.Fatalf("a number far off would wear out the TPM: %v", err)
	}
	s, err := h.Status(t.Context())
	if err != nil || s.Ahead || s.Increments != 6 {
		t.Errorf("status %+v, %v; there were six increments", s, err)
	}
	// Another process takes over.
	if _, err := Open(t.Context(), h.opts); holdfast.KindOf(err) != holdfast.Conflict {
		t.Fatalf("a second process: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = reopen(t, h.opts)
	has()
	root6, box6 := sealed(t, h, 5006)
	opens(t, h, 5006, box6, root6)
	if left := e.loaded(); left != nil {
		t.Errorf("the TPM still has %v", left)
	}
}

func destroy(t testing.TB, h *Holder, below uint64) []byte {
	t.Helper()
	said, err := h.Destroy(t.Context(), below)
	if err != nil {
		t.Fatal(err)
	}
	if said != nil {
		if r, err := Verify(said); err != nil || r.Below != below {
			t.Fatalf("evidence %+v: %v", r, err)
		}
	}
	return said
}

func reopen(t testing.TB, o Options) *Holder {
	t.Helper()
	h, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// Wherever the power is cut or a reply is lost, the next attempt of the same call
// has done it: nothing opens that was destroyed, everything that was not.
func TestEveryCommandSpoiled(t *testing.T) {
	e := newEmulator(t)
	stride := 9
	if long() {
		stride = 1
	}
	total := 0
	for at := 1; ; at++ {
		how := fault(at/stride) % faults
		if stride == 1 {
			for how := range faults {
				total = spoil(t, e, at, how)
			}
		} else if at%stride == 0 {
			total = spoil(t, e, at, how)
		}
		if total > 0 && at > total {
			break
		}
	}
	t.Logf("%d commands", total)
}

// spoil tells a whole story with one command spoiled, and returns how many commands
// there were.
func spoil(t *testing.T, e *emulator, at int, how fault) int {
	t.Helper()
	s := &saboteur{e: e, at: at, how: how}
	o := e.options()
	o.dial, o.pause = s.dial, func(context.Context, time.Duration) error { return nil }
	h, err := Create(t.Context(), o)
	if err != nil {
		t.Fatalf("%v at command %d: create: %v", how, at, err)
	}
	defer h.Close()
	defer e.undefine(DefaultIndex)
	defer e.evict(h.opts.Parent)
	roots, boxes := map[uint64]seal.Key{}, map[uint64][]byte{}
	for n := uint64(1); n <= 3; n++ {
		roots[n], boxes[n] = sealed(t, h, n)
		opens(t, h, n, boxes[n], roots[n])
		destroy(t, h, n)
		for old, box := range boxes {
			if old < n {
				refuses(t, h, old, box, holdfast.NotFound)
			}
		}
		opens(t, h, n, boxes[n], roots[n])
	}
	if st, err := h.Status(t.Context()); err != nil || st.Increments != 3 || st.Ahead {
		t.Errorf("%v at command %d: status %+v, %v, want three increments", how, at, st, err)
	}
	if left := e.loaded(); left != nil {
		t.Errorf("%v at command %d: the TPM still has %v", how, at, left)
	}
	return s.now
}

// Five power cuts without a shutdown don't lock out a key.
func TestPowerCuts(t *testing.T) {
	e := newEmulator(t)
	h := create(t, e.options())
	root, box := sealed(t, h, 1)
	for n := uint64(1); n <= 5; n++ {
		e.powerCut()
		opens(t, h, n, box, root)
		var next []byte
		root, next = sealed(t, h, n+1)
		e.powerCut()
		destroy(t, h, n+1)
		refuses(t, h, n, box, holdfast.NotFound)
		box = next
	}
	e.kill()
	h.opts.pause = func(context.Context, time.Duration) error { return nil }
	if _, err := h.Open(t.Context(), 6, box); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatalf("a TPM that is off: %v", err)
	}
	if _, err := h.Destroy(t.Context(), 7); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatalf("a TPM that is off: %v", err)
	}
	e.start()
	opens(t, h, 6, box, root)
}

// A TPM that is locked because of others' wrong passwords still serves.
func TestLockout(t *testing.T) {
	e := newEmulator(t)
	h := create(t, e.options())
	root, box := sealed(t, h, 1)
	e.lockOut()
	opens(t, h, 1, box, root)
	root2, box2 := sealed(t, h, 2)
	destroy(t, h, 2)
	opens(t, h, 2, box2, root2)
	refuses(t, h, 1, box, holdfast.NotFound)
}

// A busy TPM is asked again, within bounds.
func TestBusy(t *testing.T) {
	e := newEmulator(t)
	b := &busyTPM{e: e}
	o := e.options()
	o.dial, o.pause = b.dial, func(context.Context, time.Duration) error { b.pauses++; return nil }
	h := create(t, o)
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCNVRate, tpm2.TPMRCYielded, tpm2.TPMRCTesting} {
		b.rc, b.times = rc, 2
		root, box := sealed(t, h, 1)
		opens(t, h, 1, box, root)
	}
	b.rc, b.times, b.pauses = tpm2.TPMRCNVRate, 2, 0
	destroy(t, h, 2)
	if b.pauses == 0 {
		t.Error("it was never waited")
	}
	b.times, b.pauses = 1<<30, 0
	if _, err := h.Destroy(t.Context(), 3); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatalf("a TPM that is always busy: %v", err)
	}
	if b.pauses > 4*busyTries {
		t.Errorf("it was waited %d times", b.pauses)
	}
	b.times = 0
	destroy(t, h, 3)
}

// Without a resource manager there are three slots. Neither many calls, good and bad,
// nor what somebody else left there, use them up.
func TestSlots(t *testing.T) {
	e := newEmulator(t)
	h := create(t, e.options())
	root, box := sealed(t, h, 1)
	bad := bytes.Clone(box)
	bad[len(bad)-1] ^= 1
	rounds := 20
	if long() {
		rounds = 165
	}
	for range rounds {
		opens(t, h, 1, box, root)
		refuses(t, h, 1, bad, holdfast.Denied)
		if _, err := h.Generations(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	destroy(t, h, 2)
	for range 10 {
		refuses(t, h, 1, box, holdfast.NotFound)
	}
	if left := e.loaded(); left != nil {
		t.Fatalf("the TPM still has %v", left)
	}
	root, box = sealed(t, h, 2)
	e.fillSlots()
	opens(t, h, 2, box, root)
	e.fillSlots()
	destroy(t, h, 3)
}

// Somebody who owns the storage hierarchy can end the holder. He can't bring
// anything back.
func TestOwnerOfTheHierarchy(t *testing.T) {
	e := newEmulator(t)
	h := create(t, e.options())
	_, box1 := sealed(t, h, 1)
	sealed(t, h, 2)
	destroy(t, h, 2)

	e.evict(h.opts.Parent) // the storage key is derived again
	root2, box2 := sealed(t, h, 2)
	opens(t, h, 2, box2, root2)

	dead := func(what string) {
		t.Helper()
		for n, box := range map[uint64][]byte{1: box1, 2: box2} {
			if _, err := h.Open(t.Context(), n, box); holdfast.KindOf(err) != holdfast.Denied && holdfast.KindOf(err) != holdfast.NotFound {
				t.Errorf("%s: generation %d: %v", what, n, err)
			}
		}
		_, err := h.Generations(t.Context())
		if holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "holdfast holder fence") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := h.Destroy(t.Context(), 3); holdfast.KindOf(err) != holdfast.Denied {
			t.Errorf("%s: %v", what, err)
		}
	}
	e.undefine(DefaultIndex)
	dead("undefined")
	e.define([]byte("a password"), h.opts.Index)
	dead("made anew with another password")
	e.undefine(DefaultIndex)
	// He who knows the password makes it the same to the last byte, but it begins above.
	e.define(h.state.Password, h.opts.Index)
	if got, err := h.Generations(t.Context()); err != nil || slices.Contains(got, 1) || slices.Contains(got, 2) {
		t.Errorf("made anew with the password: generations %v, %v", got, err)
	}
	refuses(t, h, 1, box1, holdfast.NotFound)
	refuses(t, h, 2, box2, holdfast.NotFound)
	if s, err := h.Status(t.Context()); err != nil || !s.Ahead {
		t.Errorf("status %+v, %v: the counter is ahead", s, err)
	}
	if _, err := h.Destroy(t.Context(), 2); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("the counter is above what was asked for: %v", err)
	}
	e.clear()
	dead("cleared")
}

// A counter that somebody with the password increments is found.
func TestCounterAhead(t *testing.T) {
	e := newEmulator(t)
	h := create(t, e.options())
	_, box := sealed(t, h, 1)
	for range 3 {
		if err := h.do(t.Context(), func(o *operation) error {
			parent, err := o.parent()
			if err != nil {
				return err
			}
			c, err := o.counter(parent)
			if err != nil {
				return err
			}
			return c.increment()
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Destroy(t.Context(), 2); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("destroy: %v", err)
	}
	if err := h.Prepare(t.Context(), 2); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("prepare: %v", err)
	}
	refuses(t, h, 1, box, holdfast.NotFound)
	if s, err := h.Status(t.Context()); err != nil || !s.Ahead {
		t.Errorf("status %+v, %v", s, err)
	}
}

// A box of which one bit is altered does not open.
func TestBoxAltered(t *testing.T) {
	e := newEmulator(t)
	h := create(t, e.options())
	root, box := sealed(t, h, 1)
	opens(t, h, 1, box, root)
	for i := range box {
		if i > len(box)-100 && i%8 != 0 && !long() { // these only the TPM can tell
			continue
		}
		bad := bytes.Clone(box)
		bad[i] ^= 1 << (i % 8)
		refuses(t, h, 1, bad, holdfast.Denied)
	}
	for _, bad := range [][]byte{nil, box[:40], box[:len(box)-1], append(bytes.Clone(box), 0)} {
		refuses(t, h, 1, bad, holdfast.Denied)
	}
	if left := e.loaded(); left != nil {
		t.Errorf("the TPM still has %v", left)
	}
}

// Neither another TPM nor another holder of the same opens a box.
func TestAnotherTPM(t *testing.T) {
	e, f := newEmulator(t), newEmulator(t)
	h := create(t, e.options())
	_, box := sealed(t, h, 1)
	o := e.options()
	o.Index = DefaultIndex + 1
	beside := create(t, o)
	sealed(t, beside, 1)
	refuses(t, beside, 1, box, holdfast.Denied)
	// The state file taken to another TPM, which has a counter of that number too.
	create(t, f.options())
	h.Close()
	o = h.opts
	o.Address, o.dial = "unix:"+f.socket, nil
	moved := reopen(t, o)
	if _, err := moved.Open(t.Context(), 1, box); holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "another TPM") {
		t.Errorf("another TPM: %v", err)
	}
	if _, err := moved.Destroy(t.Context(), 2); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("another TPM: %v", err)
	}
}

// A copy of the state file is as good as the file, and opens nothing more.
func TestOldStateFile(t *testing.T) {
	e := newEmulator(t)
	h := create(t, e.options())
	_, box1 := sealed(t, h, 1)
	old, err := os.ReadFile(h.opts.State)
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(2); n <= 4; n++ {
		sealed(t, h, n)
		destroy(t, h, n)
	}
	root, box := sealed(t, h, 4)
	h.Close()
	if err := os.WriteFile(h.opts.State, old, 0o600); err != nil {
		t.Fatal(err)
	}
	h = reopen(t, h.opts)
	if got, err := h.Generations(t.Context()); err != nil || !slices.Equal(got, []uint64{4}) {
		t.Fatalf("generations %v, %v", got, err)
	}
	opens(t, h, 4, box, root)
	refuses(t, h, 1, box1, holdfast.NotFound)
	root5, box5 := sealed(t, h, 5)
	destroy(t, h, 5)
	opens(t, h, 5, box5, root5)
	if s, err := h.Status(t.Context()); err != nil || s.Ahead {
		t.Errorf("status %+v, %v", s, err)
	}
}

// An emulator's state can be set back, as no hardware's can. The holder says so as
// long as its own state file was not set back with it.
func TestEmulatorSetBack(t *testing.T) {
	e := newEmulator(t)
	h := create(t, e.options())
	sealed(t, h, 1)
	e.kill()
	state := filepath.Join(e.dir, "tpm2-00.permall")
	kept, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	e.start()
	sealed(t, h, 2)
	destroy(t, h, 2)
	e.kill()
	if err := os.WriteFile(state, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	e.start()
	if _, err := h.Generations(t.Context()); holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "set back") {
		t.Errorf("a TPM that was set back: %v", err)
	}
}

// Create takes up what was begun, and touches nothing of others.
func TestCreate(t *testing.T) {
	e := newEmulator(t)
	first := create(t, e.options())
	if _, err := Create(t.Context(), e.options()); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("the same index: %v", err)
	}
	o := e.options()
	o.Index, o.Parent = DefaultIndex+2, first.opts.Parent
	if _, err := Create(t.Context(), o); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "parent=") {
		t.Errorf("the same storage key: %v", err)
	}
	o = e.options()
	o.Index = DefaultIndex
	o.Parent = 0x81001234
	if _, err := Create(t.Context(), o); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "index=") {
		t.Errorf("the same counter: %v", err)
	}
	first.Close()
	again := create(t, first.opts) // nothing was sealed yet: whoever made it may have been cut short
	if again.ID() != first.ID() {
		t.Error("another holder was made in place of one that was not used")
	}
	root, box := sealed(t, again, 1)
	opens(t, again, 1, box, root)
	again.Close()
	if _, err := Create(t.Context(), first.opts); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("the same state file: %v", err)
	}
	if err := os.Chmod(first.opts.State, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), first.opts); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a state file that others may read: %v", err)
	}
	if _, err := Open(t.Context(), e.options()); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("no state file: %v", err)
	}
	if err := os.Chmod(first.opts.State, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Index: DefaultIndex + 7}, {Parent: 0x81000001}} {
		other := first.opts
		other.Index, other.Parent = max(o.Index, other.Index), max(o.Parent, other.Parent)
		if o.Parent != 0 {
			other.Parent = o.Parent
		}
		if _, err := Open(t.Context(), other); holdfast.KindOf(err) != holdfast.Conflict {
			t.Errorf("a URL that names something else than the state file: %v", err)
		}
	}
	// What is removed leaves room, and a counter that begins above.
	if err := Remove(t.Context(), first.opts); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), first.opts); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("removed twice: %v", err)
	}
	h := create(t, first.opts)
	if s, err := h.Status(t.Context()); err != nil || s.Counter < 2 || s.Increments != 1 {
		t.Errorf("status %+v, %v", s, err)
	}
	refuses(t, h, 1, box, holdfast.NotFound)
	sealed(t, h, 1)
	refuses(t, h, 1, box, holdfast.Denied)
}

// Hierarchies with passwords, a TPM that nobody started, and one behind a port.
func TestPasswordsAndPorts(t *testing.T) {
	e := newEmulator(t)
	e.with(func(tpm transport.TPM) error {
		for _, hierarchy := range []tpm2.TPMHandle{tpm2.TPMRHOwner, tpm2.TPMRHEndorsement} {
			at := tpm2.AuthHandle{Handle: hierarchy, Name: tpm2.HandleName(hierarchy), Auth: tpm2.PasswordAuth(nil)}
			if _, err := (tpm2.HierarchyChangeAuth{AuthHandle: at, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("a password")}}).Execute(tpm); err != nil {
				return err
			}
		}
		return nil
	})
	o := e.options()
	if _, err := Create(t.Context(), o); holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "owner-auth-file=") {
		t.Errorf("without the passwords: %v", err)
	}
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("a password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.OwnerAuth, o.EndorsementAuth = secret, secret
	h := create(t, o)
	root, box := sealed(t, h, 1)
	destroy(t, h, 1)
	opens(t, h, 1, box, root)

	e.asleep = true
	e.powerCut()
	opens(t, h, 1, box, root)
	e.powerCut()
	sealed(t, h, 2)
	if destroy(t, h, 2) == nil {
		t.Error("no evidence")
	}

	// Without the endorsement hierarchy's password the key dies all the same.
	h.opts.EndorsementAuth = ""
	sealed(t, h, 3)
	if said := destroy(t, h, 3); said != nil || h.Grade() != vault.Clear || !strings.Contains(h.Why(), "evidence") {
		t.Errorf("evidence %s, grade %s, %s", said, h.Grade(), h.Why())
	}
	h.Close()

	// The same TPM behind a port.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", e.socket)
			if err == nil {
				go func() { io.Copy(from, to); from.Close() }()
				io.Copy(to, from)
				to.Close()
			}
			from.Close()
		}
	}()
	o.Address = ln.Addr().String()
	h = reopen(t, o)
	if got, err := h.Generations(t.Context()); err != nil || !slices.Equal(got, []uint64{3}) {
		t.Errorf("generations %v, %v", got, err)
	}
}

func TestParseURL(t *testing.T) {
	good := map[string]Options{
		"tpm:/dev/tpmrm0?state=/s/t.json":                                                           {Address: "/dev/tpmrm0", State: "/s/t.json", Index: 0x01800100, Parent: 0x81008100},
		"tpm:/dev/tpmrm0?state=/s/t.json&index=0x01800101&parent=0x81000042":                        {Address: "/dev/tpmrm0", State: "/s/t.json", Index: 0x01800101, Parent: 0x81000042},
		"tpm:unix:/run/swtpm.sock?state=/t&owner-auth-file=/o&endorsement-auth-file=/e&ek-roots=/r": {Address: "unix:/run/swtpm.sock", State: "/t", Index: 0x01800100, Parent: 0x81008100, OwnerAuth: "/o", EndorsementAuth: "/e", EKRoots: "/r"},
		"tpm:127.0.0.1:2321?state=/t":                                                               {Address: "127.0.0.1:2321", State: "/t", Index: 0x01800100, Parent: 0x81008100},
	}
	for text, want := range good {
		got, err := ParseURL(text)
		got.dial, got.pause = nil, nil
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "file:/x", "tpm:", "tpm:?state=/t", "tpm:/dev/tpmrm0", "tpm:/dev/tpmrm0?state=t", "tpm:unix:s?state=/t", "tpm:host?state=/t", "tpm:host:0?state=/t", "tpm:host:99999?state=/t",
		"tpm:/dev/tpmrm0?state=/t&state=/u", "tpm:/dev/tpmrm0?state=/t&index=", "tpm:/dev/tpmrm0?state=/t&index=x", "tpm:/dev/tpmrm0?state=/t&index=5", "tpm:/dev/tpmrm0?state=/t&parent=0x40000001", "tpm:/dev/tpmrm0?state=/t&colour=red", "tpm:/dev/tpmrm0?%zz"} {
		if _, err := ParseURL(text); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v, want that it is invalid", text, err)
		}
	}
}

func BenchmarkSeal(b *testing.B)    { bench(b, "seal") }
func BenchmarkOpen(b *testing.B)    { bench(b, "open") }
func BenchmarkDestroy(b *testing.B) { bench(b, "destroy") }

func bench(b *testing.B, what string) {
	e := newEmulator(b)
	h := create(b, e.options())
	root, box := sealed(b, h, 1)
	b.ReportAllocs()
	var n uint64 = 1
	for b.Loop() {
		switch what {
		case "seal":
			if _, err := h.Seal(b.Context(), 1, root); err != nil {
				b.Fatal(err)
			}
		case "open":
			opens(b, h, 1, box, root)
		case "destroy":
			n++
			if _, err := h.Destroy(b.Context(), n); err != nil {
				b.Fatal(err)
			}
		}
	}
}
