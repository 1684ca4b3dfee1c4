package erasure

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// What a certificate says beside what the erasure itself did, and its later issues.
// A certificate is signed when the ciphertext has gone, whatever is still open
// then: a holder out of reach, a late copy of the keyring, recovery shares, the word of
// witnesses. When one of these is no longer open it is issued anew; all issues are kept.

// incomplete is how an erasure is written down that is Done with a certificate that
// names something pending.
const incomplete = "incomplete"

// Paper is what is written down of an erasure for its certificate.
type Paper struct {
	Salt          []byte    `json:"salt,omitempty"` // of the commitment to the scope
	Late          []string  `json:"late,omitempty"`
	Escrow        Escrow    `json:"escrow,omitzero"`
	BackupsExpire time.Time `json:"backups_expire,omitzero"`
	Told          *Told     `json:"told,omitempty"`
	Earlier       [][]byte  `json:"earlier,omitempty"` // certificates that the newest supersedes, oldest first
	Incomplete    bool      `json:"-"`
}

// Paperwork is who knows what a certificate says of others. What is nil is not known.
type Paperwork struct {
	// Backups returns when the last backup ends that may hold ciphertext of now; zero:
	// there is none that the hub knows of.
	Backups func(context.Context) (time.Time, error)
	// Escrow says how the recovery shares stand that may open a root key which was
	// destroyed then.
	Escrow func(ctx context.Context, destroyed time.Time) (Escrow, error)
	// Told counts the recipients of what an erasure covers.
	Told func(context.Context, Erasure) (*Told, error)
}

// fill writes into an erasure what is known when its certificate is signed first.
func (g *Gate) fill(ctx context.Context, e *Erasure) (err error) {
	if e.Salt != nil {
		return nil // before a crash
	}
	e.Salt = make([]byte, saltSize)
	rand.Read(e.Salt)
	p := g.Paperwork
	if p.Backups != nil {
		if e.BackupsExpire, err = p.Backups(ctx); err != nil {
			return fmt.Errorf("ask when backups expire: %w", err)
		}
	}
	if p.Escrow != nil {
		if e.Escrow, err = p.Escrow(ctx, e.KeysDeadAt); err != nil {
			return fmt.Errorf("ask for recovery shares: %w", err)
		}
	}
	if p.Told != nil {
		if e.Told, err = p.Told(ctx, *e); err != nil {
			return fmt.Errorf("count recipients: %w", err)
		}
	}
	return nil
}

// issue signs the certificate of an erasure whose ledger entry is at index, and
// writes it down.
func (g *Gate) issue(ctx context.Context, e Erasure, index uint64) error {
	proof, err := g.Ledger.Prove(ctx, vault.Hub, index)
	if err != nil {
		return err
	}
	if e.Certificate, err = g.certify(e, proof); err != nil {
		return err
	}
	e.State = Done
	c, err := peek(e.Certificate)
	if err != nil {
		return err
	}
	e.Incomplete = len(c.Pending()) > 0
	return g.save(ctx, e, nil)
}

// peek reads a certificate that this hub signed.
func peek(certificate []byte) (c Certificate, err error) {
	text, _, _ := strings.Cut(string(certificate), "\n\n— ")
	body, found := strings.CutPrefix(text, certificateHeader+"\n")
	if !found {
		return c, errCertificate
	}
	return c, strictly(body, &c)
}

// completeEvery is how often it is looked what has come in for certificates that name
// something pending.
const completeEvery = time.Minute

func (g *Gate) tick(ctx context.Context) {
	t := time.NewTicker(completeEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			g.paper.poke()
		}
	}
}

// Complete issues certificates anew of which something was pending that no longer
// is, and returns when it has.
func (g *Gate) Complete(ctx context.Context) error { return g.paper.once(ctx) }

