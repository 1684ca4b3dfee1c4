package tpmholder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// need finds outside programs, or ends the test aloud: as a failure, unless
// HOLDFAST_NO_TOOLS=1 says that they are left out on purpose.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skipf("SKIPPED: %s is not installed and HOLDFAST_NO_TOOLS=1: the TPM holder was not tried", p)
		}
		t.Fatalf("%s is not installed (Debian: swtpm, swtpm-tools, tpm2-tools, openssl); HOLDFAST_NO_TOOLS=1 leaves this test out", p)
	}
}

// emulator is a swtpm of the test's own on a socket.
type emulator struct {
	t      testing.TB
	dir    string
	socket string
	// asleep: nobody starts the TPM when its power comes, as an operating system does.
	asleep bool
	cmd    *exec.Cmd
}

// newEmulator starts a TPM that nothing was done with. It is over with the test.
func newEmulator(t testing.TB) *emulator {
	t.Helper()
	need(t, "swtpm")
	// A socket's path has room for some 100 bytes only, which t.TempDir may fill.
	dir, err := os.MkdirTemp("", "hf-tpm-")
	if err != nil {
		t.Fatal(err)
	}
	e := &emulator{t: t, dir: dir, socket: filepath.Join(dir, "s")}
	t.Cleanup(func() {
		e.kill()
		os.RemoveAll(dir)
	})
	e.start()
	return e
}

func (e *emulator) start() {
	e.t.Helper()
	os.Remove(e.socket)
	flags := "not-need-init,startup-clear"
	if e.asleep {
		flags = "not-need-init"
	}
	e.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+e.dir, "--server", "type=unixio,path="+e.socket, "--flags", flags)
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	until := time.Now().Add(30 * time.Second)
	for {
		conn, err := net.Dial("unix", e.socket)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(until) {
			said, _ := os.ReadFile(filepath.Join(e.dir, "log"))
			e.t.Fatalf("swtpm does not begin: %v\n%s", err, said)
		}
		time.Sleep(time.Millisecond)
	}
}

// kill is a power cut.
func (e *emulator) kill() {
	if e.cmd != nil {
		e.cmd.Process.Kill()
		e.cmd.Wait()
		e.cmd = nil
	}
}

func (e *emulator) powerCut() {
	e.kill()
	e.start()
}

// options are those of a holder of this TPM, whose state is in a folder of its own.
func (e *emulator) options() Options {
	return Options{Address: "unix:" + e.socket, State: filepath.Join(e.t.TempDir(), "tpm.json")}
}

// with runs f over a connection.
func (e *emulator) with(f func(transport.TPM) error) {
	e.t.Helper()
	tpm, err := dialTPM("unix:" + e.socket)(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	defer tpm.Close()
	if err := f(tpm); err != nil {
		e.t.Fatal(err)
	}
}

// loaded lists what is in the TPM's few slots.
func (e *emulator) loaded() (out []string) {
	e.t.Helper()
	e.with(func(tpm transport.TPM) error {
		for _, kind := range []uint32{0x80000000, 0x02000000, 0x03000000} {
			reply, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: kind, PropertyCount: 64}.Execute(tpm)
			if err != nil {
				return err
			}
			list, err := reply.CapabilityData.Data.Handles()
			if err != nil {
				return err
			}
			for _, h := range list.Handle {
				out = append(out, fmt.Sprintf("%08x", uint32(h)))
			}
		}
		return nil
	})
	return out
}

func (e *emulator) owner() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Name: tpm2.HandleName(tpm2.TPMRHOwner), Auth: tpm2.PasswordAuth(nil)}
}

// undefine is what somebody with the storage hierarchy's password can do.
func (e *emulator) undefine(index uint32) {
	e.t.Helper()
	e.with(func(tpm transport.TPM) error {
		public, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(tpm)
		if err != nil {
			return err
		}
		_, err = tpm2.NVUndefineSpace{AuthHandle: e.owner(), NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: public.NVName}}.Execute(tpm)
		return err
	})
}

// saboteur spoils the command of a number, once.
type saboteur struct {
	e       *emulator
	at, now int
	how     fault
}

type fault int

const (
	lostReply fault = iota
	lostCommand
	cutBefore // the power goes, and comes back
	cutAfter
	faults
)

func (f fault) String() string {
	return [...]string{"lost reply", "lost command", "power cut before", "power cut after"}[f]
}

func (s *saboteur) dial(ctx context.Context) (transport.TPMCloser, error) {
	tpm, err := dialTPM("unix:" + s.e.socket)(ctx)
	if err != nil {
		return nil, err
	}
	return &spoiled{tpm, s}, nil
}

type spoiled struct {
	transport.TPMCloser
	s *saboteur
}

