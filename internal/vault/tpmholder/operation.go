package tpmholder

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iot/holdfast"
)

// operation is one connection to the TPM and what was loaded over it.
type operation struct {
	*link
	h      *Holder
	loaded []tpm2.TPMHandle
}

const (
	attempts  = 5
	pauseMost = 500 * time.Millisecond
	// patience bounds an operation whose caller sets no bound.
	patience = 30 * time.Second
)

// do runs f over a fresh connection, and again over another when the TPM lost power
// or a reply did not come: f must be such that it may be begun anew at any step.
func (h *Holder) do(ctx context.Context, f func(*operation) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	pause := 10 * time.Millisecond
	for attempt := 1; ; attempt++ {
		err := h.once(ctx, f)
		if err == nil || attempt == attempts || !h.again(err) {
			return h.explain(err)
		}
		if h.opts.pause(ctx, pause) != nil {
			return h.explain(err)
		}
		pause = min(4*pause, pauseMost)
	}
}

// again says whether another attempt may go better, and prepares it.
func (h *Holder) again(err error) bool {
	switch {
	case errors.Is(err, errLink):
		h.unclean = true
		return true
	case errors.Is(err, tpm2.TPMRCInitialize):
		h.asleep = true
		return true
	case errors.Is(err, tpm2.TPMRCObjectMemory), errors.Is(err, tpm2.TPMRCObjectHandles), errors.Is(err, tpm2.TPMRCSessionMemory),
		errors.Is(err, tpm2.TPMRCSessionHandles), errors.Is(err, tpm2.TPMRCContextGap):
		h.unclean = true
		return !h.opts.managed()
	}
	return false
}

func (h *Holder) once(ctx context.Context, f func(*operation) error) error {
	tpm, err := h.opts.dial(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errLink, err)
	}
	o := &operation{link: &link{ctx: ctx, tpm: tpm, pause: h.opts.pause}, h: h}
	// A hanging device is closed by whoever waits for it no more.
	defer tpm.Close()
	if h.asleep {
		if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(o); err != nil && !errors.Is(err, tpm2.TPMRCInitialize) {
			return err
		}
		h.asleep = false
	}
	if h.unclean && !h.opts.managed() {
		if err := o.sweep(); err != nil {
			return err
		}
		h.unclean = false
	}
	err = f(o)
	o.flush()
	h.unclean = h.unclean || o.broken
	return err
}

// flush takes what was loaded out of the TPM's few slots.
func (o *operation) flush() {
	for _, handle := range slices.Backward(o.loaded) {
		_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(o)
		// One that the TPM does not know has gone with its session or a power cut.
		if err != nil && !errors.Is(err, tpm2.TPMRCHandle) && !errors.Is(err, tpm2.TPMRCValue) {
			o.h.unclean = true
		}
	}
	o.loaded = nil
}

// sweep flushes all that is loaded. Where no resource manager stands between, this
// is for what a process that was killed, or a lost reply, left behind: the TPM is
// then ours alone.
func (o *operation) sweep() error {
	for _, kind := range []uint32{0x80000000, 0x02000000, 0x03000000} { // objects, sessions loaded, sessions saved
		reply, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: kind, PropertyCount: 64}.Execute(o)
		if err != nil {
			return err
		}
		list, err := reply.CapabilityData.Data.Handles()
		if err != nil {
			return err
		}
		for _, handle := range list.Handle {
			if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(o); err != nil && !errors.Is(err, tpm2.TPMRCHandle) && !errors.Is(err, tpm2.TPMRCValue) {
				return err
			}
		}
	}
	return nil
}

// key is a key that the TPM has at a handle.
type key struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

func (k key) authorized() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}
}

// primary derives a key from a hierarchy's seed.
func (o *operation) primary(hierarchy tpm2.TPMHandle, secret []byte, template tpm2.TPMTPublic) (key, error) {
	reply, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Name: tpm2.HandleName(hierarchy), Auth: tpm2.PasswordAuth(secret)},
		InPublic:      tpm2.New2B(template),
	}.Execute(o)
	if err != nil {
		return key{}, fmt.Errorf("derive key: %w", err)
	}
	o.loaded = append(o.loaded, reply.ObjectHandle)
	return keyAt(reply.ObjectHandle, reply.OutPublic)
}

// keyAt computes the key's name itself.
func keyAt(at tpm2.TPMHandle, out tpm2.TPM2BPublic) (key, error) {
	public, err := out.Contents()
	if err != nil {
		return key{}, err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return key{}, err
	}
	return key{at, *name, *public}, nil
}