func (g *Gate) complete(ctx context.Context) error {
	all, err := g.list(ctx, `state = $1`, incomplete)
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := g.completeOne(ctx, e); err != nil {
			return fmt.Errorf("issue certificate of erasure %s anew: %w", e.ID, err)
		}
	}
	return nil
}

func (g *Gate) completeOne(ctx context.Context, e Erasure) error {
	before, err := peek(e.Certificate)
	if err != nil {
		return err
	}
	news := g.heard(&e)
	news = g.caughtUp(&e) || news
	if g.Paperwork.Escrow != nil && before.Escrow.State == EscrowPending {
		now, err := g.Paperwork.Escrow(ctx, e.KeysDeadAt)
		if err != nil {
			return fmt.Errorf("ask for recovery shares: %w", err)
		}
		news = news || now.State != before.Escrow.State
		e.Escrow = now
	}
	if cosignatures(before.Ledger.Checkpoint) < before.Witnesses {
		have, err := g.witnessed(ctx, before.Ledger)
		if err != nil {
			return err
		}
		news = news || have >= before.Witnesses
	}
	if !news {
		return nil
	}
	e.Earlier = append(e.Earlier, e.Certificate)
	return g.issue(ctx, e, before.Ledger.Index)
}

// witnessed returns how many witnesses have cosigned a tree that has an entry.
func (g *Gate) witnessed(ctx context.Context, p ledger.Proof) (int, error) {
	if have, _ := g.Ledger.Cosigners(); have == 0 {
		return 0, nil
	}
	c, err := g.Ledger.Published(ctx)
	if err != nil || p.Index >= c.Size {
		return 0, err
	}
	return cosignatures(string(c.Note)), nil
}

// seen is the newest word of each holder: one that has destroyed a generation has
// destroyed all before.
type seen struct {
	mu  sync.Mutex
	all map[string]said
}

type said struct {
	below uint64 // it has destroyed every generation below
	at    vault.HolderEvidence
}

// note takes in what holders said of a rotation.
func (s *seen) note(rot vault.Rotation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]said{}
	}
	for _, h := range rot.Holders {
		if !pending(h) {
			s.all[h.Holder] = said{rot.To, h}
		}
	}
}

// since returns what a holder has said of a destruction at a rotation since then.
func (s *seen) since(rotation uint64) (out []vault.HolderEvidence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, now := range s.all {
		if now.below >= rotation {
			out = append(out, now.at)
		}
	}
	return out
}

// heard puts the later word of holders that were pending into an erasure, and reports
// whether there is any: what they said at a rotation, or when they were returned or
// removed.
func (g *Gate) heard(e *Erasure) (news bool) {
	since := g.holders.since(e.To)
	for i, h := range e.Holders {
		if !pending(h) {
			continue
		}
		if now, ok := g.Vault.Completed(h.Holder, e.To); ok {
			e.Holders[i], news = now, true
		} else if at := slices.IndexFunc(since, func(x vault.HolderEvidence) bool { return x.Holder == h.Holder }); at >= 0 {
			e.Holders[i], news = since[at], true
		}
	}
	return news
}

// caughtUp takes out of an erasure the copies of the keyring that were late and are in
// step now, with all that was written before, and reports whether there is any.
func (g *Gate) caughtUp(e *Erasure) bool {
	copies := g.Vault.Copies()
	was := len(e.Late)
	e.Late = slices.DeleteFunc(slices.Clone(e.Late), func(name string) bool {
		return slices.ContainsFunc(copies, func(c vault.CopyState) bool { return c.Name == name && !c.Late })
	})
	return len(e.Late) < was
}

// lateCopies names the copies of the keyring that are not in step.
func (g *Gate) lateCopies() (late []string) {
	for _, c := range g.Vault.Copies() {
		if c.Late {
			late = append(late, c.Name)
		}
	}
	return late
}

// pending reports that a holder has not shown that it destroyed what it was to.
func pending(h vault.HolderEvidence) bool { return h.State == vault.HolderPending }
