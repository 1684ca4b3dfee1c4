// Package issuer checks the word of somebody else who knows people: JSON Web Tokens
// (RFC 7519) of the OpenID Connect providers that the operator named, such as a
// maker's own login.
//
// It promises that a token is believed only if a key of its issuer signed it with an
// algorithm that the operator allows (never none, never a shared secret), for this
// hub's audience, within its times give or take a minute and a day at most; that an
// unknown key id makes it ask the issuer at most once in half a minute; and that an
// issuer who is away stops nobody whose key is known already.
//
// It makes connections to the configured issuers only, when a token of theirs is
// shown. It knows no parties and no roles: package access makes people of it.
package issuer

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/holdfast-iot/holdfast"
)

const (
	maxToken = 8 << 10
	maxName  = 255         // bytes of an issuer's or a subject's name
	skew     = time.Minute // between this clock and an issuer's
	maxAge   = 24 * time.Hour
)

// Word is what an issuer said of who is there.
type Word struct {
	*Config
	Subject       string
	Name          string    // "" if the issuer says none, or none is wanted
	Until         time.Time // from then on it must be said again
	Factor        bool      // a second factor was shown lately
	Administrator bool      // of staff
	Auditor       bool
}

// Refusal is why a token is not believed. It is for metrics and the operator's log;
// who shows a token is told nothing of it.
type Refusal string

// The reasons.
const (
	Malformed    Refusal = "malformed"
	TooLong      Refusal = "too long"
	Stranger     Refusal = "unknown issuer or audience"
	Algorithm    Refusal = "algorithm"
	UnknownKey   Refusal = "unknown key"
	BadSignature Refusal = "signature"
	Expired      Refusal = "expired"
	NotYet       Refusal = "not yet valid"
	NotALogin    Refusal = "not a login"
)

func (r Refusal) Error() string { return string(r) }

func refuse(r Refusal) error {
	return holdfast.Errorf(holdfast.Denied, "the issuer's token is not accepted: %w", r)
}

// ReasonOf returns why a token was not believed.
func ReasonOf(err error) (Refusal, bool) { return errors.AsType[Refusal](err) }

// Options tunes Issuers; the zero value works.
type Options struct {
	Now func() time.Time // default time.Now
	Log *slog.Logger     // default: nothing is logged
}

// Issuers are those who are believed. It is safe for concurrent use.
type Issuers struct {
	all  []*Config
	keys []*keys // of the same index
	now  func() time.Time
}

// Open checks the configurations and reads their files. It makes no connection.
func Open(configs []Config, o Options) (*Issuers, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Issuers{now: o.Now}
	for _, c := range configs {
		if err := c.complete(); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(s.all, func(other *Config) bool { return other.URL == c.URL && other.Audience == c.Audience }) {
			return nil, holdfast.Errorf(holdfast.Invalid, "issuer %s stands twice with the same audience", c.URL)
		}
		k, err := newKeys(&c, o)
		if err != nil {
			return nil, err
		}
		s.all, s.keys = append(s.all, &c), append(s.keys, k)
	}
	return s, nil
}

// All returns who is believed. They must not be modified.
func (s *Issuers) All() []*Config {
	if s == nil {
		return nil
	}
	return s.all
}

// Looks reports whether a text may be a token of an issuer, in the compact form.
func Looks(text string) bool {
	return strings.HasPrefix(text, "ey") && strings.Count(text, ".") == 2
}