func (p *spoiled) Send(command []byte) ([]byte, error) {
	p.s.now++
	if p.s.now != p.s.at {
		return p.TPMCloser.Send(command)
	}
	lost := fmt.Errorf("spoiled by the test: %v", p.s.how)
	switch p.s.how {
	case cutBefore:
		p.s.e.powerCut()
	case cutAfter:
		p.TPMCloser.Send(command)
		p.s.e.powerCut()
	case lostReply:
		p.TPMCloser.Send(command)
	}
	return nil, lost
}

// busyTPM answers that it has no time, a number of times for each command.
type busyTPM struct {
	e             *emulator
	rc            tpm2.TPMRC
	times, pauses int
}

func (b *busyTPM) dial(ctx context.Context) (transport.TPMCloser, error) {
	tpm, err := dialTPM("unix:" + b.e.socket)(ctx)
	return &busyLink{tpm, b, 0}, err
}

type busyLink struct {
	transport.TPMCloser
	b   *busyTPM
	had int
}

func (l *busyLink) Send(command []byte) ([]byte, error) {
	if l.had < l.b.times {
		l.had++
		return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(l.b.rc)), nil
	}
	l.had = 0
	return l.TPMCloser.Send(command)
}

func (e *emulator) evict(at uint32) {
	e.t.Helper()
	e.with(func(tpm transport.TPM) error {
		public, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(at)}.Execute(tpm)
		if err != nil {
			return err
		}
		_, err = tpm2.EvictControl{Auth: e.owner(), ObjectHandle: tpm2.NamedHandle{Handle: tpm2.TPMHandle(at), Name: public.Name}, PersistentHandle: tpm2.TPMHandle(at)}.Execute(tpm)
		return err
	})
}

// define makes a counter that looks like a holder's and gives it its first value.
func (e *emulator) define(password []byte, index uint32) {
	e.t.Helper()
	e.with(func(tpm transport.TPM) error {
		public := counterPublic(handle(index), false)
		if _, err := (tpm2.NVDefineSpace{AuthHandle: e.owner(), Auth: tpm2.TPM2BAuth{Buffer: password}, PublicInfo: tpm2.New2B(public)}).Execute(tpm); err != nil {
			return err
		}
		name, err := tpm2.NVName(&public)
		if err != nil {
			return err
		}
		at := tpm2.AuthHandle{Handle: public.NVIndex, Name: *name, Auth: tpm2.PasswordAuth(password)}
		_, err = tpm2.NVIncrement{AuthHandle: at, NVIndex: tpm2.NamedHandle{Handle: at.Handle, Name: at.Name}}.Execute(tpm)
		return err
	})
}

func (e *emulator) clear() {
	e.t.Helper()
	e.with(func(tpm transport.TPM) error {
		_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Name: tpm2.HandleName(tpm2.TPMRHLockout), Auth: tpm2.PasswordAuth(nil)}}.Execute(tpm)
		return err
	})
}

// lockOut gives wrong passwords until the TPM takes none any more.
func (e *emulator) lockOut() {
	e.t.Helper()
	e.with(func(tpm transport.TPM) error {
		template := keyTemplate(make([]byte, 32))
		template.ObjectAttributes.NoDA = false
		reply, err := tpm2.CreatePrimary{PrimaryHandle: e.owner(), InPublic: tpm2.New2B(template)}.Execute(tpm)
		if err != nil {
			return err
		}
		k, err := keyAt(reply.ObjectHandle, reply.OutPublic)
		if err != nil {
			return err
		}
		wrong := tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth([]byte("wrong"))}
		for range 100 {
			_, err = tpm2.Certify{ObjectHandle: wrong, SignHandle: wrong, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}}.Execute(tpm)
			if errors.Is(err, tpm2.TPMRCLockout) {
				_, err = tpm2.FlushContext{FlushHandle: k.handle}.Execute(tpm)
				return err
			}
		}
		return fmt.Errorf("the TPM does not lock: %w", err)
	})
}

// fillSlots leaves keys and sessions behind, as a process that was killed does.
func (e *emulator) fillSlots() {
	e.t.Helper()
	e.with(func(tpm transport.TPM) error {
		for {
			_, err := tpm2.CreatePrimary{PrimaryHandle: e.owner(), InPublic: tpm2.New2B(keyTemplate(make([]byte, 32)))}.Execute(tpm)
			if errors.Is(err, tpm2.TPMRCObjectMemory) {
				break
			} else if err != nil {
				return err
			}
		}
		for {
			_, _, err := tpm2.HMACSession(tpm, tpm2.TPMAlgSHA256, 16)
			if errors.Is(err, tpm2.TPMRCSessionMemory) || errors.Is(err, tpm2.TPMRCSessionHandles) {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
}
