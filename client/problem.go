package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/holdfast-iot/holdfast"
)

// kindOf is the table from statuses to kinds; what it lacks is Internal.
func kindOf(status int) holdfast.Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return holdfast.Denied
	case http.StatusNotFound, http.StatusGone:
		return holdfast.NotFound
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusLocked:
		return holdfast.Conflict
	case http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		return holdfast.TooLarge
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return holdfast.Unavailable
	}
	if status/100 == 4 {
		return holdfast.Invalid
	}
	return holdfast.Internal
}

// readProblem turns an answer that is not 2xx into an error with its detail, and
// ends the answer.
func readProblem(r *http.Response, token bool) error {
	defer r.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(r.Body, maxProblem)) // what has come of it is enough
	var detail string
	switch media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media {
	case "application/problem+json", "application/json":
		var p struct {
			Detail string `json:"detail"`
			Errors []struct {
				Message  string `json:"message"`
				Location string `json:"location"`
			} `json:"errors"`
		}
		if json.Unmarshal(data, &p) == nil {
			detail = p.Detail
			for i, e := range p.Errors {
				detail += [2]string{": ", "; "}[min(i, 1)] + strings.TrimSpace(strings.TrimPrefix(e.Location, "body.")+" "+e.Message)
			}
		}
	case "text/plain":
		detail = string(data)
	}
	detail = cmp.Or(printable(detail), defaultDetail(r.StatusCode, token))
	return holdfast.Errorf(kindOf(r.StatusCode), "%s", detail)
}

func defaultDetail(status int, token bool) string {
	switch {
	case status == http.StatusUnauthorized && token:
		return "the hub does not know this token: it was revoked, has expired, or is another hub's"
	case status == http.StatusUnauthorized:
		return "the hub does not know who is asking: give an identity or a token of this hub"
	case status/100 == 3:
		return "the hub's address answers with a redirect, which is not followed"
	}
	return "the hub answered " + strconv.Itoa(status) + " " + http.StatusText(status)
}

// printable makes one line of at most 500 characters that a terminal can show.
func printable(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	if r := []rune(s); len(r) > 500 {
		s = string(r[:500]) + "..."
	}
	return s
}

// attempts is how often a read is sent at most.
const attempts = 3

// wait says whether to ask again, and when: for reads, where the hub names a time
// that is not too long.
func (c *Client) wait(method string, attempt int, r *http.Response) (time.Duration, bool) {
	if method != http.MethodGet || attempt >= attempts ||
		r.StatusCode != http.StatusServiceUnavailable && r.StatusCode != http.StatusTooManyRequests {
		return 0, false
	}
	wait := time.Duration(attempt) * time.Second
	if after := r.Header.Get("Retry-After"); after != "" {
		if n, err := strconv.Atoi(after); err == nil && n >= 0 {
			wait = time.Duration(n) * time.Second
		} else if at, err := http.ParseTime(after); err == nil {
			wait = max(0, time.Until(at))
		}
	}
	return wait, wait <= c.pause
}

// broken says what kept us from an answer, and what to do about it.
func (c *Client) broken(err error) error { return unreachable(c.base.String(), err) }

func unreachable(hub string, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if e, ok := errors.AsType[*holdfast.Error](err); ok { // of our own verification
		return holdfast.Errorf(e.Kind, "can't trust %s: %w", hub, e)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return holdfast.Errorf(holdfast.Denied, "can't trust %s: its certificate is not by the authority of this identity or --ca: "+
			"is it another hub, or one that was set up anew?", hub)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		names := append([]string(nil), e.Certificate.DNSNames...)
		for _, ip := range e.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return holdfast.Errorf(holdfast.Denied, "can't trust %s: its certificate is for %s: use one of these names", hub,
			printable(strings.Join(names, ", ")))
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return holdfast.Errorf(holdfast.Denied, "can't trust %s: its certificate is not valid at this machine's time, %s: is the clock right?",
			hub, time.Now().UTC().Format(time.RFC3339))
	}
	// An alert of TLS has no exported type; this is how net names what the other
	// side said.
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		return holdfast.Errorf(holdfast.Denied, "%s refuses the certificate of this identity (%s): if it was revoked or superseded, enrol again",
			hub, printable(e.Err.Error()))
	}
	return holdfast.Errorf(holdfast.Unavailable, "can't reach %s: %s", hub, reason(err))
}

func reason(err error) string {
	dns, isDNS := errors.AsType[*net.DNSError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	_, isPlain := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case isDNS && dns.IsNotFound:
		return "there is no such host"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: is the hub running, and is this its address and port?"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection broke off"
	case isNet && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case isPlain:
		return "it does not speak TLS: is this the right port?"
	case errors.Is(err, fs.ErrNotExist):
		return "no such file"
	}
	return printable(err.Error())
}
