// Package issuertest is a small OpenID Connect provider on this machine, for tests:
// discovery, keys, and the authorization code flow with PKCE for a person who says
// yes to everything.
package issuertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Claims are what a token says.
type Claims = map[string]any

// Provider is one provider.
type Provider struct {
	URL string
	CA  string // file, PEM

	t      *testing.T
	server *httptest.Server

	mu      sync.Mutex
	key     jose.JSONWebKey // the one that signs
	old     []jose.JSONWebKey
	away    bool
	fetched int
	codes   map[string]url.Values
	person  Claims // who logs in
	client  string
}

// Start starts a provider until the test ends.
func Start(t *testing.T) *Provider {
	t.Helper()
	p := &Provider{t: t, codes: map[string]url.Values{}}
	p.Rotate("first", false)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discover)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	p.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		away := p.away
		p.mu.Unlock()
		if away {
			http.Error(w, "away", http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.server.Close)
	p.URL, p.CA = p.server.URL, filepath.Join(t.TempDir(), "issuer-ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
	if err := os.WriteFile(p.CA, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// Rotate makes a new key; the ones before stay in the set if keep says so.
func (p *Provider) Rotate(id string, keep bool) {
	p.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if keep {
		p.old = append(p.old, p.key)
	} else {
		p.old = nil
	}
	p.key = jose.JSONWebKey{Key: k, KeyID: id, Algorithm: "ES256", Use: "sig"}
}

// Away makes the provider answer nothing any more, or again.
func (p *Provider) Away(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

// Fetched counts how often the keys were asked for.
func (p *Provider) Fetched() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetched
}

// Key returns the key that signs now, with its private part.
func (p *Provider) Key() jose.JSONWebKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key
}

// Set is the public key set.
func (p *Provider) Set() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{p.key.Public()}}
	for _, k := range p.old {
		set.Keys = append(set.Keys, k.Public())
	}
	text, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return text
}

// Token signs claims with the provider's key. iss, iat and exp are filled in unless
// they are there; a claim that is nil is left out.
func (p *Provider) Token(c Claims) string { return p.TokenBy(p.Key(), c) }

// TokenBy is Token with another key.
func (p *Provider) TokenBy(k jose.JSONWebKey, c Claims) string {
	p.t.Helper()
	all := Claims{"iss": p.URL, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, c)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(all)
	if err != nil {
		p.t.Fatal(err)
	}
	return Sign(p.t, k, text, "JWT")
}

// Sign signs a payload. A key without an id makes a token without one.
func Sign(t *testing.T, k jose.JSONWebKey, payload []byte, kind jose.ContentType) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithType(kind)
	var key any = k
	if k.KeyID == "" {
		key = k.Key.(crypto.PrivateKey)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm), Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Person says who logs in next, to which client.
func (p *Provider) Person(client string, c Claims) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.client, p.person = client, c
}

func (p *Provider) discover(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"issuer": p.URL, "jwks_uri": p.URL + "/keys", "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"}, "code_challenge_methods_supported": []string{"S256"},
	})
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	p.fetched++
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Write(p.Set())
}

// authorize sends the browser back with a code.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	p.mu.Lock()
	defer p.mu.Unlock()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || back.Hostname() != "127.0.0.1" || q.Get("client_id") != p.client || q.Get("response_type") != "code" ||
		q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("state") == "" || q.Get("nonce") == "" {
		http.Error(w, "not as it should be", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	p.codes[code] = q
	back.RawQuery = url.Values{"code": {code}, "state": {q.Get("state")}}.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// token gives a token for a code, once, to who knows what its challenge was made of.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	q, ok := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	person, client := p.person, p.client
	p.mu.Unlock()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || q.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || r.PostFormValue("redirect_uri") != q.Get("redirect_uri") {
		w.WriteHeader(http.StatusBadRequest)
		answer(w, map[string]string{"error": "invalid_grant"})
		return
	}
	c := Claims{"aud": client, "nonce": q.Get("nonce")}
	maps.Copy(c, person)
	answer(w, map[string]any{"access_token": p.Token(Claims{"aud": q.Get("resource"), "sub": person["sub"]}), "token_type": "Bearer", "id_token": p.Token(c), "expires_in": 3600})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
