package access

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/issuer"
)

// maxKnown bounds the memory of opened credentials.
const maxKnown = 1 << 14

// errNotAccepted is the one answer to whatever is wrong with a credential.
func errNotAccepted() error {
	return holdfast.Errorf(holdfast.Denied, "the credential is wrong, expired or revoked")
}

// Authenticate returns who makes a request: by its bearer token if it has an
// Authorization header, else by its client certificate. Failed attempts are
// limited by address. What is refused is Denied and does not say why. It alone lets in
// who is Leaving; the caller must see to what he may do.
func (a *Access) Authenticate(ctx context.Context, r *http.Request) (Principal, error) {
	header, from := r.Header.Get("Authorization"), budget.Network(r.RemoteAddr)
	switch {
	case header != "":
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return Principal{}, holdfast.Errorf(holdfast.Denied, "the Authorization header must be of scheme Bearer")
		}
		return a.limited(ctx, from, func() (Principal, error) { return a.bearer(ctx, strings.TrimSpace(token)) })
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		return a.limited(ctx, from, func() (Principal, error) { return a.byCertificate(ctx, *r.TLS) })
	}
	return Principal{}, holdfast.Errorf(holdfast.Denied, "a client certificate or a bearer token is needed")
}

// AuthenticateTLS returns who is at the other end of a connection, by its client
// certificate.
func (a *Access) AuthenticateTLS(ctx context.Context, cs tls.ConnectionState) (Principal, error) {
	return a.staying(a.byCertificate(ctx, cs))
}

func (a *Access) byCertificate(ctx context.Context, cs tls.ConnectionState) (Principal, error) {
	id, fingerprint, err := a.authority.Credential(ctx, cs)
	if err != nil {
		return Principal{}, err
	}
	return a.accept(ctx, id, Certificate, fingerprint)
}

// Bearer returns who holds a token that came by another way than HTTP; from
// names the address that failures are counted for.
func (a *Access) Bearer(ctx context.Context, token, from string) (Principal, error) {
	return a.staying(a.limited(ctx, from, func() (Principal, error) { return a.bearer(ctx, token) }))
}

// limited counts failures. What is right passes however many there were: an
// address may be a whole building's, or a proxy's, and nobody in it shall lock the
// others out. It is noise that is limited; secrets of 256 bits need no more.
func (a *Access) limited(ctx context.Context, from string, try func() (Principal, error)) (Principal, error) {
	p, err := try()
	if holdfast.KindOf(err) != holdfast.Denied {
		return p, err
	}
	return Principal{}, a.failed(ctx, from, "credential refused", err)
}

// ErrTooMany is in the chain of what is answered to who failed too often.
var ErrTooMany = errors.New("too many failed attempts")

func errTooMany() error {
	return holdfast.Errorf(holdfast.Unavailable, "%w: try again in a minute", ErrTooMany)
}

// refusal counts why somebody is not let in, and returns what he hears of it: always
// the same.
func (a *Access) refusal(why string) error {
	a.metrics.refused.WithLabelValues(why).Inc()
	return errNotAccepted()
}

// failed counts a failed attempt and returns what is answered.
func (a *Access) failed(ctx context.Context, from, what string, err error) error {
	if !a.failures.Spend(from, a.now()) || errors.Is(err, ErrTooMany) {
		return errTooMany()
	}
	a.log.WarnContext(ctx, what, "from", from)
	return err
}

func (a *Access) bearer(ctx context.Context, text string) (Principal, error) {
	if issuer.Looks(text) && len(a.issuers.All()) > 0 {
		return a.vouched(ctx, text)
	}
	s, err := ParseToken(text)
	if err != nil {
		return Principal{}, a.refusal("malformed")
	}
	return a.accept(ctx, s.ID, Token, s.hash())
}

func (a *Access) accept(ctx context.Context, id holdfast.CredentialID, k Kind, proof [32]byte) (Principal, error) {
	c, err := a.lookUp(ctx, id)
	switch {
	case holdfast.KindOf(err) == holdfast.NotFound:
		c = new(credential) // compare all the same
	case err != nil:
		return Principal{}, err
	}
	same := subtle.ConstantTimeCompare(c.proof[:], proof[:]) == 1
	if !same || c.kind != k || c.id != id {
		if !c.id.IsZero() && !a.guesses.Spend(string(id[:]), a.now()) {
			// Somebody guesses at one credential, from wherever. Its holder comes in all the
			// same: what is right was accepted above.
			return Principal{}, errors.Join(a.refusal("guessed"), errTooMany())
		}
		return Principal{}, a.refusal("wrong")
	}
	return a.admit(ctx, c, c.principal(a.now()))
}

