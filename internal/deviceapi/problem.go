package deviceapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// status is the one table from kinds of error to statuses.
func status(err error) int {
	switch {
	case errors.Is(err, errNobody):
		return http.StatusUnauthorized
	case errors.Is(err, errPace):
		return http.StatusTooManyRequests
	}
	if _, ok := errors.AsType[*overQuota](err); ok {
		return http.StatusTooManyRequests
	}
	switch holdfast.KindOf(err) {
	case holdfast.Invalid:
		return http.StatusBadRequest
	case holdfast.Denied:
		return http.StatusForbidden
	case holdfast.NotFound:
		return http.StatusNotFound
	case holdfast.Conflict:
		return http.StatusConflict
	case holdfast.TooLarge:
		return http.StatusRequestEntityTooLarge
	case holdfast.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

var (
	errNobody = holdfast.Errorf(holdfast.Denied, "present the client certificate of a device: enrol to get one")
	// As unavailable it ends the connection.
	errConnections = holdfast.Errorf(holdfast.Unavailable, "the device has too many connections: close some")

	errPace = holdfast.Errorf(holdfast.Unavailable, "the device sends too many requests: put more readings in each")
)

// problem is RFC 9457's document. Error, Code and Message are where clients of
// InfluxDB v1 and v2 look for the reason.
type problem struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail,omitempty"`
	Error   string `json:"error,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

// problem answers with what went wrong. What is ours goes to the log, not to the
// caller.
func (a *API) problem(w http.ResponseWriter, r *http.Request, err error) {
	p := problem{Type: "about:blank", Title: holdfast.KindOf(err).String(), Status: status(err)}
	if e, ok := errors.AsType[*holdfast.Error](err); ok && p.Status != http.StatusInternalServerError {
		p.Detail = e.Error()
	}
	h := w.Header()
	switch p.Status {
	case http.StatusInternalServerError:
		a.o.Logger.ErrorContext(r.Context(), "deviceapi: request failed", "route", r.Pattern, "error", err)
		h.Set("Connection", "close")
	case http.StatusServiceUnavailable:
		a.warnings.Do(func() { // all devices meet it at once
			a.o.Logger.WarnContext(r.Context(), "deviceapi: readings not taken in", "route", r.Pattern, "error", err)
		})
		h.Set("Retry-After", strconv.Itoa(retryAfter))
		h.Set("Connection", "close")
	case http.StatusTooManyRequests:
		after := time.Second
		if q, ok := errors.AsType[*overQuota](err); ok {
			after = max(after, min(q.owed, time.Hour))
		}
		h.Set("Retry-After", strconv.Itoa(int((after+time.Second-1)/time.Second)))
	case http.StatusRequestEntityTooLarge:
		h.Set("Connection", "close") // the rest of the body is not waited for
	}
	switch r.URL.Path {
	case "/write":
		p.Error = p.Detail
	case "/api/v2/write":
		p.Code, p.Message = p.Title, p.Detail
	}
	body, err := json.Marshal(p)
	if err != nil { // of texts and a number it has no error
		panic(err)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	w.Write(append(body, '\n'))
}

// retryAfter is in seconds.
const retryAfter = 5
