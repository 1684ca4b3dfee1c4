package api

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/issuer"
)

//go:embed invitation.html
var invitationPage string

const (
	invitationStyle = `body{font:1.1rem/1.5 system-ui,sans-serif;margin:0;padding:2rem 1rem;background:Canvas;color:CanvasText}` +
		`main{max-width:40rem;margin:auto}label{display:block;margin-top:1rem}input,button{font:inherit;width:100%;box-sizing:border-box;padding:.5rem}` +
		`button{margin-top:1.5rem}pre{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid;padding:1rem}`
	// The link carries the code behind #, where it reaches no server and no log.
	invitationScript = `if(location.hash.length>1){document.getElementById("code").value=location.hash.slice(1);history.replaceState(null,"",location.pathname)}`
)

// Redemption is what a guest sends.
type Redemption struct {
	Code  string `json:"code"`
	CSR   string `json:"csr,omitempty"`
	Label string `json:"label,omitempty"`
}

const maxRedemption = 16 << 10

// invitations registers the way from an invitation to a credential, for programs
// in JSON and for people as a form.
func (a *API) invitations() {
	page := template.Must(template.New("invitation").Parse(invitationPage))
	show := func(w http.ResponseWriter, status int, fault string, made *NewCredential) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src '"+hashOf(invitationStyle)+"'; script-src '"+hashOf(invitationScript)+
			"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		w.WriteHeader(status)
		page.Execute(w, map[string]any{"Style": template.CSS(invitationStyle), "Script": template.JS(invitationScript), "Fault": fault, "Made": made})
	}
	a.plain("GET /v1/invitations", rule{}, func(w http.ResponseWriter, _ *http.Request) { show(w, http.StatusOK, "", nil) })
	a.plain("POST /v1/invitations/redeem", rule{}, func(w http.ResponseWriter, r *http.Request) {
		in, form, err := readRedemption(w, r)
		var made NewCredential
		if err == nil {
			made, err = a.redeem(r, in)
		}
		switch {
		case err != nil && form:
			p := problemOf(err)
			a.report(r.Context(), p, err)
			show(w, p.Status, p.Detail, nil)
		case err != nil:
			a.refuse(w, r, err)
		case form:
			show(w, http.StatusOK, "", &made)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			json.NewEncoder(w).Encode(made)
		}
	})
}

func (a *API) redeem(r *http.Request, in Redemption) (NewCredential, error) {
	csr, err := readCSR(in.CSR)
	if err != nil {
		return NewCredential{}, err
	}
	login := "" // an issuer's token that is shown with the invitation: its subject is linked
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") && issuer.Looks(strings.TrimSpace(token)) {
		login = strings.TrimSpace(token)
	}
	m, err := a.Access.Redeem(r.Context(), access.Redemption{Code: in.Code, CSR: csr, Label: in.Label, From: addressOf(r), Login: login})
	return newCredential(m), err
}

// readRedemption reads JSON, or what a form sends.
func readRedemption(w http.ResponseWriter, r *http.Request) (in Redemption, form bool, err error) {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if media != "application/x-www-form-urlencoded" {
		body, err := readJSON(w, r, maxRedemption, false)
		if err != nil {
			return in, false, err
		}
		return in, false, decodeStrict(body, &in)
	}
	body, err := readBody(w, r, maxRedemption)
	if err != nil {
		return in, true, err
	}
	values, err := url.ParseQuery(string(body))
	if err != nil || !utf8.ValidString(values.Get("code")) || !utf8.ValidString(values.Get("label")) {
		return in, true, holdfast.Errorf(holdfast.Invalid, "the form can't be read")
	}
	return Redemption{Code: values.Get("code"), Label: values.Get("label")}, true, nil
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