// admit lets in who has shown what p says, if it still counts.
func (a *Access) admit(ctx context.Context, c *credential, p Principal) (Principal, error) {
	p.Leaving = a.isLeaving(p.Party)
	if err := a.Live(p); err != nil {
		return Principal{}, a.refusal("ended")
	}
	live, err := a.grantsLive(ctx, p.Grants)
	if err != nil {
		return Principal{}, err
	}
	if !live {
		return Principal{}, a.refusal("grants ended")
	}
	p.Settled = p.Settled || a.shownLately(p.Credential)
	a.touch(c)
	return p, nil
}

// Live reports whether p's credential still counts. It reads memory only, so that
// a long stream can ask before each piece.
func (a *Access) Live(p Principal) error {
	a.mu.Lock()
	_, refused := a.refused[p.Credential]
	_, leaving := a.leaving[p.Party]
	a.mu.Unlock()
	if refused || leaving && !p.Leaving || a.now().After(p.NotAfter) {
		return errNotAccepted()
	}
	return nil
}

// Acting returns who a credential is whose holder has asked for something to be done
// while he is away, as long as it counts; Denied after that. It is no use of it.
func (a *Access) Acting(ctx context.Context, id holdfast.CredentialID) (Principal, error) {
	ended := holdfast.Errorf(holdfast.Denied, "the credential that asked for this has expired or was revoked: ask again with another")
	c, err := a.lookUp(ctx, id)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return Principal{}, ended
	}
	if err != nil {
		return Principal{}, err
	}
	p := c.principal(a.now())
	if a.Live(p) != nil {
		return Principal{}, ended
	}
	live, err := a.grantsLive(ctx, p.Grants)
	if err == nil && !live {
		err = ended
	}
	if err != nil {
		return Principal{}, err
	}
	return p, nil
}

// lookUp returns an opened credential, or NotFound. The caller must not modify it.
func (a *Access) lookUp(ctx context.Context, id holdfast.CredentialID) (*credential, error) {
	a.mu.Lock()
	c, turn := a.known[id], a.turn
	a.mu.Unlock()
	if c != nil {
		return c, nil
	}
	err := a.catalog.Read(ctx, func(tx *sql.Tx) (err error) {
		c, err = scanCredential(tx.QueryRowContext(ctx, `SELECT `+credentialColumns+` FROM access_credential WHERE id = $1 AND revoked = 0`, id))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, holdfast.Errorf(holdfast.NotFound, "no live credential %s", id)
	}
	if err != nil {
		return nil, fmt.Errorf("look up credential %s: %w", id, err)
	}
	if err := a.open(ctx, c); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.turn == turn {
		if len(a.known) >= maxKnown {
			clear(a.known)
		}
		a.known[id] = c
	}
	return c, nil
}

// refuse ends credentials in this process, and their connections.
func (a *Access) refuse(ids ...holdfast.CredentialID) {
	cutOff(a.refuseFromNow(ids))
}

func (a *Access) refuseFromNow(ids []holdfast.CredentialID) (open []*tracked) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		for t := range a.tracks[id] {
			open = append(open, t)
		}
		a.refused[id] = struct{}{}
		delete(a.known, id)
		delete(a.used, id)
		delete(a.shown, id)
	}
	clear(a.links)
	clear(a.permits)
	a.turn++
	return open
}

const day = 24 * time.Hour

// touch notes the day of a use, in memory.
func (a *Access) touch(c *credential) {
	today := a.now().UnixNano() / int64(day)
	a.mu.Lock()
	defer a.mu.Unlock()
	if today > c.lastDay && a.used[c.id] < today {
		a.used[c.id] = today
	}
}

// Flush writes the days of last use to the catalog, in one transaction. What a
// crash loses is a day of last use.
func (a *Access) Flush(ctx context.Context) error {
	a.mu.Lock()
	used := a.used
	a.used = make(map[holdfast.CredentialID]int64)
	a.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	err := a.catalog.Write(ctx, func(tx *sql.Tx) error {
		for id, d := range used {
			if _, err := tx.ExecContext(ctx, `UPDATE access_credential SET last_day = $1 WHERE id = $2 AND last_day < $1`, d, id); err != nil {
				return err
			}
		}
		return nil
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, d := range used {
		if c := a.known[id]; c != nil && err == nil {
			written := *c
			written.lastDay = d
			a.known[id] = &written
		}
		if err != nil {
			a.used[id] = max(a.used[id], d)
		}
	}
	if err != nil {
		return fmt.Errorf("record last use of credentials: %w", err)
	}
	return nil
}

// Run flushes every quarter of an hour, and once more when ctx ends.
func (a *Access) Run(ctx context.Context) error {
	t := time.NewTicker(15 * time.Minute)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return a.Flush(last)
		case <-t.C:
			if err := a.Flush(ctx); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "last use of credentials not recorded yet", "error", err)
			}
		}
	}
}
