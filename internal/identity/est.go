package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
)

// maxRequest bounds the body of an EST request.
const maxRequest = 32 << 10

// EST answers Enrolment over Secure Transport (RFC 7030) under
// /.well-known/est/: cacerts, simpleenroll (HTTP Basic, device id and secret of
// an enrolment code), simplereenroll (client certificate) and csrattrs. It must
// be served over TLS with DeviceTLS or PeopleTLS. The binding of a request to its
// connection by tls-unique is left out: TLS 1.3 has no such value.
func (i *Identity) EST() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/est/cacerts", i.cacerts)
	mux.HandleFunc("GET /.well-known/est/csrattrs", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /.well-known/est/simpleenroll", i.simpleEnroll)
	mux.HandleFunc("POST /.well-known/est/simplereenroll", i.simpleReenroll)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !i.requests.Spend(budget.Network(r.RemoteAddr), i.now()) {
			tooMany(w, 5)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		mux.ServeHTTP(w, r)
	})
}

func (i *Identity) cacerts(w http.ResponseWriter, r *http.Request) {
	i.answer(w, r, "application/pkcs7-mime", i.authority.root)
}

func (i *Identity) simpleEnroll(w http.ResponseWriter, r *http.Request) {
	device, secret, ok := r.BasicAuth()
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="holdfast enrolment"`)
		http.Error(w, "send the device id and the secret of its enrolment code by HTTP Basic", http.StatusUnauthorized)
		return
	}
	csr, err := readBody(r)
	if err != nil {
		i.refuse(w, r, err, http.StatusUnauthorized)
		return
	}
	c, err := i.Enrol(r.Context(), device, secret, csr, budget.Network(r.RemoteAddr))
	if err != nil {
		i.refuse(w, r, err, http.StatusUnauthorized)
		return
	}
	i.answer(w, r, "application/pkcs7-mime; smime-type=certs-only", c)
}

func (i *Identity) simpleReenroll(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		http.Error(w, "present the certificate that is to be renewed", http.StatusForbidden)
		return
	}
	csr, err := readBody(r)
	if err != nil {
		i.refuse(w, r, err, http.StatusForbidden)
		return
	}
	c, err := i.Renew(r.Context(), *r.TLS, csr)
	if err != nil {
		i.refuse(w, r, err, http.StatusForbidden)
		return
	}
	i.answer(w, r, "application/pkcs7-mime; smime-type=certs-only", c)
}

// answer sends certificates as base64 in lines, which openssl insists on.
func (i *Identity) answer(w http.ResponseWriter, r *http.Request, contentType string, certs ...*x509.Certificate) {
	der, err := certsOnly(certs)
	if err != nil {
		i.refuse(w, r, err, 0)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Transfer-Encoding", "base64")
	w.Header().Set("Cache-Control", "no-store")
	text := base64.StdEncoding.EncodeToString(der)
	var body bytes.Buffer
	for len(text) > 0 {
		n := min(64, len(text))
		body.WriteString(text[:n])
		body.WriteByte('\n')
		text = text[n:]
	}
	w.Write(body.Bytes())
}

// readBody reads a PKCS #10 request in base64 as the RFC asks, or as PEM or DER,
// as openssl writes it when one forgets to strip the frame.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, holdfast.Errorf(holdfast.TooLarge, "a certificate request has at most %d bytes", maxRequest)
		}
		return nil, holdfast.Errorf(holdfast.Invalid, "the certificate request ended early")
	}
	return decodeRequest(body)
}

func decodeRequest(body []byte) ([]byte, error) {
	if len(body) > 0 && body[0] == 0x30 { // a DER sequence; in base64, 0x30 would be the digit 0, which begins no PKCS #10
		return body, nil
	}
	if block, _ := pem.Decode(body); block != nil {
		return block.Bytes, nil
	}
	// What is not base64, line ends apart, DecodeString refuses.
	der, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(body)))
	if err != nil || len(der) == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "the body must be a PKCS #10 certificate request in base64")
	}
	return der, nil
}

// refuse translates kinds of error to statuses; denied is the one for Denied.
func (i *Identity) refuse(w http.ResponseWriter, r *http.Request, err error, denied int) {
	status, text := http.StatusInternalServerError, "internal error"
	switch holdfast.KindOf(err) {
	case holdfast.Invalid:
		status = http.StatusBadRequest
	case holdfast.Denied, holdfast.NotFound:
		status = denied
		if denied == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="holdfast enrolment"`)
		}
	case holdfast.Conflict:
		status = http.StatusConflict
	case holdfast.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case holdfast.Unavailable:
		if errors.Is(err, errLimit) {
			tooMany(w, 60)
			return
		}
		status, text = http.StatusServiceUnavailable, "try again later"
		w.Header().Set("Retry-After", "10")
	}
	if status < 500 {
		e, _ := errors.AsType[*holdfast.Error](err)
		text = e.Error()
	} else {
		i.log.ErrorContext(r.Context(), "enrolment failed", "error", err)
	}
	http.Error(w, text, status)
}

func tooMany(w http.ResponseWriter, seconds int) {
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	http.Error(w, "too many requests: try again later", http.StatusTooManyRequests)
}
