package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/issuer"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// A link is a credential whose proof an issuer gives anew each time: a token of its
// own about one subject. The catalog has the keyed hash of issuer and subject; the
// link says whose party, since when, and whether it was ended.

// linkLife is for ever: a link ends when somebody ends it.
const linkLife = 100 * 365 * day

// vouched returns who is there by the word of an issuer.
func (a *Access) vouched(ctx context.Context, text string) (Principal, error) {
	w, err := a.issuers.Verify(ctx, text)
	if err != nil {
		if reason, ok := issuer.ReasonOf(err); ok {
			return Principal{}, a.refusal("issuer: " + string(reason))
		}
		a.metrics.refused.WithLabelValues("issuer away").Inc()
		return Principal{}, err
	}
	hash, err := a.hashOf(ctx, w)
	if err != nil {
		return Principal{}, err
	}
	role := Owner
	if w.Use == issuer.Staff {
		switch {
		case w.Administrator:
			role = Administrator
		case w.Auditor:
			role = Auditor
		default:
			return Principal{}, a.refusal("no staff")
		}
	}
	c, err := a.linkOf(ctx, hash)
	if holdfast.KindOf(err) == holdfast.NotFound {
		c, err = a.meet(ctx, w, hash, role)
	}
	if err != nil {
		return Principal{}, err
	}
	if c.role != role {
		if c, err = a.changeRole(ctx, c, hash, role); err != nil {
			return Principal{}, err
		}
	}
	p := c.principal(a.now())
	if p.NotAfter.After(w.Until) {
		p.NotAfter = w.Until
	}
	p.Settled = w.Factor || p.Settled && !w.SettledByFactors
	return a.admit(ctx, c, p)
}

// hashOf is the keyed hash by which a link is found. That of an owner and that of
// staff are two, though one person may be both.
func (a *Access) hashOf(ctx context.Context, w issuer.Word) (h [32]byte, err error) {
	b, err := a.vault.Hash(ctx, "access link "+string(w.Use), w.URL+"\x00"+w.Subject)
	if err != nil {
		return h, fmt.Errorf("find link: %w", err)
	}
	if len(b) != len(h) {
		return h, fmt.Errorf("find link: a hash of %d bytes", len(b))
	}
	return [32]byte(b), nil
}

// linkOf returns the live link of a hash, or NotFound.
func (a *Access) linkOf(ctx context.Context, hash [32]byte) (*credential, error) {
	a.mu.Lock()
	id, turn := a.links[hash], a.turn
	a.mu.Unlock()
	if id.IsZero() {
		err := a.catalog.Read(ctx, func(tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, `SELECT id FROM access_credential WHERE proof_hash = $1 AND kind = 3 AND revoked = 0`, hash[:]).Scan(&id)
		})
		if errors.Is(err, sql.ErrNoRows) {
			return nil, holdfast.Errorf(holdfast.NotFound, "there is no such link")
		}
		if err != nil {
			return nil, fmt.Errorf("find link: %w", err)
		}
		a.mu.Lock()
		if a.turn == turn {
			if len(a.links) >= maxKnown {
				clear(a.links)
			}
			a.links[hash] = id
		}
		a.mu.Unlock()
	}
	return a.lookUp(ctx, id)
}

