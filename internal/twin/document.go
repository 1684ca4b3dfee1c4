package twin

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
)

// checked returns JSON without space, within its bounds.
func checked(what string, b []byte, most int) (json.RawMessage, error) {
	switch {
	case len(b) > most:
		return nil, holdfast.Errorf(holdfast.TooLarge, "%s has at most %d bytes", what, most)
	case !utf8.Valid(b) || !json.Valid(b):
		return nil, holdfast.Errorf(holdfast.Invalid, "%s must be JSON, in UTF-8", what)
	case depth(b) > MaxDepth:
		return nil, holdfast.Errorf(holdfast.Invalid, "%s has at most %d levels of objects and lists", what, MaxDepth)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// depth is how deep valid JSON is.
func depth(b []byte) (deepest int) {
	level, text := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// object reads a document, whose numbers stay as they were written.
func object(what string, b []byte) (map[string]any, error) {
	b, err := checked(what, b, MaxDocument)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s must be a JSON object", what)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s must be one JSON object", what)
	}
	return m, nil
}

// stored writes a document as it is kept: bounds count what it is, not how it came.
func stored(what string, m map[string]any) (json.RawMessage, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return nil, err
	}
	return checked(what, bytes.TrimSuffix(out.Bytes(), []byte("\n")), MaxDocument)
}

// merge applies a merge patch (RFC 7396).
func merge(to, patch map[string]any) map[string]any {
	out := make(map[string]any, len(to)+len(patch))
	for k, v := range to {
		out[k] = v
	}
	for k, v := range patch {
		switch p := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			under, _ := out[k].(map[string]any)
			out[k] = merge(under, p)
		default:
			out[k] = v
		}
	}
	return out
}

// delta is what of desired the device has not reported: its members whose values
// differ, and of objects what differs in them.
func delta(desired, reported map[string]any) map[string]any {
	out := map[string]any{}
	for k, want := range desired {
		have, ok := reported[k]
		w, both := want.(map[string]any)
		h, object := have.(map[string]any)
		switch {
		case ok && both && object:
			if d := delta(w, h); len(d) > 0 {
				out[k] = d
			}
		case !ok || !equal(want, have):
			out[k] = want
		}
	}
	return out
}

// equal compares values of JSON; 1 and 1.0 are one number.
func equal(a, b any) bool {
	switch x := a.(type) {
	case json.Number:
		y, ok := b.(json.Number)
		if !ok || x == y {
			return ok
		}
		f, err := x.Float64()
		g, other := y.Float64()
		return err == nil && other == nil && f == g && !(integral(x) && integral(y))
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !equal(x[i], y[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k := range x {
			if other, ok := y[k]; !ok || !equal(x[k], other) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}

// integral reports whether a number is written as an integer: two such that are
// written differently differ, also beyond what a float tells apart.
func integral(n json.Number) bool { return !bytes.ContainsAny([]byte(n), ".eE") }
