package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/holdfast-iot/holdfast"
)

const (
	freshFor   = 10 * time.Minute // keys are taken as they are so long
	usableFor  = 24 * time.Hour   // so long if the issuer can't be asked
	askAgain   = 30 * time.Second // the least time from one asking to the next
	askTimeout = 5 * time.Second
	maxAnswer  = 256 << 10
	maxKeys    = 64
)

// keys is an issuer's key set. Unlike go-oidc's it forgets a key that the issuer took
// back, and is not made to ask again by tokens with invented key ids.
type keys struct {
	config *Config
	http   *http.Client
	now    func() time.Time
	log    *slog.Logger
	flight singleflight.Group

	mu    sync.Mutex
	all   []jose.JSONWebKey
	at    time.Time // when all was so
	asked time.Time // when that was tried last
}

func newKeys(c *Config, o Options) (*keys, error) {
	k := &keys{config: c, now: o.Now, log: o.Log}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	t.MaxIdleConns, t.IdleConnTimeout = 2, 30*time.Second
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, holdfast.Errorf(holdfast.Invalid, "issuer %s: read ca: %w", c.URL, err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, holdfast.Errorf(holdfast.Invalid, "issuer %s: ca holds no certificate in PEM", c.URL)
		}
	}
	k.http = &http.Client{
		Transport: bounded{t}, Timeout: askTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the operator named the address
	}
	return k, nil
}

// bounded cuts answers off that are longer than any that makes sense.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	}
	return answer, err
}

// verify returns what is signed, if a key of the issuer signed it.
func (k *keys) verify(ctx context.Context, s *jose.JSONWebSignature) ([]byte, error) {
	now := k.now()
	k.mu.Lock()
	all, at, asked := k.all, k.at, k.asked
	k.mu.Unlock()
	old := now.Sub(at) >= freshFor
	may := now.Sub(asked) >= askAgain || now.Before(asked)
	if old && may {
		all, at = k.ask(ctx)
		may = false
	}
	if now.Sub(at) >= usableFor {
		return nil, holdfast.Errorf(holdfast.Unavailable, "the issuer's keys can't be had now: try again later")
	}
	payload, err := match(all, s)
	if err == nil || !may || !errors.Is(err, UnknownKey) {
		return payload, err
	}
	all, _ = k.ask(ctx) // the issuer may have a new key
	return match(all, s)
}

// match tries the keys that a signature names.
func match(all []jose.JSONWebKey, s *jose.JSONWebSignature) ([]byte, error) {
	h := s.Signatures[0].Header
	known := false
	for i := range all {
		if h.KeyID != "" && all[i].KeyID != h.KeyID || all[i].Algorithm != "" && all[i].Algorithm != h.Algorithm {
			continue
		}
		known = true
		if payload, err := s.Verify(&all[i]); err == nil {
			return payload, nil
		}
	}
	if known && h.KeyID != "" {
		return nil, refuse(BadSignature)
	}
	return nil, refuse(UnknownKey)
}

// ask fetches the keys, once for all who wait, and returns what there is then.
func (k *keys) ask(ctx context.Context) ([]jose.JSONWebKey, time.Time) {
	done := k.flight.DoChan("", func() (any, error) {
		fetching, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		all, err := k.fetch(fetching)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.asked = k.now()
		if err != nil {
			k.log.WarnContext(ctx, "the keys of an issuer can't be had", "issuer", k.config.URL, "error", short(err), "known", len(k.all))
		} else {
			k.all, k.at = all, k.asked
		}
		return nil, nil
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all, k.at
}

// short is the beginning of an error, which may quote a server's answer.
func short(err error) string {
	text := err.Error()
	return text[:min(len(text), 200)]
}

func (k *keys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	from := k.config.Keys
	if from != "" && !isHTTPS(from) {
		text, err := os.ReadFile(from)
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		return parseKeys(text)
	}
	if from == "" {
		p, err := oidc.NewProvider(oidc.ClientContext(ctx, k.http), k.config.URL) // it looks that the issuer is the one that was named
		if err != nil {
			return nil, fmt.Errorf("discover issuer: %w", err)
		}
		var found struct {
			Keys string `json:"jwks_uri"`
		}
		if err := p.Claims(&found); err != nil || !isHTTPS(found.Keys) {
			return nil, fmt.Errorf("discover issuer: no https address of its keys: %w", err)
		}
		from = found.Keys
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	answer, err := k.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch keys: the issuer answered %d", answer.StatusCode)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	return parseKeys(text)
}

// parseKeys takes the public keys of a set (RFC 7517) that can sign, and leaves what
// it does not know.
func parseKeys(text []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("read keys: it is no key set in JSON")
	}
	var all []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) != nil || key.Use != "" && key.Use != "sig" {
			continue
		}
		switch p := key.Key.(type) {
		case *rsa.PublicKey:
			if p.N.BitLen() < 2048 {
				continue
			}
		case *ecdsa.PublicKey, ed25519.PublicKey:
		default: // private or shared: never
			continue
		}
		if all = append(all, key); len(all) == maxKeys {
			break
		}
	}
	if len(all) == 0 {
		return nil, errors.New("read keys: no public key for signatures in it")
	}
	return all, nil
}
