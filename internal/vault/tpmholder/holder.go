package tpmholder

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Holder is a vault.Holder in a TPM. It keeps no connection between calls.
type Holder struct {
	opts  Options
	file  *file
	grade vault.Grade
	why   string // the grade is not Purge

	mu    sync.Mutex
	state *state
	// unclean says that something may be loaded in the TPM that nobody knows of;
	// asleep, that it lost power and wants to be started.
	unclean, asleep bool
}

var _ vault.Holder = (*Holder)(nil)

// maxSteps bounds the increments of one destruction. NV memory wears out, and a
// number far off is no generation of this keyring.
const maxSteps = 1000

// Open opens a holder that Create made. It does not ask the TPM anything.
func Open(_ context.Context, o Options) (*Holder, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.State); err != nil {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no state of a TPM holder at %s: put back a copy of it; without it the TPM's counter can't be read", o.State)
	}
	f, err := lockState(o.State)
	if err != nil {
		return nil, err
	}
	h := &Holder{opts: o, file: f, unclean: true}
	if h.state, err = f.read(); err == nil {
		err = h.check()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	h.rate()
	return h, nil
}

func (h *Holder) check() error {
	switch {
	case h.state == nil || !h.state.Made:
		return holdfast.Errorf(holdfast.Conflict, "the TPM holder of %s was not made to its end: add it again", h.opts.State)
	case uint32(h.state.Index) != h.opts.Index || uint32(h.state.Parent) != h.opts.Parent:
		return holdfast.Errorf(holdfast.Conflict, "the state %s is of the counter %s and the storage key %s, the URL names 0x%08x and 0x%08x: correct index= and parent=",
			h.opts.State, h.state.Index, h.state.Parent, h.opts.Index, h.opts.Parent)
	}
	return nil
}

// ID tells the keys of this holder from those of another at the same place.
func (h *Holder) ID() string { return hex.EncodeToString(h.state.Ring) }

// Close lets another process have the holder.
func (h *Holder) Close() error { return h.file.Close() }

// Name implements vault.Holder.
func (h *Holder) Name() string { return h.Kind() }

// Kind implements vault.Holder.
func (h *Holder) Kind() string { return "tpm" }

// Grade implements vault.Holder. It is Purge if the TPM was shown to be of a maker
// whose certificate the operator lists.
func (h *Holder) Grade() vault.Grade { return h.grade }

// Why says in a sentence why the grade is Clear; empty if it is not.
func (h *Holder) Why() string { return h.why }

// Generations implements vault.Holder.
func (h *Holder) Generations(ctx context.Context) (out []uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.value(ctx)
	if err != nil || h.state.Start == nil {
		return nil, err
	}
	now := h.standing(v)
	for _, n := range h.state.Prepared {
		if n >= now {
			out = append(out, n)
		}
	}
	// If the counter has passed what this holder was asked to destroy, its state file
	// is an older copy, which does not know the generation in force.
	if now > h.state.Below && !slices.Contains(out, now) {
		out = slices.Insert(out, 0, now)
	}
	return out, nil
}

// standing is the oldest generation whose boxes open at a value of the counter.
func (h *Holder) standing(v uint64) uint64 {
	return h.state.Start.Generation + (v - h.state.Start.Counter)
}

// value is the counter's, if the state file is there as well.
func (h *Holder) value(ctx context.Context) (v uint64, err error) {
	if err := h.file.there(h.state); err != nil {
		return 0, err
	}
	err = h.do(ctx, func(o *operation) error {
		v, err = o.value()
		return err
	})
	if err == nil && h.state.Start != nil && v < h.state.Start.Counter {
		err = holdfast.Errorf(holdfast.Denied, "the TPM's counter %s stands at %d, before this holder's start at %d: put back the newest copy of %s", h.state.Index, v, h.state.Start.Counter, h.opts.State)
	}
	return v, err
}

func (o *operation) value() (uint64, error) {
	parent, err := o.parent()
	if err != nil {
		return 0, err
	}
	c, err := o.counter(parent)
	if err != nil {
		return 0, err
	}
	return c.read()
}

