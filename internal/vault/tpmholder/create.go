package tpmholder

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iot/holdfast"
)

// Create makes a counter and a storage key in the TPM, and the state file. What a
// power cut interrupts, another Create with the same options takes to its end.
func Create(ctx context.Context, o Options) (*Holder, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(o.State), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of TPM holder: %w", err)
	}
	f, err := lockState(o.State)
	if err != nil {
		return nil, err
	}
	h := &Holder{opts: o, file: f, unclean: true}
	if err := h.create(ctx); err != nil {
		f.Close()
		return nil, err
	}
	h.rate()
	return h, nil
}

// makingPatience bounds Create: a TPM may take half a minute for an RSA key.
const makingPatience = 3 * time.Minute

func (h *Holder) create(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, makingPatience)
	defer cancel()
	var err error
	if h.state, err = h.file.read(); err != nil {
		return err
	}
	switch {
	case h.state == nil:
		h.state = newState(h.opts)
		if err := h.file.make(h.state); err != nil {
			return err
		}
	case h.state.Start != nil:
		return holdfast.Errorf(holdfast.Conflict, "there is a TPM holder at %s already, which was given root keys: name another place with state=", h.opts.State)
	case uint32(h.state.Index) != h.opts.Index || uint32(h.state.Parent) != h.opts.Parent:
		return holdfast.Errorf(holdfast.Conflict, "a TPM holder was begun at %s with index=%s and parent=%s: name these, or remove the file", h.opts.State, h.state.Index, h.state.Parent)
	}
	if h.state.Made { // and never used: whoever made it was cut short
		return nil
	}
	for _, step := range []func(*operation) error{(*operation).makeParent, (*operation).makeCounter, (*operation).makeKey} {
		if err := h.do(ctx, step); err != nil {
			return fmt.Errorf("make TPM holder: %w", err)
		}
	}
	h.state.Made = true
	return h.file.write(h.state)
}

func newState(o Options) *state {
	s := &state{Format: stateFormat, Index: handle(o.Index), Parent: handle(o.Parent), Ring: make([]byte, 16), Unique: make([]byte, 32), Password: make([]byte, 32)}
	rand.Read(s.Ring)
	rand.Read(s.Unique)
	rand.Read(s.Password)
	// TPMs cut passwords at trailing zeros, and go-tpm at any: there are none.
	for i := range s.Password {
		for s.Password[i] == 0 {
			rand.Read(s.Password[i : i+1])
		}
	}
	return s
}

// makeParent derives the storage key and keeps it at its handle. A TPM that has no
// room for it derives it each time.
func (o *operation) makeParent() error {
	s := o.h.state
	secret, err := password(o.h.opts.OwnerAuth)
	if err != nil {
		return err
	}
	k, err := o.primary(tpm2.TPMRHOwner, secret, parentTemplate(s.Unique))
	if err != nil {
		return err
	}
	s.ParentName = k.name.Buffer
	reply, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(s.Parent)}.Execute(o)
	if err == nil {
		there, err := keyAt(tpm2.TPMHandle(s.Parent), reply.OutPublic)
		if err != nil || !bytes.Equal(there.name.Buffer, s.ParentName) {
			return holdfast.Errorf(holdfast.Conflict, "the TPM has another key at %s: name a free handle with parent=", s.Parent)
		}
		return nil
	} else if !errors.Is(err, tpm2.TPMRCHandle) {
		return fmt.Errorf("look for storage key: %w", err)
	}
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Name: tpm2.HandleName(tpm2.TPMRHOwner), Auth: tpm2.PasswordAuth(secret)},
		ObjectHandle:     tpm2.NamedHandle{Handle: k.handle, Name: k.name},
		PersistentHandle: tpm2.TPMHandle(s.Parent),
	}.Execute(o)
	if err != nil && !errors.Is(err, tpm2.TPMRCNVSpace) {
		return fmt.Errorf("keep storage key: %w", err)
	}
	return nil
}

// makeCounter defines the counter and gives it its first value, which is above
// that of every counter that the TPM ever had.
func (o *operation) makeCounter() error {
	s := o.h.state
	parent, err := o.parent()
	if err != nil {
		return err
	}
	written, err := o.defineCounter(parent)
	if err != nil {
		return err
	}
	s.Counter = tpm2.Marshal(counterPublic(s.Index, written))
	c, err := o.counter(parent)
	if err != nil {
		return err
	}
	if !written {
		if err := c.increment(); err != nil {
			return inUse(s.Index, err)
		}
		// That it is written is a part of its name.
		s.Counter = tpm2.Marshal(counterPublic(s.Index, true))
		name, err := o.h.counterName()
		if err != nil {
			return err
		}
		c.at.Name = name
	}
	v, err := c.read()
	if err != nil {
		return inUse(s.Index, err)
	}
	s.First = v
	return nil
}