// Verify returns the issuer's word. What is refused is Denied, with a Refusal in its
// chain; Unavailable says that the issuer's keys can't be had now.
func (s *Issuers) Verify(ctx context.Context, text string) (Word, error) {
	c, k, err := s.choose(text)
	if err != nil {
		return Word{}, err
	}
	algorithms := make([]jose.SignatureAlgorithm, len(c.Algorithms))
	for i, a := range c.Algorithms {
		algorithms[i] = jose.SignatureAlgorithm(a)
	}
	signed, err := jose.ParseSignedCompact(text, algorithms)
	if err != nil {
		return Word{}, refuse(Algorithm) // its form was looked at before
	}
	if t, _ := signed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType].(string); strings.EqualFold(t, "logout+jwt") {
		return Word{}, refuse(NotALogin)
	}
	proof := &once{keys: k, signed: signed}
	token, err := oidc.NewVerifier(c.URL, proof, &oidc.Config{
		ClientID: c.Audience, SupportedSigningAlgs: c.Algorithms, SkipExpiryCheck: true, // times are looked at below, more narrowly
	}).Verify(ctx, text)
	switch {
	case proof.err != nil:
		return Word{}, proof.err
	case err != nil:
		return Word{}, refuse(Malformed)
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return Word{}, refuse(Malformed)
	}
	return c.word(claims, token, s.now())
}

// once is the signature's part of one verification; it keeps the error, which go-oidc
// makes a text of.
type once struct {
	keys   *keys
	signed *jose.JSONWebSignature
	err    error
}

func (o *once) VerifySignature(ctx context.Context, _ string) (payload []byte, err error) {
	payload, o.err = o.keys.verify(ctx, o.signed)
	return payload, o.err
}

// choose finds whose token it says it is. It believes nothing yet.
func (s *Issuers) choose(text string) (*Config, *keys, error) {
	if len(text) > maxToken {
		return nil, nil, refuse(TooLong)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, nil, refuse(Malformed)
	}
	var payload []byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil || len(b) == 0 && i < 2 {
			return nil, nil, refuse(Malformed)
		}
		if i == 1 {
			payload = b
		}
	}
	var says struct {
		Issuer   string   `json:"iss"`
		Audience audience `json:"aud"`
	}
	if json.Unmarshal(payload, &says) != nil {
		return nil, nil, refuse(Malformed)
	}
	found := -1
	for i, c := range s.all {
		if c.URL != says.Issuer || !slices.Contains(says.Audience, c.Audience) {
			continue
		}
		if found >= 0 { // an owner's and a member of staff's at once
			return nil, nil, refuse(Stranger)
		}
		found = i
	}
	if found < 0 {
		return nil, nil, refuse(Stranger)
	}
	return s.all[found], s.keys[found], nil
}

// audience is one text or several.
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// word looks at what a token says, whose signature is right.
func (c *Config) word(claims map[string]any, token *oidc.IDToken, now time.Time) (Word, error) {
	w := Word{Config: c, Subject: token.Subject}
	if w.Subject == "" || len(w.Subject) > maxName || !utf8.ValidString(w.Subject) || strings.ContainsRune(w.Subject, 0) {
		return Word{}, refuse(Malformed)
	}
	if _, ends := claims["events"]; ends { // a logout or another event about the subject, which is no login
		return Word{}, refuse(NotALogin)
	}
	issued, ok := instant(claims["iat"])
	expires, alsoOK := instant(claims["exp"])
	if !ok || !alsoOK {
		return Word{}, refuse(Malformed)
	}
	if begins, ok := instant(claims["nbf"]); ok && begins.After(now.Add(skew)) || !ok && claims["nbf"] != nil {
		return Word{}, refuse(NotYet)
	}
	if issued.After(now.Add(skew)) {
		return Word{}, refuse(NotYet)
	}
	w.Until = expires.Add(skew)
	if oldest := issued.Add(maxAge); w.Until.After(oldest) {
		w.Until = oldest
	}
	if !now.Before(w.Until) {
		return Word{}, refuse(Expired)
	}
	if c.NameClaim != "" {
		w.Name, _ = find(claims, c.NameClaim).(string)
	}
	w.Factor = c.SecondFactor.shown(claims, now)
	w.Administrator = c.Use == Staff && c.Administrators.fits(claims)
	w.Auditor = c.Use == Staff && !w.Administrator && c.Auditors.fits(claims)
	return w, nil
}

// instant reads seconds since 1970, as JSON has them.
func instant(v any) (time.Time, bool) {
	s, ok := v.(float64)
	if !ok || s < 0 || s > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(s), 0).UTC(), true
}