// Prepare implements vault.Holder. The first generation ties generations to the
// counter.
func (h *Holder) Prepare(ctx context.Context, n uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.value(ctx)
	if err != nil {
		return err
	}
	next := *h.state
	switch {
	case n == 0 || n > 1<<62:
		return holdfast.Errorf(holdfast.Invalid, "%d is no generation of a root key", n)
	case next.Start == nil:
		next.Start = &start{Generation: n, Counter: v}
	case n < h.standing(v) || n < next.Start.Generation:
		return h.ahead(v, n)
	}
	at, had := slices.BinarySearch(next.Prepared, n)
	if had {
		return nil
	}
	next.Prepared = slices.Insert(slices.Clone(next.Prepared), at, n)
	if err := h.file.write(&next); err != nil {
		return err
	}
	h.state = &next
	return nil
}

// ahead is what to say about a generation whose boxes the counter has passed.
func (h *Holder) ahead(v, n uint64) error {
	return holdfast.Errorf(holdfast.Conflict, "the TPM's counter %s stands at %d: boxes of root key %d and before don't open. If nobody destroyed it, somebody else increments this counter: holdfast holder fence, then add a TPM with another index=",
		h.state.Index, v, n)
}

// Seal implements vault.Holder.
func (h *Holder) Seal(ctx context.Context, n uint64, root seal.Key) (box []byte, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer root.Wipe()
	if !slices.Contains(h.state.Prepared, n) {
		return nil, holdfast.Errorf(holdfast.NotFound, "the TPM holder does not hold root key %d", n)
	}
	policy, err := h.policy(n)
	if err != nil {
		return nil, err
	}
	template := boxTemplate(policy)
	err = h.do(ctx, func(o *operation) error {
		parent, err := o.parent()
		if err != nil {
			return err
		}
		session, err := o.session(parent, tpm2.AESEncryption(128, tpm2.EncryptIn))
		if err != nil {
			return err
		}
		secret := bytes.Clone(root[:])
		defer clear(secret)
		reply, err := tpm2.Create{
			ParentHandle: parent.authorized(),
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
				Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
			}},
			InPublic: tpm2.New2B(template),
		}.Execute(o, session)
		if err != nil {
			return fmt.Errorf("seal root key: %w", err)
		}
		if err := isBox(reply.OutPublic.Bytes(), policy); err != nil {
			return err
		}
		box = sealedBox{h.state.Ring, n, reply.OutPublic.Bytes(), reply.OutPrivate.Buffer}.append(nil)
		return nil
	})
	return box, err
}

// policy is the one of boxes of generation n.
func (h *Holder) policy(n uint64) ([]byte, error) {
	if h.state.Start == nil || n < h.state.Start.Generation || n > 1<<62 {
		return nil, holdfast.Errorf(holdfast.NotFound, "the TPM holder does not hold root key %d", n)
	}
	name, err := h.counterName()
	if err != nil {
		return nil, err
	}
	return policyOf(name, h.state.Index, h.state.Start.at(n))
}

func (h *Holder) counterName() (tpm2.TPM2BName, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMSNVPublic](h.state.Counter)
	if err != nil {
		return tpm2.TPM2BName{}, holdfast.Errorf(holdfast.Invalid, "the state of the TPM holder is damaged: put back a copy of it")
	}
	name, err := tpm2.NVName(public)
	if err != nil {
		return tpm2.TPM2BName{}, err
	}
	return *name, nil
}

// isBox reports whether public is what boxTemplate describes, with that policy.
func isBox(public, policy []byte) error {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err == nil {
		want := boxTemplate(policy)
		want.Unique = p.Unique
		if bytes.Equal(tpm2.Marshal(want), public) {
			return nil
		}
	}
	return holdfast.Errorf(holdfast.Denied, "the box is not of this generation of this TPM holder, or damaged")
}

