// Package witness speaks C2SP tlog-witness: a log shows each new checkpoint, with a
// proof that it only grew, to somebody who remembers the last one and cosigns.
//
// Client is the log's side, Server the witness's. It promises that a Client returns
// only cosignatures that verify under the witness's key, and that a Server never
// cosigns two trees of a log of which one is not the beginning of the other. What
// goes over the wire is public and signed: neither side trusts the connection.
package witness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
)

// Timeout is how long a witness may take.
const Timeout = 10 * time.Second

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 10

// Client asks one witness.
type Client struct {
	Key  *checkpoint.Witness
	url  string
	http *http.Client
}

// ParseClient reads "URL KEY": the witness's submission prefix and its verifier key.
func ParseClient(text string) (*Client, error) {
	at, key, ok := strings.Cut(strings.TrimSpace(text), " ")
	u, err := url.Parse(at)
	if !ok || err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "a witness is given as 'URL KEY': https://HOST/PREFIX, a space, and its verifier key")
	}
	k, err := checkpoint.ParseWitness(strings.TrimSpace(key))
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &Client{Key: k, url: strings.TrimSuffix(u.String(), "/") + "/add-checkpoint", http: client}, nil
}

// Behind is the witness's answer that it knows the log at another size than was
// supposed.
type Behind struct{ Size uint64 }

func (Behind) Error() string { return "the witness knows the log at another size" }

// Ask shows a checkpoint and returns the cosignature. It is Behind when the proof
// was not from the size that the witness has; Denied when the witness does not know
// the log or its key, Conflict when it holds that the log was changed, and
// Unavailable when it may work later.
func (c *Client) Ask(ctx context.Context, proof checkpoint.Consistency) (checkpoint.Cosignature, error) {
	none := checkpoint.Cosignature{}
	body, err := proof.MarshalText()
	if err != nil {
		return none, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return none, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	r, err := c.http.Do(req)
	if err != nil {
		return none, holdfast.Errorf(holdfast.Unavailable, "the witness can't be reached")
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer))
	if err != nil {
		return none, holdfast.Errorf(holdfast.Unavailable, "the witness's answer broke off")
	}
	switch r.StatusCode {
	case http.StatusOK:
		signed := append(bytes.Clone(proof.Note), answer...)
		if line, ok := checkpoint.Cosigned(signed, c.Key)[c.Key.Name()]; ok {
			return line, nil
		}
		return none, holdfast.Errorf(holdfast.Invalid, "the witness answered without a cosignature that verifies under its key")
	case http.StatusConflict:
		size, err := checkpoint.Size(strings.TrimSuffix(string(answer), "\n"))
		if err != nil || r.Header.Get("Content-Type") != sizeType {
			return none, holdfast.Errorf(holdfast.Conflict, "the witness has another tree of this size")
		}
		return none, Behind{size}
	case http.StatusNotFound:
		return none, holdfast.Errorf(holdfast.Denied, "the witness does not know this log: give its operator the log's public key")
	case http.StatusForbidden:
		return none, holdfast.Errorf(holdfast.Denied, "the witness knows this log under another key: give its operator the log's public key")
	case http.StatusUnprocessableEntity:
		return none, holdfast.Errorf(holdfast.Conflict, "the witness holds that the log did not grow from the tree that it has seen")
	case http.StatusBadRequest:
		return none, holdfast.Errorf(holdfast.Invalid, "the witness did not understand")
	}
	return none, holdfast.Errorf(holdfast.Unavailable, "the witness answered with status %d", r.StatusCode)
}

// sizeType is the media type of the size that a witness has.
const sizeType = "text/x.tlog.size"

// AsBehind returns the size that the witness said it has.
func AsBehind(err error) (uint64, bool) {
	b, ok := errors.AsType[Behind](err)
	return b.Size, ok
}
