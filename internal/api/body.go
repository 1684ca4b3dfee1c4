package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
)

const (
	maxBody  = 64 << 10 // of a request in JSON, where its route does not say otherwise
	maxDepth = 32       // of arrays and objects in it
)

// readJSON reads a body whole and checks what no parser after it does: that it is
// UTF-8, not deeper than any request is, and says each thing once.
// Fields are in lower case, so that none can hide beside another; a file with a
// parser of its own may have others.
func readJSON(w http.ResponseWriter, r *http.Request, most int64, file bool) ([]byte, error) {
	body, err := readBody(w, r, most)
	if err != nil || len(body) == 0 {
		return nil, err
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" && !(r.Method == http.MethodPatch && media == "application/merge-patch+json") {
		return nil, problem(http.StatusUnsupportedMediaType, "send JSON, with Content-Type: application/json")
	}
	return body, checkJSON(body, file)
}

func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, holdfast.Errorf(holdfast.TooLarge, "the body has more than %d bytes", most)
	}
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "the body ended early")
	}
	return body, nil
}

func checkJSON(body []byte, file bool) error {
	if !utf8.Valid(body) {
		return holdfast.Errorf(holdfast.Invalid, "the body is not UTF-8")
	}
	if !json.Valid(body) {
		return holdfast.Errorf(holdfast.Invalid, "the body is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	return checkValue(d, 0, file)
}

// checkValue walks one value of a text that is valid JSON.
func checkValue(d *json.Decoder, depth int, file bool) error {
	if depth > maxDepth {
		return holdfast.Errorf(holdfast.Invalid, "the body is nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("read json: %w", err)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return fmt.Errorf("read json: %w", err)
			}
			name, _ := key.(string)
			if seen[name] {
				return holdfast.Errorf(holdfast.Invalid, "an object of the body has a field twice")
			}
			if !file && name != strings.ToLower(name) {
				return holdfast.Errorf(holdfast.Invalid, "the fields of the body are in lower case")
			}
			seen[name] = true
		}
		if err := checkValue(d, depth+1, file); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// decodeStrict reads a checked body into v for the few routes that huma does not
// read for.
func decodeStrict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil { // its text could quote the body
		return holdfast.Errorf(holdfast.Invalid, "the body has a field that is not known here, or of another type")
	}
	return nil
}
