package series

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

var _ Keys = (*vault.Vault)(nil)

// withVault gives a rig the vault itself for its keys.
func withVault(t *testing.T) (*rig, *vault.Vault) {
	r := newRig(t, Options{})
	holder, err := vault.CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil)
	r.must(err)
	keyring := filepath.Join(r.dir, "keyring")
	r.must(os.Mkdir(keyring, 0o700))
	v, err := vault.Create(t.Context(), r.db, vault.Dir(keyring), []vault.Holder{holder}, vault.Options{})
	r.must(err)
	r.Series = New(r.db, r.log, r.blobs, v, r.opt)
	for _, a := range []holdfast.AssignmentID{alice, bob} {
		r.must(v.AddOwner(t.Context(), vault.OfAssignment(a)))
	}
	return r, v
}

// ingest seals as ingest does: under a lease.
func (r *rig) ingest(v *vault.Vault, o of, readings ...holdfast.Reading) {
	r.t.Helper()
	r.sealed(v, o, readings...)()
}

// sealed is the first half of ingest; it returns the other one.
func (r *rig) sealed(v *vault.Vault, o of, readings ...holdfast.Reading) (write func()) {
	r.t.Helper()
	lease, err := v.JournalKey(r.t.Context(), o.a, 202611)
	r.must(err)
	r.counter++
	h := Header{Type: Readings, Writer: r.writer, Counter: r.counter, Assignment: o.a, Bucket: 202611, Arrival: testArrival, Key: lease.Cipher.ID()}
	content := &Content{}
	for _, x := range readings {
		content.Rows = append(content.Rows, Row{o.s, x})
	}
	record, _, _ := AppendRecord(nil, nil, h, content, lease.Cipher)
	return func() {
		r.t.Helper()
		defer lease.Done()
		done := make(chan error, 1)
		r.log.Append(record, func(pos journal.Pos, err error) {
			if err == nil {
				r.Observe(h, content.Rows, pos, pos+journal.Pos(len(record)))
			}
			done <- err
		})
		r.must(<-done)
		if !lease.Valid() {
			r.t.Fatal("the lease ended")
		}
		r.sent[o] = append(r.sent[o], readings...)
	}
}

// TestPartOfAStreamIsErasedWithTheVault goes the way that Rewrite narrates.
func TestPartOfAStreamIsErasedWithTheVault(t *testing.T) {
	r, v := withVault(t)
	ctx := t.Context()
	o, beside, other := of{alice, testStream(1)}, of{alice, testStream(2)}, of{bob, testStream(1)}
	for n := range 20 {
		for _, o := range []of{o, beside, other} {
			r.ingest(v, o, number(int64(n), float64(n)))
		}
		if n%6 == 5 {
			r.roll()
		}
	}
	r.check("ingested")

	r.must(v.Barrier(ctx, []holdfast.AssignmentID{alice}, true))
	rw, err := r.Begin(ctx)
	r.must(err)
	r.must(rw.Roll(ctx))
	span := holdfast.Span{From: 5, To: 12}
	cells, err := r.Cells(ctx, alice, []holdfast.StreamID{o.s}, span)
	r.must(err)
	keep := func(x holdfast.Reading) bool { return !span.Contains(x.Time) }
	re := vault.Reissue{Assignment: alice, Replace: map[vault.StreamBucket]seal.Key{}}
	for _, c := range cells {
		key := seal.NewKey()
		kept, err := rw.Reseal(ctx, c, keep, seal.NewCipher(key))
		r.must(err)
		at := vault.StreamBucket{Stream: c.Stream, Bucket: c.Bucket}
		re.Drop = append(re.Drop, at)
		if kept > 0 {
			re.Replace[at] = key
		}
	}
	r.ingest(v, o, number(50, 50)) // others go on sending meanwhile
	r.ingest(v, beside, number(50, 50))
	r.check("resealed")
	write := r.sealed(v, beside, number(51, 51)) // it comes to lie on both sides of the destruction
	_, err = v.Destroy(ctx, vault.Destruction{Reissue: []vault.Reissue{re}})
	r.must(err)
	r.forget(o, keep)
	write()
	r.check("keys destroyed")
	r.must(rw.End(ctx))
	r.check("ended")
	r.tidy("ended")
	_, err = r.Erase(ctx, holdfast.Scope{Assignments: []holdfast.AssignmentID{alice}, Streams: []holdfast.StreamID{o.s}, Span: span})
	r.must(err)
	r.ingest(v, o, number(100, 100))
	r.roll()
	r.merge()
	r.check("merged")
	r.tidy("merged")

	// All of bob goes, with records in the journal.
	r.ingest(v, other, number(100, 100))
	r.must(v.Barrier(ctx, []holdfast.AssignmentID{bob}, false))
	_, err = v.Destroy(ctx, vault.Destruction{Owners: []vault.Owner{vault.OfAssignment(bob)}})
	r.must(err)
	r.sent[other] = nil
	r.check("bob's key destroyed")
	r.roll()
	r.check("rolled")
	_, err = r.Erase(ctx, holdfast.Scope{Assignments: []holdfast.AssignmentID{bob}, Span: holdfast.Always, Whole: true})
	r.must(err)
	r.check("erased")
	r.tidy("erased")
}
