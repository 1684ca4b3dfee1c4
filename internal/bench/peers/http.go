package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// endpoint is a peer's HTTP port.
type endpoint struct {
	base string
	http *http.Client
}

func newEndpoint(port int) endpoint {
	return endpoint{
		base: fmt.Sprintf("http://127.0.0.1:%d", port),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}, Timeout: 5 * time.Minute},
	}
}

// post sends a body and takes nothing but success for an answer.
func (e endpoint) post(ctx context.Context, path string, body []byte) error {
	_, err := e.do(ctx, http.MethodPost, path, body)
	return err
}

// get asks and returns the whole answer.
func (e endpoint) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	return e.do(ctx, http.MethodGet, path+"?"+query.Encode(), nil)
}

func (e endpoint) do(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.base+target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %.200s", method, req.URL.Path, resp.Status, answer)
	}
	return answer, nil
}
