package promapi

import (
	"errors"
	"net/http"

	"github.com/holdfast-iot/holdfast"
)

// errorType is what Prometheus calls the kind of an error.
type errorType string

const (
	badData     errorType = "bad_data"
	execution   errorType = "execution"
	timedOut    errorType = "timeout"
	canceled    errorType = "canceled"
	internal    errorType = "internal"
	unavailable errorType = "unavailable"
	notFound    errorType = "not_found"
)

// fault is an error that has a kind in Prometheus' words and none in the hub's.
type fault struct {
	kind errorType
	text string
}

func (f *fault) Error() string { return f.text }

// asError is a fault in the hub's words.
func (f *fault) asError() error {
	switch f.kind {
	case timedOut, canceled:
		return holdfast.Errorf(holdfast.Unavailable, "%s", f.text)
	}
	return holdfast.Errorf(holdfast.Invalid, "%s", f.text)
}

// clientClosed is the status that proxies give a request whose sender has gone.
const clientClosed = 499

// statusOf is the table from errors to Prometheus' kinds and statuses. The hub's own
// refusals keep the hub's statuses, which every client takes for what they are. A fault
// of ours says nothing of itself.
func statusOf(err error) (status int, kind errorType, text string) {
	if f, ok := errors.AsType[*fault](err); ok {
		switch f.kind {
		case badData:
			return http.StatusBadRequest, f.kind, f.text
		case timedOut:
			return http.StatusServiceUnavailable, f.kind, f.text
		case canceled:
			return clientClosed, f.kind, f.text
		}
		return http.StatusUnprocessableEntity, f.kind, f.text
	}
	e, ok := errors.AsType[*holdfast.Error](err)
	if !ok {
		return http.StatusInternalServerError, internal, "internal"
	}
	switch e.Kind {
	case holdfast.Invalid:
		return http.StatusBadRequest, badData, e.Error()
	case holdfast.Denied:
		return http.StatusForbidden, execution, e.Error()
	case holdfast.NotFound:
		return http.StatusNotFound, notFound, e.Error()
	case holdfast.Conflict, holdfast.TooLarge:
		return http.StatusUnprocessableEntity, execution, e.Error()
	case holdfast.Unavailable:
		return http.StatusServiceUnavailable, unavailable, e.Error()
	}
	return http.StatusInternalServerError, internal, "internal"
}