// Open implements vault.Holder.
func (h *Holder) Open(ctx context.Context, n uint64, in []byte) (root seal.Key, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	policy, err := h.policy(n)
	if err != nil {
		return seal.Key{}, err
	}
	box, err := parseBox(in)
	if err != nil {
		return seal.Key{}, err
	}
	if !bytes.Equal(box.ring, h.state.Ring) || box.generation != n {
		return seal.Key{}, holdfast.Errorf(holdfast.Denied, "the box is of another TPM holder or of another root key than %d", n)
	}
	if err := isBox(box.public, policy); err != nil {
		return seal.Key{}, err
	}
	err = h.do(ctx, func(o *operation) error {
		root, err = o.unseal(n, box)
		return err
	})
	return root, err
}

func (o *operation) unseal(n uint64, box sealedBox) (root seal.Key, err error) {
	parent, err := o.parent()
	if err != nil {
		return root, err
	}
	c, err := o.counter(parent)
	if err != nil {
		return root, err
	}
	policy, _, err := tpm2.PolicySession(o, tpm2.TPMAlgSHA256, 16, tpm2.Salted(parent.handle, parent.public), tpm2.AESEncryption(128, tpm2.EncryptOut))
	if err != nil {
		return root, fmt.Errorf("begin session: %w", err)
	}
	o.loaded = append(o.loaded, policy.Handle())
	assert := policyNV(c.at.Name, o.h.state.Index, o.h.state.Start.at(n))
	assert.AuthHandle, assert.PolicySession = c.authorized(), policy.Handle()
	switch _, err := assert.Execute(o); {
	case errors.Is(err, tpm2.TPMRCPolicy):
		return root, holdfast.Errorf(holdfast.NotFound, "root key %d was destroyed: the TPM's counter has passed it", n)
	case errors.Is(err, tpm2.TPMRCAuthFail), errors.Is(err, tpm2.TPMRCBadAuth):
		return root, o.h.dead("its counter " + o.h.state.Index.String() + " does not take the password of the state file: somebody made it anew")
	case err != nil:
		return root, fmt.Errorf("show counter: %w", err)
	}
	reply, err := tpm2.Load{
		ParentHandle: parent.authorized(),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: box.private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](box.public),
	}.Execute(o)
	if refused(err) {
		return root, holdfast.Errorf(holdfast.Denied, "the box of root key %d is damaged, or of another TPM", n)
	} else if err != nil {
		return root, fmt.Errorf("load box: %w", err)
	}
	o.loaded = append(o.loaded, reply.ObjectHandle)
	item := tpm2.AuthHandle{Handle: reply.ObjectHandle, Name: reply.Name, Auth: policy}
	out, err := tpm2.Unseal{ItemHandle: item}.Execute(o)
	if err != nil {
		return root, fmt.Errorf("unseal root key: %w", err)
	}
	defer clear(out.OutData.Buffer)
	if len(out.OutData.Buffer) != len(root) {
		return root, holdfast.Errorf(holdfast.Denied, "the box of root key %d holds something else", n)
	}
	copy(root[:], out.OutData.Buffer)
	return root, nil
}

// refused says that the TPM understood the command and does not take what it was
// given: a format-1 error about a parameter.
func refused(err error) bool {
	var f tpm2.TPMFmt1Error
	if !errors.As(err, &f) {
		return false
	}
	parameter, _ := f.Parameter()
	return parameter
}

