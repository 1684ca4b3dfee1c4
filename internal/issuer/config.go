package issuer

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Use is what an issuer is believed for.
type Use string

// The uses.
const (
	Owners Use = "owners" // a subject is a party in person
	Staff  Use = "staff"  // a subject works for the operating organisation
)

// Config is one issuer. docs/config.md is its page for operators.
type Config struct {
	URL        string   `json:"url"`                  // as its tokens say it (iss), https
	Audience   string   `json:"audience"`             // whom its tokens are for (aud): this hub's name there
	Use        Use      `json:"use"`                  // owners or staff
	Algorithms []string `json:"algorithms,omitempty"` // of signatures; default RS256 and ES256
	Keys       string   `json:"keys,omitempty"`       // of a key set: https address, or a file; default: by discovery
	CA         string   `json:"ca,omitempty"`         // file of authorities (PEM) to trust for its server; default: the system's

	// Of owners.
	NameClaim   string `json:"name_claim,omitempty"`   // what a link is labelled with
	MakeParties bool   `json:"make_parties,omitempty"` // whoever logs in first becomes a party; default: by invitation only

	// Of staff: who is what. Nobody who fits neither gets in.
	Administrators Match `json:"administrators,omitzero"`
	Auditors       Match `json:"auditors,omitzero"`

	// How old accounts are recovered is the issuer's matter: if what it says of a second
	// factor is all that settles its links, age does not.
	SecondFactor     SecondFactor `json:"second_factor,omitzero"`
	SettledByFactors bool         `json:"settled_by_factor_only,omitempty"`

	// Of holdfast login.
	Client string   `json:"client,omitempty"` // public client; default: the audience
	Scopes []string `json:"scopes,omitempty"` // default openid
}

// Match is a claim with values, one of which is enough. A claim in a claim is named
// with a dot between.
type Match struct {
	Claim  string   `json:"claim"`
	Values []string `json:"values"`
}

// SecondFactor says by which words of an issuer a second factor was shown: a class
// (acr) or a method (amr) of authentication, not longer ago than MaxAge.
type SecondFactor struct {
	Classes []string `json:"acr,omitempty"`
	Methods []string `json:"amr,omitempty"`
	Minutes int      `json:"minutes,omitempty"` // since auth_time; default 15, at most 60
}

// signatures are the algorithms that can be allowed: all with a public key.
var signatures = [...]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

const maxConfig = 1 << 20

// Parse reads the file that names issuers: {"issuers": [...]}.
func Parse(r io.Reader) ([]Config, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the file of issuers can't be read: %w", err)
	}
	if len(text) > maxConfig {
		return nil, holdfast.Errorf(holdfast.TooLarge, "the file of issuers is over %d bytes", maxConfig)
	}
	var file struct {
		Issuers []Config `json:"issuers"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the file of issuers is not as docs/config.md says: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, holdfast.Errorf(holdfast.Invalid, "the file of issuers goes on after its end")
	}
	if len(file.Issuers) == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, `the file of issuers names none: {"issuers": [{"url": ..., "audience": ..., "use": "owners"}]}`)
	}
	return file.Issuers, nil
}

// complete fills in defaults and refuses what can't be meant.
func (c *Config) complete() error {
	bad := func(format string, args ...any) error {
		return holdfast.Errorf(holdfast.Invalid, "issuer %s: "+format, append([]any{c.URL}, args...)...)
	}
	if !isHTTPS(c.URL) || len(c.URL) > maxName {
		return holdfast.Errorf(holdfast.Invalid, "an issuer has a url, https, as its tokens say it in iss")
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"RS256", "ES256"}
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(signatures[:], a) {
			return bad("algorithms are %s", strings.Join(signatures[:], ", "))
		}
	}
	if c.Client == "" {
		c.Client = c.Audience
	}
	if len(c.Scopes) == 0 {
		c.Scopes = []string{"openid"}
	}
	f := &c.SecondFactor
	if f.Minutes == 0 {
		f.Minutes = 15
	}
	staffs := c.Administrators.given() || c.Auditors.given()
	switch {
	case c.Audience == "":
		return bad("the audience is missing: whom its tokens are for, so that another program's are none of ours")
	case c.Use != Owners && c.Use != Staff:
		return bad("use is owners or staff")
	case c.Use == Staff && !staffs:
		return bad("say who of them is staff: administrators or auditors, with a claim and values")
	case c.Use == Owners && staffs:
		return bad("administrators and auditors are of an issuer for staff")
	case c.Use == Staff && (c.MakeParties || c.NameClaim != ""):
		return bad("make_parties and name_claim are of an issuer for owners")
	case !c.Administrators.whole() || !c.Auditors.whole():
		return bad("administrators and auditors have a claim and values")
	case f.Minutes < 0 || f.Minutes > 60:
		return bad("a second factor counts for 1 to 60 minutes")
	case c.SettledByFactors && len(f.Classes)+len(f.Methods) == 0:
		return bad("settled_by_factor_only needs second_factor, with acr or amr")
	case strings.Contains(c.Keys, "://") && !isHTTPS(c.Keys):
		return bad("keys is an https address or a file")
	}
	return nil
}

func isHTTPS(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.Fragment == "" && u.RawQuery == ""
}

func (m Match) given() bool { return m.Claim != "" || len(m.Values) > 0 }
func (m Match) whole() bool {
	return !m.given() || m.Claim != "" && len(m.Values) > 0 && !slices.Contains(m.Values, "")
}

func (m Match) fits(claims map[string]any) bool {
	return m.given() && slices.ContainsFunc(texts(find(claims, m.Claim)), func(v string) bool { return slices.Contains(m.Values, v) })
}

func (f SecondFactor) shown(claims map[string]any, now time.Time) bool {
	class, _ := claims["acr"].(string)
	if class == "" || !slices.Contains(f.Classes, class) {
		if !slices.ContainsFunc(texts(claims["amr"]), func(m string) bool { return slices.Contains(f.Methods, m) }) {
			return false
		}
	}
	at, ok := instant(claims["auth_time"])
	return ok && !at.After(now.Add(skew)) && now.Sub(at) <= time.Duration(f.Minutes)*time.Minute
}

// find returns a claim by its name, or by a path with dots.
func find(claims map[string]any, path string) any {
	if v, ok := claims[path]; ok {
		return v
	}
	first, rest, deeper := strings.Cut(path, ".")
	inner, ok := claims[first].(map[string]any)
	if !deeper || !ok {
		return nil
	}
	return find(inner, rest)
}

// texts are those of a claim that is one text or several.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}