// parent finds the storage key: at its handle, or derived again if somebody took it
// from there.
func (o *operation) parent() (key, error) {
	s := o.h.state
	reply, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(s.Parent)}.Execute(o)
	switch {
	case err == nil:
		k, err := keyAt(tpm2.TPMHandle(s.Parent), reply.OutPublic)
		if err != nil {
			return key{}, err
		}
		if bytes.Equal(k.name.Buffer, s.ParentName) {
			return k, nil
		}
	case !errors.Is(err, tpm2.TPMRCHandle):
		return key{}, fmt.Errorf("read storage key: %w", err)
	}
	secret, err := password(o.h.opts.OwnerAuth)
	if err != nil {
		return key{}, err
	}
	k, err := o.primary(tpm2.TPMRHOwner, secret, parentTemplate(s.Unique))
	if err != nil {
		return key{}, fmt.Errorf("storage key: %w", err)
	}
	if !bytes.Equal(k.name.Buffer, s.ParentName) {
		return key{}, o.h.dead("its storage hierarchy is another: this is another TPM, or it was cleared")
	}
	return k, nil
}

// counter is the NV index, and a session that has its password and is encrypted for
// the storage key.
type counter struct {
	*operation
	at   tpm2.NamedHandle
	auth tpm2.Session
}

func (o *operation) counter(parent key) (*counter, error) {
	s := o.h.state
	reply, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(s.Index)}.Execute(o)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, o.h.dead("its counter " + s.Index.String() + " is gone: somebody undefined it, or cleared the TPM")
	} else if err != nil {
		return nil, fmt.Errorf("find counter: %w", err)
	}
	public, err := reply.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("find counter: %w", err)
	}
	if !bytes.Equal(tpm2.Marshal(public), s.Counter) {
		return nil, o.h.dead("its counter " + s.Index.String() + " was made anew by somebody")
	}
	name, err := tpm2.NVName(public)
	if err != nil {
		return nil, err
	}
	c := &counter{operation: o, at: tpm2.NamedHandle{Handle: tpm2.TPMHandle(s.Index), Name: *name}}
	c.auth, err = o.session(parent, tpm2.Auth(s.Password))
	return c, err
}

// session begins one whose key only the TPM with this storage key has: nobody on
// the bus can read what it encrypts, or make up its replies.
func (o *operation) session(parent key, opts ...tpm2.AuthOption) (tpm2.Session, error) {
	opts = append(opts, tpm2.Salted(parent.handle, parent.public))
	s, _, err := tpm2.HMACSession(o, tpm2.TPMAlgSHA256, 16, opts...)
	if err != nil {
		return nil, fmt.Errorf("begin session: %w", err)
	}
	o.loaded = append(o.loaded, s.Handle())
	return s, nil
}

func (c *counter) authorized() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: c.at.Handle, Name: c.at.Name, Auth: c.auth}
}

// read returns the counter's value, which is never lower than it was.
func (c *counter) read() (uint64, error) {
	reply, err := tpm2.NVRead{AuthHandle: c.authorized(), NVIndex: c.at, Size: 8}.Execute(c)
	switch {
	case errors.Is(err, tpm2.TPMRCAuthFail), errors.Is(err, tpm2.TPMRCBadAuth):
		return 0, c.h.dead("its counter " + c.h.state.Index.String() + " does not take the password of the state file: somebody made it anew")
	case err != nil:
		return 0, fmt.Errorf("read counter: %w", err)
	case len(reply.Data.Buffer) != 8:
		return 0, fmt.Errorf("read counter: %d bytes", len(reply.Data.Buffer))
	}
	v := binary.BigEndian.Uint64(reply.Data.Buffer)
	if v < c.h.state.Seen {
		return 0, holdfast.Errorf(holdfast.Denied, "the TPM's counter %s stands at %d and stood at %d: the state of this TPM was set back, and with it root keys that were destroyed may open again. Don't use it for root keys: holdfast holder fence",
			c.h.state.Index, v, c.h.state.Seen)
	}
	c.h.state.Seen = v
	return v, nil
}

func (c *counter) increment() error {
	if _, err := (tpm2.NVIncrement{AuthHandle: c.authorized(), NVIndex: c.at}).Execute(c); err != nil {
		return fmt.Errorf("increment counter: %w", err)
	}
	return nil
}