// Destroy implements vault.Holder.
func (h *Holder) Destroy(ctx context.Context, below uint64) (evidence []byte, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.file.there(h.state); err != nil {
		return nil, err
	}
	if h.state.Start == nil || below <= h.state.Start.Generation {
		return nil, nil // there was never a box of one of these
	}
	target := h.state.Start.at(below)
	err = h.do(ctx, func(o *operation) error {
		parent, err := o.parent()
		if err != nil {
			return err
		}
		c, err := o.counter(parent)
		if err != nil {
			return err
		}
		v, err := c.read()
		if err != nil {
			return err
		}
		switch {
		case v > target && v > h.state.Start.at(max(below, h.state.Below)):
			return h.ahead(v, h.standing(v)-1)
		case v < target && target-v > maxSteps:
			return holdfast.Errorf(holdfast.Invalid, "the TPM's counter would have to be incremented %d times at once, at most %d are allowed: fence this holder and add it again", target-v, maxSteps)
		}
		// What was asked for is written first: after a power cut, a counter that has
		// moved is then known to be ours.
		if next := *h.state; next.Below < below {
			next.Below = below
			if err := h.file.write(&next); err != nil {
				return err
			}
			h.state = &next
		}
		for v < target {
			if err := c.increment(); err != nil {
				return err
			}
			was := v
			if v, err = c.read(); err != nil {
				return err
			}
			if v != was+1 {
				return holdfast.Errorf(holdfast.Conflict, "the TPM's counter %s went from %d to %d by one increment: somebody else increments it", h.state.Index, was, v)
			}
		}
		evidence, err = c.certify(below)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("destroy root keys before %d: %w", below, err)
	}
	h.state.Prepared = slices.DeleteFunc(h.state.Prepared, func(n uint64) bool { return n < below })
	if err := h.file.write(h.state); err != nil { // with the highest value seen
		return nil, err
	}
	return evidence, nil
}

// dead is what to say about a holder that will never open anything again.
func (h *Holder) dead(reason string) error {
	return holdfast.Errorf(holdfast.Denied, "the TPM at %s opens no root key of this holder any more: %s. Take it out with holdfast holder fence, and add another; the other holders still open the data", h.opts.Address, reason)
}

// explain gives an error of the TPM the kind and the words that its reader needs.
func (h *Holder) explain(err error) error {
	if _, ok := errors.AsType[*holdfast.Error](err); ok || err == nil {
		return err
	}
	switch {
	case errors.Is(err, errLink):
		return holdfast.Errorf(holdfast.Unavailable, "the TPM at %s does not answer: %w", h.opts.Address, err)
	case errors.Is(err, tpm2.TPMRCLockout):
		return holdfast.Errorf(holdfast.Unavailable, "the TPM at %s is in lockout because of wrong passwords of others: wait, or reset it with tpm2_dictionarylockout -c: %w", h.opts.Address, err)
	case errors.Is(err, tpm2.TPMRCFailure):
		return holdfast.Errorf(holdfast.Unavailable, "the TPM at %s failed its self-test: a power cycle may help: %w", h.opts.Address, err)
	case errors.Is(err, tpm2.TPMRCAuthFail), errors.Is(err, tpm2.TPMRCBadAuth):
		return holdfast.Errorf(holdfast.Denied, "the TPM at %s wants a password: name the file that has it with owner-auth-file= and endorsement-auth-file=: %w", h.opts.Address, err)
	case errors.Is(err, tpm2.TPMRCHierarchy):
		return holdfast.Errorf(holdfast.Unavailable, "the TPM at %s has a hierarchy switched off, by the firmware or its settings: %w", h.opts.Address, err)
	}
	return holdfast.Errorf(holdfast.Unavailable, "the TPM at %s: %w", h.opts.Address, err)
}

// password reads a file with one; no path, no password.
func password(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read password of the TPM: %w", err)
	}
	return bytes.TrimRight(b, "\r\n"), nil
}

// Status is what doctor and `holder list` show.
type Status struct {
	Counter    uint64 // its value
	Increments uint64 // since this holder made it; NV memory wears out
	// Ahead says that the counter has passed what this holder was asked to destroy:
	// somebody else increments it, or the state file is an older copy.
	Ahead bool
}

// Status asks the TPM.
func (h *Holder) Status(ctx context.Context) (Status, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.value(ctx)
	if err != nil {
		return Status{}, err
	}
	s := Status{Counter: v, Increments: v - h.state.First + 1}
	s.Ahead = h.state.Start != nil && v > h.state.Start.at(max(h.state.Below, h.state.Start.Generation))
	return s, nil
}