// meet makes the link of a subject who was never here, where the operator wants
// that: staff by what the issuer says of them, owners if they need no invitation. A
// link that was ended is not made again.
func (a *Access) meet(ctx context.Context, w issuer.Word, hash [32]byte, role Role) (*credential, error) {
	if role == Owner && (!w.MakeParties || a.addParty == nil) || role.staff() && a.operating == nil {
		return nil, a.refusal("not linked")
	}
	a.making.Lock()
	defer a.making.Unlock()
	if c, err := a.linkOf(ctx, hash); holdfast.KindOf(err) != holdfast.NotFound {
		return c, err // another request was faster
	}
	var ended int
	err := a.catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_credential WHERE proof_hash = $1 AND kind = 3`, hash[:]).Scan(&ended)
	})
	if err != nil {
		return nil, fmt.Errorf("make link: %w", err)
	}
	if ended > 0 {
		return nil, a.refusal("link ended")
	}
	if !a.newcomers.Spend(w.URL, a.now()) {
		return nil, holdfast.Errorf(holdfast.Unavailable, "too many are new at once: try again in a minute")
	}
	id := newID()
	var party holdfast.PartyID
	if role == Owner {
		party, err = a.addParty(ctx, id, partyName(w.Name))
	} else {
		party, err = a.operating(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("make link: %w", err)
	}
	m, err := a.prepareLink(ctx, id, w, hash, party, role)
	if err != nil {
		return nil, err
	}
	if role.staff() {
		m.settled = a.now().Add(settleAfter).UnixNano()
	}
	if err := a.catalog.Write(ctx, func(tx *sql.Tx) error { return a.insert(ctx, tx, m) }); err != nil {
		return nil, fmt.Errorf("make link: %w", err)
	}
	return a.linkOf(ctx, hash)
}

// partyName is what a party is called that an issuer's word made: what the issuer
// calls it, and letters that nobody chooses, so that nobody can take another's name.
func partyName(name string) string {
	name = strings.TrimSpace(name)
	if len(name) > holdfast.MaxNameBytes/2 || holdfast.CheckName("party", name) != nil {
		name = "login"
	}
	return name + " " + newID().String()[:8]
}

func (a *Access) prepareLink(ctx context.Context, id holdfast.CredentialID, w issuer.Word, hash [32]byte, party holdfast.PartyID, role Role) (*making, error) {
	now := a.now()
	label := w.Name
	if holdfast.CheckName("credential", label) != nil {
		label = "login"
	}
	s, err := Spec{Label: label, Party: party, Role: role}.checked()
	if err != nil {
		return nil, err
	}
	m := &making{credential: credential{id: id, kind: Link, proof: hash, party: party, role: role, scopes: s.Scopes, about: about{Label: s.Label, Issuer: w.URL},
		made: now.UnixNano(), notAfter: now.Add(linkLife).UnixNano(), holder: id, since: now.UnixNano()}}
	if m.box, err = vault.SealJSON(ctx, a.vault, keeper(role, party), credentialTable, id[:], "about", m.about); err != nil {
		return nil, fmt.Errorf("seal link %s: %w", id, err)
	}
	return m, nil
}

// ownLogin verifies a token that is to be linked to an owner.
func (a *Access) ownLogin(ctx context.Context, text string) (issuer.Word, [32]byte, error) {
	w, err := a.issuers.Verify(ctx, text)
	if err != nil {
		if reason, ok := issuer.ReasonOf(err); ok {
			return w, [32]byte{}, a.refusal("issuer: " + string(reason))
		}
		return w, [32]byte{}, err
	}
	if w.Use != issuer.Owners {
		return w, [32]byte{}, holdfast.Errorf(holdfast.Denied, "this issuer is for staff: nobody is an owner by its word")
	}
	hash, err := a.hashOf(ctx, w)
	if err != nil {
		return w, hash, err
	}
	if _, err := a.linkOf(ctx, hash); err == nil {
		return w, hash, errLinked()
	} else if holdfast.KindOf(err) != holdfast.NotFound {
		return w, hash, err
	}
	return w, hash, nil
}

func errLinked() error {
	return holdfast.Errorf(holdfast.Conflict, "this login is linked to a party already: end that link first")
}

// redeemLink links a login to the party of an invitation.
func (a *Access) redeemLink(ctx context.Context, r Redemption, id holdfast.CredentialID, party holdfast.PartyID, settled bool, now time.Time) (Made, error) {
	if len(a.issuers.All()) == 0 || r.CSR != nil {
		return Made{}, holdfast.Errorf(holdfast.Invalid, "an invitation is redeemed for a token, for a certificate, or for a login of an issuer that this hub knows")
	}
	w, hash, err := a.ownLogin(ctx, r.Login)
	if err != nil {
		return Made{}, fmt.Errorf("redeem invitation: %w", err)
	}
	m, err := a.prepareLink(ctx, id, w, hash, party, Owner)
	if err != nil {
		return Made{}, fmt.Errorf("redeem invitation: %w", err)
	}
	m.invited = true
	if err := a.insertInvited(ctx, m, settled, now); err != nil {
		return Made{}, fmt.Errorf("redeem invitation: %w", linked(err))
	}
	return m.handOut(), nil
}

// Link lets an owner log in by an issuer's word, too: whoever the token is about.
func (a *Access) Link(ctx context.Context, by Principal, login string) (Made, error) {
	if !by.Can(ScopeWrite) {
		return Made{}, errReadOnly()
	}
	if err := by.inPerson(); err != nil {
		return Made{}, err
	}
	if by.Role != Owner {
		return Made{}, holdfast.Errorf(holdfast.Denied, "an owner links a login, with his own credential")
	}
	w, hash, err := a.ownLogin(ctx, login)
	if err != nil {
		return Made{}, fmt.Errorf("link login: %w", err)
	}
	m, err := a.prepareLink(ctx, newID(), w, hash, by.Party, Owner)
	if err != nil {
		return Made{}, fmt.Errorf("link login: %w", err)
	}
	m.by, m.madeBy, m.settled = &by.Credential, by.Holder, settledBy(by, a.now())
	if err := a.catalog.Write(ctx, func(tx *sql.Tx) error { return a.insert(ctx, tx, m) }); err != nil {
		return Made{}, fmt.Errorf("link login: %w", linked(err))
	}
	return m.handOut(), nil
}

// linked says what a conflict of two links means.
func linked(err error) error {
	if holdfast.KindOf(err) == holdfast.Conflict {
		return errLinked()
	}
	return err
}

// RoleChanged is the ledger's payload of "role changed".
type RoleChanged struct {
	Credential holdfast.CredentialID `json:"credential"`
	From       Role                  `json:"from"`
	To         Role                  `json:"to"`
	At         time.Time             `json:"at"`
}

// changeRole follows what the issuer says of staff. What is new must settle.
func (a *Access) changeRole(ctx context.Context, c *credential, hash [32]byte, to Role) (*credential, error) {
	now := a.now()
	s, err := Spec{Label: "login", Party: c.party, Role: to}.checked()
	if err != nil {
		return nil, err
	}
	err = a.catalog.Write(ctx, func(tx *sql.Tx) error {
		u, err := tx.ExecContext(ctx, `UPDATE access_credential SET role = $1, scopes = $2, settled = $3 WHERE id = $4 AND role = $5 AND revoked = 0`,
			int(to), int(s.Scopes), now.Add(settleAfter).UnixNano(), c.id, int(c.role))
		if err != nil {
			return err
		}
		if n, err := u.RowsAffected(); err != nil || n == 0 {
			return err // another request did it
		}
		_, err = a.ledger.Append(ctx, tx, vault.OfParty(c.party), "role changed", RoleChanged{Credential: c.id, From: c.role, To: to, At: now.UTC()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("change role of link %s: %w", c.id, err)
	}
	a.forget(c.id)
	return a.linkOf(ctx, hash)
}

// forget drops what is known of a credential that changed.
func (a *Access) forget(id holdfast.CredentialID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.known, id)
	clear(a.links)
	a.turn++
}

// Issuers returns who is believed. They must not be modified.
func (a *Access) Issuers() []*issuer.Config { return a.issuers.All() }
