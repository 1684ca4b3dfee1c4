package deviceapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// maxWait is how long a request waits for something to do.
const maxWait = time.Minute

// question is what a request for commands or state says in its address.
type question struct {
	child string
	wait  time.Duration
	after holdfast.CommandID
}

func questionOf(r *http.Request, known ...string) (q question, err error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, holdfast.Errorf(holdfast.Invalid, "the query can't be read")
	}
	for name, texts := range values {
		text := texts[0]
		switch {
		case len(texts) > 1 || !strings.Contains(" "+strings.Join(known, " ")+" ", " "+name+" "):
			return q, holdfast.Errorf(holdfast.Invalid, "the query takes %s, each once", strings.Join(known, ", "))
		case name == "child":
			if err := holdfast.CheckName("child", text); err != nil {
				return q, err
			}
			q.child = text
		case name == "after":
			if q.after, err = holdfast.ParseID[holdfast.CommandID](text); err != nil {
				return q, holdfast.Errorf(holdfast.Invalid, "after is the id of a command")
			}
		case name == "wait":
			if n, bad := strconv.Atoi(text); bad == nil {
				q.wait = time.Duration(n) * time.Second
			} else if q.wait, err = time.ParseDuration(text); err != nil {
				return q, holdfast.Errorf(holdfast.Invalid, "wait is a duration like 30s")
			}
			if q.wait < 0 || q.wait > maxWait {
				return q, holdfast.Errorf(holdfast.Invalid, "a request waits at most %s", maxWait)
			}
		}
	}
	return q, nil
}

// commands answers with what the device is to do.
func (a *API) commands(w http.ResponseWriter, r *http.Request, p identity.Peer) error {
	q, err := questionOf(r, "wait", "child", "after")
	if err != nil {
		return err
	}
	all, err := a.d.Twin.Poll(r.Context(), p, q.child, q.after, q.wait)
	if err != nil {
		return a.gone(r, err)
	}
	orders := make([]twin.Order, 0, len(all))
	for _, c := range all {
		orders = append(orders, c.Order())
	}
	return a.json(w, map[string]any{"commands": orders})
}

// gone takes the end of a request for what it is: nobody is there to be answered.
func (a *API) gone(r *http.Request, err error) error {
	if r.Context().Err() != nil {
		return holdfast.Errorf(holdfast.Unavailable, "the request has ended")
	}
	return err
}

func (a *API) json(w http.ResponseWriter, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	_, err = w.Write(append(text, '\n'))
	if err != nil {
		panic(http.ErrAbortHandler) // the answer has begun: who asked has gone
	}
	return nil
}

// result takes what the device says of a command.
func (a *API) result(w http.ResponseWriter, r *http.Request, p identity.Peer) error {
	q, body, release, err := a.said(w, r)
	if err != nil {
		return err
	}
	defer release()
	if err := a.d.Twin.Result(context.WithoutCancel(r.Context()), p, q.child, r.PathValue("id"), body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// said reads the body of a request that is about the device or a child of it.
func (a *API) said(w http.ResponseWriter, r *http.Request) (q question, body []byte, release func(), err error) {
	if q, err = questionOf(r, "child"); err != nil {
		return q, nil, nil, err
	}
	if media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); media == "application/cbor" {
		return q, nil, nil, holdfast.Errorf(holdfast.Invalid, "results and state are JSON")
	}
	body, release, err = a.body(w, r)
	return q, body, release, err
}

// desired answers with how the device shall be. With If-None-Match it waits for
// another version than that.
func (a *API) desired(w http.ResponseWriter, r *http.Request, p identity.Peer) error {
	q, err := questionOf(r, "wait", "child")
	if err != nil {
		return err
	}
	have := int64(-1)
	if tag := r.Header.Get("If-None-Match"); tag != "" {
		if have, err = strconv.ParseInt(strings.Trim(strings.TrimPrefix(tag, "W/"), `"`), 10, 64); err != nil || have < 0 {
			return holdfast.Errorf(holdfast.Invalid, `If-None-Match has the ETag of an answer before, like "3"`)
		}
	}
	d, err := a.d.Twin.DesiredFor(r.Context(), p, q.child, have, q.wait)
	if err != nil {
		return a.gone(r, err)
	}
	w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(d.Version, 10)))
	if d.Version == have {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return a.json(w, d)
}

// reported takes how the device is: all of it by PUT, what has changed by PATCH.
func (a *API) reported(w http.ResponseWriter, r *http.Request, p identity.Peer) error {
	q, body, release, err := a.said(w, r)
	if err != nil {
		return err
	}
	defer release()
	version, err := a.d.Twin.Report(context.WithoutCancel(r.Context()), p, q.child, twin.Change{Patch: r.Method == http.MethodPatch, State: body})
	if err != nil {
		return err
	}
	w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(version, 10)))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
