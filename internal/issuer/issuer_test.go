package issuer_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/issuer"
	"github.com/holdfast-iot/holdfast/internal/issuer/issuertest"
)

type claims = issuertest.Claims

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func open(t *testing.T, p *issuertest.Provider, change ...func(*issuer.Config)) (*issuer.Issuers, *clock, *bytes.Buffer) {
	t.Helper()
	c := issuer.Config{URL: p.URL, CA: p.CA, Audience: "hub", Use: issuer.Owners}
	for _, f := range change {
		f(&c)
	}
	at, log := &clock{at: time.Now()}, new(bytes.Buffer)
	s, err := issuer.Open([]issuer.Config{c}, issuer.Options{Now: at.now, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s, at, log
}

func ada(more claims) claims {
	c := claims{"sub": "ada", "aud": "hub"}
	for k, v := range more {
		c[k] = v
	}
	return c
}

func believed(t *testing.T, what string, s *issuer.Issuers, text string) issuer.Word {
	t.Helper()
	w, err := s.Verify(t.Context(), text)
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	return w
}

func refused(t *testing.T, what string, s *issuer.Issuers, text string, want issuer.Refusal) {
	t.Helper()
	_, err := s.Verify(t.Context(), text)
	if got, _ := issuer.ReasonOf(err); got != want || holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("%s: %v, want a refusal for %q", what, err, want)
	}
}

func TestAnIssuersWordIsBelieved(t *testing.T) {
	p := issuertest.Start(t)
	s, at, _ := open(t, p, func(c *issuer.Config) { c.NameClaim = "profile.name" })
	exp := at.now().Add(time.Hour).Truncate(time.Second)
	w := believed(t, "a login", s, p.Token(ada(claims{"exp": exp.Unix(), "profile": claims{"name": "Ada"}})))
	if w.Subject != "ada" || w.URL != p.URL || w.Name != "Ada" || !w.Until.Equal(exp.Add(time.Minute)) || w.Factor || w.Administrator || w.Auditor {
		t.Errorf("%+v", w)
	}
	believed(t, "among several audiences", s, p.Token(ada(claims{"aud": []string{"other", "hub"}})))
	believed(t, "an access token", s, issuertest.Sign(t, p.Key(), payload(t, p, ada(nil)), "at+jwt"))
	unnamed := p.Key()
	unnamed.KeyID = ""
	believed(t, "a token without a key id", s, p.TokenBy(unnamed, ada(nil)))
	if n := p.Fetched(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func payload(t *testing.T, p *issuertest.Provider, c claims) []byte {
	t.Helper()
	c["iss"], c["iat"], c["exp"] = p.URL, time.Now().Unix(), time.Now().Add(time.Hour).Unix()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWhatIsNotBelieved(t *testing.T) {
	p, other := issuertest.Start(t), issuertest.Start(t)
	s, at, log := open(t, p)
	now := at.now()
	good := p.Token(ada(nil))
	parts := strings.Split(good, ".")
	head := func(h string) string { return base64.RawURLEncoding.EncodeToString([]byte(h)) }
	signing := p.Key()
	public, err := x509.MarshalPKIXPublicKey(signing.Public().Key)
	if err != nil {
		t.Fatal(err)
	}
	thief, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := jose.JSONWebKey{Key: thief, KeyID: p.Key().KeyID, Algorithm: "ES256"}
	flipped, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	flipped[10] ^= 1

	for what, c := range map[string]struct {
		text string
		want issuer.Refusal
	}{
		"another issuer's":            {other.Token(ada(nil)), issuer.Stranger},
		"another's key, our name":     {other.Token(ada(claims{"iss": p.URL, "aud": "hub"})), issuer.BadSignature},
		"another program's":           {p.Token(claims{"sub": "ada", "aud": "other"}), issuer.Stranger},
		"for nobody":                  {p.Token(claims{"sub": "ada"}), issuer.Stranger},
		"for part of our name":        {p.Token(claims{"sub": "ada", "aud": "hu"}), issuer.Stranger},
		"its address with a slash":    {p.Token(ada(claims{"iss": p.URL + "/"})), issuer.Stranger},
		"expired":                     {p.Token(ada(claims{"exp": now.Add(-61 * time.Second).Unix(), "iat": now.Add(-time.Hour).Unix()})), issuer.Expired},
		"never expiring":              {p.Token(ada(claims{"exp": nil})), issuer.Malformed},
		"expiring by text":            {p.Token(ada(claims{"exp": "tomorrow"})), issuer.Malformed},
		"a day old, good for a year":  {p.Token(ada(claims{"iat": now.Add(-25 * time.Hour).Unix(), "exp": now.Add(365 * 24 * time.Hour).Unix()})), issuer.Expired},
		"of no time":                  {p.Token(ada(claims{"iat": nil})), issuer.Malformed},
		"not yet valid":               {p.Token(ada(claims{"nbf": now.Add(62 * time.Second).Unix()})), issuer.NotYet},
		"from the future":             {p.Token(ada(claims{"iat": now.Add(62 * time.Second).Unix()})), issuer.NotYet},
		"of nobody":                   {p.Token(claims{"aud": "hub"}), issuer.Malformed},
		"of a subject with a NUL":     {p.Token(ada(claims{"sub": "a\x00da"})), issuer.Malformed},
		"of a long subject":           {p.Token(ada(claims{"sub": strings.Repeat("a", 256)})), issuer.Malformed},
		"a logout":                    {p.Token(ada(claims{"events": claims{"http://schemas.openid.net/event/backchannel-logout": claims{}}})), issuer.NotALogin},
		"a logout by its type":        {issuertest.Sign(t, p.Key(), payload(t, p, ada(nil)), "logout+jwt"), issuer.NotALogin},
		"unsigned":                    {head(`{"alg":"none"}`) + "." + parts[1] + ".", issuer.Algorithm},
		"unsigned, signature kept":    {head(`{"alg":"none"}`) + "." + parts[1] + "." + parts[2], issuer.Algorithm},
		"signature cut off":           {parts[0] + "." + parts[1] + ".", issuer.BadSignature},
		"signature altered":           {parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(flipped), issuer.BadSignature},
		"payload of another":          {parts[0] + "." + strings.Split(p.Token(ada(claims{"sub": "bob"})), ".")[1] + "." + parts[2], issuer.BadSignature},
		"the public key as secret":    {hmac(t, public, payload(t, p, ada(nil))), issuer.Algorithm},
		"by a stranger's key":         {p.TokenBy(forged, ada(nil)), issuer.BadSignature},
		"with a key of its own in it": {embedded(t, thief, payload(t, p, ada(nil))), issuer.UnknownKey},
		"critical and unknown":        {head(`{"alg":"ES256","crit":["x"],"x":1,"kid":"`+p.Key().KeyID+`"}`) + "." + parts[1] + "." + parts[2], issuer.BadSignature},
		"too long":                    {p.Token(ada(claims{"more": strings.Repeat("x", 8<<10)})), issuer.TooLong},
		"no token":                    {"ey.ey.ey", issuer.Malformed},
		"four parts":                  {good + ".x", issuer.Malformed},
		"the JSON form":               {`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, issuer.Malformed},
		"with padding":                {parts[0] + "." + parts[1] + "=." + parts[2], issuer.Malformed},
	} {
		refused(t, what, s, c.text, c.want)
	}
	believed(t, "all the same", s, good)
	believed(t, "expired within the skew", s, p.Token(ada(claims{"exp": now.Add(-50 * time.Second).Unix(), "iat": now.Add(-time.Hour).Unix()})))
	believed(t, "not yet valid within the skew", s, p.Token(ada(claims{"nbf": now.Add(50 * time.Second).Unix()})))
	if strings.Contains(log.String(), "ada") {
		t.Errorf("the log names a subject: %s", log)
	}
}

func hmac(t *testing.T, secret, payload []byte) string {
	return issuertest.Sign(t, jose.JSONWebKey{Key: secret, Algorithm: "HS256", KeyID: "first"}, payload, "JWT")
}

func embedded(t *testing.T, k *ecdsa.PrivateKey, payload []byte) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: k}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOnlyAllowedAlgorithms(t *testing.T) {
	p := issuertest.Start(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys.json")
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: public, KeyID: "ed", Algorithm: "EdDSA", Use: "sig"},
		{Key: small.Public(), KeyID: "rsa", Use: "sig"},
		{Key: []byte("a secret of 256 bits, in the open"), KeyID: "shared", Algorithm: "HS256"},
		{Key: small.Public(), KeyID: "sealing", Use: "enc"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, set, 0o600); err != nil {
		t.Fatal(err)
	}
	ed := p.TokenBy(jose.JSONWebKey{Key: private, KeyID: "ed", Algorithm: "EdDSA"}, ada(nil))
	byRSA := func(algorithm, id string) string {
		return p.TokenBy(jose.JSONWebKey{Key: small, KeyID: id, Algorithm: algorithm}, ada(nil))
	}
	s, _, _ := open(t, p, func(c *issuer.Config) { c.Keys = file })
	refused(t, "Ed25519 where it is not allowed", s, ed, issuer.Algorithm)
	believed(t, "RS256, allowed by default", s, byRSA("RS256", "rsa"))
	refused(t, "PS256 of the same key", s, byRSA("PS256", "rsa"), issuer.Algorithm)
	refused(t, "a key for sealing", s, byRSA("RS256", "sealing"), issuer.UnknownKey)
	s, _, _ = open(t, p, func(c *issuer.Config) { c.Keys, c.Algorithms = file, []string{"EdDSA"} })
	believed(t, "Ed25519 where it is", s, ed)
	refused(t, "the shared key of the set", s, hmac(t, []byte("a secret of 256 bits, in the open"), payload(t, p, ada(nil))), issuer.Algorithm)
	refused(t, "RS256 where it is not allowed", s, byRSA("RS256", "rsa"), issuer.Algorithm)
	if p.Fetched() != 0 {
		t.Error("the issuer was asked though its keys are in a file")
	}
}

// Tokens with invented key ids don't make the hub ask the issuer without end, and
// don't hold a real rotation up for long.
func TestRotationAndInventedKeys(t *testing.T) {
	p := issuertest.Start(t)
	s, at, _ := open(t, p)
	first := p.Token(ada(nil))
	believed(t, "by the first key", s, first)

	invented := p.Key()
	invented.KeyID = "invented"
	at.advance(time.Minute)
	for range 50 {
		refused(t, "an invented key id", s, p.TokenBy(invented, ada(nil)), issuer.UnknownKey)
	}
	if n := p.Fetched(); n != 2 {
		t.Errorf("the keys were fetched %d times", n)
	}
	p.Rotate("second", true)
	refused(t, "by a new key within half a minute of the last asking", s, p.Token(ada(nil)), issuer.UnknownKey)
	at.advance(30 * time.Second)
	believed(t, "by the new key then", s, p.Token(ada(nil)))
	believed(t, "by the old key", s, first)

	p.Rotate("third", false) // the first two are compromised
	at.advance(10 * time.Minute)
	refused(t, "by a key that was taken back", s, first, issuer.UnknownKey)
	believed(t, "by the third", s, p.Token(ada(nil)))
}

func TestAnIssuerThatIsAway(t *testing.T) {
	p := issuertest.Start(t)
	s, at, log := open(t, p)
	text := p.Token(ada(claims{"exp": time.Now().Add(48 * time.Hour).Unix()}))
	p.Away(true)
	for range 3 {
		_, err := s.Verify(t.Context(), text)
		if holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("away from the start: %v", err)
		}
	}
	if n := strings.Count(log.String(), "can't be had"); n != 1 {
		t.Errorf("it was asked %d times within a moment: %s", n, log)
	}
	p.Away(false)
	at.advance(30 * time.Second)
	believed(t, "back", s, text)

	p.Away(true)
	at.advance(23 * time.Hour)
	believed(t, "away, with known keys", s, text)
	at.advance(2 * time.Hour)
	_, err := s.Verify(t.Context(), p.Token(ada(claims{"iat": at.now().Unix(), "exp": at.now().Add(time.Hour).Unix()})))
	if holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("away for over a day: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Verify(ctx, text); err == nil {
		t.Error("believed without keys")
	}
}

func TestAnIssuerThatLiesOfItself(t *testing.T) {
	p, other := issuertest.Start(t), issuertest.Start(t)
	// Discovery that names another issuer than the one that was configured.
	s, err := issuer.Open([]issuer.Config{{URL: p.URL + "/realm", CA: p.CA, Audience: "hub", Use: issuer.Owners}}, issuer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verify(t.Context(), p.Token(ada(claims{"iss": p.URL + "/realm"}))); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("no discovery there: %v", err)
	}
	// A server whose certificate nobody vouches for.
	s, err = issuer.Open([]issuer.Config{{URL: other.URL, Audience: "hub", Use: issuer.Owners}}, issuer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verify(t.Context(), other.Token(ada(nil))); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("an unknown authority: %v", err)
	}
}

func TestStaffAndSecondFactors(t *testing.T) {
	p := issuertest.Start(t)
	s, at, _ := open(t, p, func(c *issuer.Config) {
		c.Use = issuer.Staff
		c.Administrators = issuer.Match{Claim: "realm.roles", Values: []string{"hub-admin"}}
		c.Auditors = issuer.Match{Claim: "sub", Values: []string{"eve"}}
		c.SecondFactor = issuer.SecondFactor{Classes: []string{"gold"}, Methods: []string{"otp", "hwk"}}
	})
	now := at.now().Unix()
	for what, c := range map[string]struct {
		claims                         claims
		administrator, auditor, factor bool
	}{
		"nobody":                {claims{}, false, false, false},
		"an administrator":      {claims{"realm": claims{"roles": []string{"x", "hub-admin"}}}, true, false, false},
		"a role like ours":      {claims{"realm": claims{"roles": []string{"hub-admins", "hub"}}}, false, false, false},
		"roles as one text":     {claims{"realm.roles": "hub-admin"}, true, false, false},
		"the auditor":           {claims{"sub": "eve"}, false, true, false},
		"both":                  {claims{"sub": "eve", "realm.roles": "hub-admin"}, true, false, false},
		"a class":               {claims{"acr": "gold", "auth_time": now - 899}, false, false, true},
		"a method":              {claims{"amr": []string{"pwd", "otp"}, "auth_time": now}, false, false, true},
		"a method long ago":     {claims{"amr": []string{"otp"}, "auth_time": now - 901}, false, false, false},
		"a method some time":    {claims{"amr": []string{"otp"}}, false, false, false},
		"a method in future":    {claims{"amr": []string{"otp"}, "auth_time": now + 120}, false, false, false},
		"a password":            {claims{"amr": []string{"pwd"}, "acr": "silver", "auth_time": now}, false, false, false},
		"an empty class":        {claims{"acr": "", "auth_time": now}, false, false, false},
		"roles that are a flag": {claims{"realm": true}, false, false, false},
	} {
		w := believed(t, what, s, p.Token(ada(c.claims)))
		if w.Administrator != c.administrator || w.Auditor != c.auditor || w.Factor != c.factor {
			t.Errorf("%s: %+v", what, w)
		}
	}
}

func TestBadConfigurations(t *testing.T) {
	for text, want := range map[string]string{
		``:                  "not as docs/config.md says",
		`{}`:                "names none",
		`{"issuers":[]} {}`: "goes on after its end",
		`{"issuers":[{"url":"https://a","audience":"x","use":"owners","algs":["RS256"]}]}`: "unknown field",
	} {
		if _, err := issuer.Parse(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) || holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		`{"url":"http://a.example","audience":"x","use":"owners"}`:                                               "https",
		`{"url":"https://me:pw@a.example","audience":"x","use":"owners"}`:                                        "https",
		`{"url":"https://a.example","use":"owners"}`:                                                             "audience is missing",
		`{"url":"https://a.example","audience":"x"}`:                                                             "owners or staff",
		`{"url":"https://a.example","audience":"x","use":"owners","algorithms":["none"]}`:                        "algorithms are",
		`{"url":"https://a.example","audience":"x","use":"owners","algorithms":["HS256"]}`:                       "algorithms are",
		`{"url":"https://a.example","audience":"x","use":"staff"}`:                                               "who of them is staff",
		`{"url":"https://a.example","audience":"x","use":"staff","administrators":{"claim":"g"}}`:                "claim and values",
		`{"url":"https://a.example","audience":"x","use":"staff","administrators":{"claim":"g","values":[""]}}`:  "claim and values",
		`{"url":"https://a.example","audience":"x","use":"owners","auditors":{"claim":"g","values":["a"]}}`:      "for staff",
		`{"url":"https://a.example","audience":"x","use":"owners","keys":"http://a.example/keys"}`:               "https address or a file",
		`{"url":"https://a.example","audience":"x","use":"owners","settled_by_factor_only":true}`:                "needs second_factor",
		`{"url":"https://a.example","audience":"x","use":"owners","second_factor":{"acr":["a"],"minutes":1000}}`: "60 minutes",
		`{"url":"https://a.example","audience":"x","use":"owners","ca":"/does/not/exist"}`:                       "read ca",
	} {
		configs, err := issuer.Parse(strings.NewReader(`{"issuers":[` + text + `]}`))
		if err == nil {
			_, err = issuer.Open(configs, issuer.Options{})
		}
		if err == nil || !strings.Contains(err.Error(), want) || holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	twice := issuer.Config{URL: "https://a.example", Audience: "x", Use: issuer.Owners}
	if _, err := issuer.Open([]issuer.Config{twice, twice}, issuer.Options{}); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("twice: %v", err)
	}
}

// One token can't be an owner's and a member of staff's at once.
func TestATokenForTwoAudiences(t *testing.T) {
	p := issuertest.Start(t)
	base := issuer.Config{URL: p.URL, CA: p.CA, Audience: "hub", Use: issuer.Owners}
	staff := issuer.Config{URL: p.URL, CA: p.CA, Audience: "hub-staff", Use: issuer.Staff, Administrators: issuer.Match{Claim: "sub", Values: []string{"ada"}}}
	s, err := issuer.Open([]issuer.Config{base, staff}, issuer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if w := believed(t, "the owner", s, p.Token(ada(nil))); w.Use != issuer.Owners {
		t.Errorf("%+v", w)
	}
	if w := believed(t, "the administrator", s, p.Token(ada(claims{"aud": "hub-staff"}))); w.Use != issuer.Staff || !w.Administrator {
		t.Errorf("%+v", w)
	}
	refused(t, "both", s, p.Token(ada(claims{"aud": []string{"hub", "hub-staff"}})), issuer.Stranger)
}

func FuzzVerify(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: k.Public(), KeyID: "first", Algorithm: "ES256"}}})
	if err != nil {
		f.Fatal(err)
	}
	file := filepath.Join(f.TempDir(), "keys.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		f.Fatal(err)
	}
	s, err := issuer.Open([]issuer.Config{{URL: "https://a.example", Audience: "hub", Use: issuer.Owners, Keys: file}}, issuer.Options{})
	if err != nil {
		f.Fatal(err)
	}
	b := base64.RawURLEncoding.EncodeToString
	f.Add(b([]byte(`{"alg":"ES256","kid":"first"}`)) + "." + b([]byte(`{"iss":"https://a.example","aud":"hub","sub":"x","iat":1,"exp":2}`)) + "." + b(make([]byte, 64)))
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := s.Verify(t.Context(), text); err == nil {
			t.Error("believed what nobody signed")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: k.Public(), KeyID: "first", Algorithm: "ES256"}}})
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "keys.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := issuer.Open([]issuer.Config{{URL: "https://a.example", Audience: "hub", Use: issuer.Owners, Keys: file}}, issuer.Options{})
	if err != nil {
		b.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k, KeyID: "first"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	body, err := json.Marshal(claims{"iss": "https://a.example", "aud": "hub", "sub": "x", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		b.Fatal(err)
	}
	signed, err := signer.Sign(body)
	if err != nil {
		b.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Verify(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
}