// inUse says that an index that was there before does not take our password.
func inUse(index handle, err error) error {
	if holdfast.KindOf(err) == holdfast.Denied || errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth) {
		return holdfast.Errorf(holdfast.Conflict, "the TPM has a counter at %s that another holder made: name a free one with index=, or undefine it if nobody needs it (tpm2_nvundefine -C o %s)", index, index)
	}
	return err
}

func (o *operation) defineCounter(parent key) (written bool, err error) {
	s := o.h.state
	reply, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(s.Index)}.Execute(o)
	if err == nil {
		for _, written := range []bool{false, true} {
			if bytes.Equal(reply.NVPublic.Bytes(), tpm2.Marshal(counterPublic(s.Index, written))) {
				return written, nil
			}
		}
		return false, holdfast.Errorf(holdfast.Conflict, "the TPM has something else at the NV index %s: name a free one with index=", s.Index)
	} else if !errors.Is(err, tpm2.TPMRCHandle) {
		return false, fmt.Errorf("look for counter: %w", err)
	}
	owner, err := o.owner()
	if err != nil {
		return false, err
	}
	session, err := o.session(parent, tpm2.AESEncryption(128, tpm2.EncryptIn))
	if err != nil {
		return false, err
	}
	_, err = tpm2.NVDefineSpace{
		AuthHandle: owner,
		Auth:       tpm2.TPM2BAuth{Buffer: bytes.Clone(s.Password)},
		PublicInfo: tpm2.New2B(counterPublic(s.Index, false)),
	}.Execute(o, session)
	if errors.Is(err, tpm2.TPMRCNVSpace) {
		return false, holdfast.Errorf(holdfast.Conflict, "the TPM has no room for another counter: undefine one that nobody needs (tpm2_getcap handles-nv-index)")
	} else if err != nil {
		return false, fmt.Errorf("define counter: %w", err)
	}
	return false, nil
}

// makeKey derives the key that signs evidence, and shows that it is of the TPM that
// has the certificate of a maker, if it has one.
func (o *operation) makeKey() error {
	s := o.h.state
	secret, err := password(o.h.opts.EndorsementAuth)
	if err != nil {
		return err
	}
	k, err := o.primary(tpm2.TPMRHEndorsement, secret, keyTemplate(s.Unique))
	if err != nil {
		return err
	}
	s.Key = tpm2.Marshal(k.public)
	s.EKCertificate, s.Activated, s.Unshown = nil, time.Time{}, ""
	certificate, err := o.activate(k, secret)
	switch {
	case err == nil:
		s.EKCertificate, s.Activated = certificate, time.Now().UTC().Truncate(time.Second)
	case o.h.again(err) || o.ctx.Err() != nil:
		return err
	default:
		s.Unshown = err.Error()
	}
	return nil
}

// Remove takes what Create made out of the TPM, and the state file. What was sealed
// opens never again.
func Remove(ctx context.Context, o Options) error {
	h, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, step := range []func(*operation) error{(*operation).removeCounter, (*operation).removeParent} {
		if err := h.do(ctx, step); err != nil {
			return fmt.Errorf("remove TPM holder: %w", err)
		}
	}
	if err := os.Remove(h.opts.State); err != nil {
		return fmt.Errorf("remove TPM holder: %w", err)
	}
	os.Remove(h.opts.State + ".lock") // an empty file that harms nobody
	return nil
}

func (o *operation) removeCounter() error {
	name, err := o.h.counterName()
	if err != nil {
		return err
	}
	owner, err := o.owner()
	if err != nil {
		return err
	}
	_, err = tpm2.NVUndefineSpace{AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(o.h.state.Index), Name: name}}.Execute(o)
	if err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
		return fmt.Errorf("undefine counter: %w", err)
	}
	return nil
}

func (o *operation) removeParent() error {
	s := o.h.state
	reply, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(s.Parent)}.Execute(o)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look for storage key: %w", err)
	}
	k, err := keyAt(tpm2.TPMHandle(s.Parent), reply.OutPublic)
	if err != nil || !bytes.Equal(k.name.Buffer, s.ParentName) {
		return err // somebody else's
	}
	owner, err := o.owner()
	if err != nil {
		return err
	}
	if _, err := (tpm2.EvictControl{Auth: owner, ObjectHandle: tpm2.NamedHandle{Handle: k.handle, Name: k.name}, PersistentHandle: k.handle}).Execute(o); err != nil {
		return fmt.Errorf("let storage key go: %w", err)
	}
	return nil
}

// owner is the storage hierarchy with its password.
func (o *operation) owner() (tpm2.AuthHandle, error) {
	secret, err := password(o.h.opts.OwnerAuth)
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Name: tpm2.HandleName(tpm2.TPMRHOwner), Auth: tpm2.PasswordAuth(secret)}, err
}
