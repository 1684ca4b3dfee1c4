package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Options says which hub, who asks, and whom to trust.
type Options struct {
	Hub string // https://HOST:PORT

	// Who asks: a folder with key.pem, cert.pem and ca.pem, or the text of a token,
	// of the hub or of an issuer that it believes; the latter does not say whom to trust.
	// Neither is right for what needs no credential.
	Identity string
	Token    string
	// Code is of the caller's second factor, shown with every request; the hub looks at
	// it where it makes a difference, and takes it once.
	Code string

	// Whom to trust in place of what the identity or the token says: certificates
	// in PEM, the SHA-256 of an authority's public key (SPKI, DER), or the system's
	// authorities, for a hub whose certificate comes from a public one.
	CA          []byte
	Pin         [32]byte
	SystemRoots bool

	// AnyName takes a certificate for whatever name, if CA or the identity's ca.pem
	// signed it for a server: where that authority is one hub's own, and the address
	// comes from this hub itself.
	AnyName bool

	// For names the party in whose place a person asks: a household whose adult he
	// is, or a child whose guardian he is, by name or id. Empty: for himself.
	For string

	// Timeout bounds connecting and waiting for the first byte of an answer, not
	// how long the answer runs; default 30 s.
	Timeout time.Duration
}

// Client asks one hub. It is safe for concurrent use.
type Client struct {
	base          *url.URL
	http          *http.Client
	authorization string        // the header, "" for none
	standsFor     string        // in whose place is asked, "" for oneself
	code          string        // likewise
	pause         time.Duration // the longest wait before a read is repeated
}

// Limits on what a hub may make this side hold.
const (
	maxAnswer  = 64 << 20 // of Do
	maxProblem = 64 << 10
	maxLogin   = 8 << 10 // of a token of an issuer
)

// New makes a client. It reads the identity's files and asks nobody.
func New(o Options) (*Client, error) {
	base, err := parseHub(o.Hub)
	if err != nil {
		return nil, err
	}
	if o.Identity != "" && o.Token != "" {
		return nil, holdfast.Errorf(holdfast.Invalid, "an identity or a token, not both")
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	trust, err := o.trust(base.Hostname())
	if err != nil {
		return nil, err
	}
	c := &Client{code: o.Code, base: base, standsFor: o.For, pause: 10 * time.Second, http: newHTTP(trust, o.Timeout)}
	if o.Token != "" {
		c.authorization = "Bearer " + o.Token
	}
	return c, nil
}

// parseHub reads https://HOST:PORT.
func parseHub(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, holdfast.Errorf(holdfast.Invalid, "a hub's address looks like https://HOST:PORT")
	}
	return &url.URL{Scheme: "https", Host: u.Host}, nil
}

// Hub returns the hub's address.
func (c *Client) Hub() string { return c.base.String() }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Body is a request's body that is not JSON.
type Body struct {
	Type string // the media type
	Data []byte

	IfMatch string // the ETag of what it changes; "": of any
}

// Do sends in as JSON (a Body as it is, nil as nothing) and reads the answer's
// JSON into out (into a *[]byte as it is, nil drops it). path is what follows the
// hub's address, query included.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	body, _, err := c.open(ctx, method, path, nil, in, "application/json")
	if err != nil {
		return err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	switch {
	case err != nil:
		return c.broken(err)
	case len(data) > maxAnswer:
		return holdfast.Errorf(holdfast.TooLarge, "the hub's answer is over %d bytes: ask for less", maxAnswer)
	}
	switch to := out.(type) {
	case nil:
	case *[]byte:
		*to = data
	default:
		if err := json.Unmarshal(data, out); err != nil {
			return holdfast.Errorf(holdfast.Internal, "%s does not answer as a hub does: is it one, of this version?", c.base)
		}
	}
	return nil
}

// Stream is Do for answers that are long or not JSON: the caller reads and closes
// the body. A body that breaks off gives an error from Read, never an early EOF.
func (c *Client) Stream(ctx context.Context, method, path string, query url.Values, in any) (io.ReadCloser, http.Header, error) {
	return c.open(ctx, method, path, query, in, "")
}

// open asks, and asks again where that is harmless and the hub wants it.
func (c *Client) open(ctx context.Context, method, path string, query url.Values, in any, accept string) (io.ReadCloser, http.Header, error) {
	target, err := c.target(path, query)
	if err != nil {
		return nil, nil, err
	}
	body, err := encode(in)
	if err != nil {
		return nil, nil, err
	}
	for attempt := 1; ; attempt++ {
		r, err := c.once(ctx, method, target, body, accept)
		if err != nil {
			return nil, nil, err
		}
		if r.StatusCode/100 == 2 {
			return r.Body, r.Header, nil
		}
		problem := readProblem(r, strings.HasPrefix(c.authorization, "Bearer "))
		wait, again := c.wait(method, attempt, r)
		if !again {
			return nil, nil, problem
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, nil, problem
		}
	}
}

func (c *Client) target(path string, query url.Values) (string, error) {
	u, err := url.Parse(path)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(path, "/") {
		return "", holdfast.Errorf(holdfast.Invalid, "a path begins with /")
	}
	u.Scheme, u.Host = c.base.Scheme, c.base.Host
	if len(query) > 0 {
		q := u.Query()
		for k, v := range query {
			q[k] = append(q[k], v...)
		}
		u.RawQuery = q.Encode()
	}
	return u.String(), nil
}

func encode(in any) (*Body, error) {
	switch b := in.(type) {
	case nil:
		return nil, nil
	case Body:
		return &b, nil
	case *Body:
		return b, nil
	}
	data, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return &Body{Type: "application/json", Data: data}, nil
}

func (c *Client) once(ctx context.Context, method, target string, body *Body, accept string) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body.Data)
	}
	r, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s is not a request that can be sent", method)
	}
	if body != nil {
		r.Header.Set("Content-Type", body.Type)
		if body.IfMatch != "" {
			r.Header.Set("If-Match", body.IfMatch)
		}
	}
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	if c.authorization != "" {
		r.Header.Set("Authorization", c.authorization)
	}
	if c.standsFor != "" {
		r.Header.Set("Holdfast-For", c.standsFor)
	}
	if c.code != "" {
		r.Header.Set("Holdfast-Code", c.code)
	}
	r.Header.Set("User-Agent", "holdfast")
	answer, err := c.http.Do(r)
	if err != nil {
		if why := ctx.Err(); why != nil && errors.Is(err, why) {
			return nil, fmt.Errorf("ask %s: %w", c.base, why)
		}
		return nil, c.broken(err)
	}
	return answer, nil
}
