package deviceapi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// body reads a request's body, decompressed, within the limits of size and time.
// What it holds in memory is taken from a budget that all requests share, as it
// arrives: who announces much and sends little holds little. release gives it
// back.
func (a *API) body(w http.ResponseWriter, r *http.Request) (data []byte, release func(), err error) {
	m := &meter{api: a}
	defer func() {
		if err != nil {
			m.release()
		}
	}()
	if r.ContentLength > int64(a.o.MaxBody) {
		return nil, nil, a.errBody()
	}
	encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding")))
	if encoding != "" && encoding != "identity" && encoding != "gzip" {
		return nil, nil, holdfast.Errorf(holdfast.Invalid, "a body comes as it is or with Content-Encoding: gzip")
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(a.o.BodyTimeout)); err != nil {
		return nil, nil, err
	}
	data, err = m.readAll(http.MaxBytesReader(w, r.Body, int64(a.o.MaxBody)), int(max(0, r.ContentLength)))
	if err != nil {
		w.Header().Set("Connection", "close")
		return nil, nil, a.readError(err)
	}
	// The body is here: from now on the deadline would only end the wait for the
	// journal.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	if encoding == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err == nil {
			data, err = m.readAll(z, 0)
		}
		if holdfast.KindOf(err) != holdfast.Internal {
			return nil, nil, err
		}
		if err != nil {
			return nil, nil, holdfast.Errorf(holdfast.Invalid, "the body is not gzip, or is cut short")
		}
	}
	return data, m.release, nil
}

func (a *API) errBody() error {
	return holdfast.Errorf(holdfast.TooLarge, "a body has at most %d bytes, decompressed or not: send several", a.o.MaxBody)
}

func (a *API) readError(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return a.errBody()
	}
	if _, ok := errors.AsType[*holdfast.Error](err); ok {
		return err
	}
	return holdfast.Errorf(holdfast.Invalid, "the body ended early or did not arrive within %s", a.o.BodyTimeout)
}

// meter counts what a request holds of the shared budget.
type meter struct {
	api  *API
	held int
}

func (m *meter) release() {
	m.api.bytes.Release(int64(m.held))
	m.held = 0
}

func (m *meter) take(n int) error {
	if !m.api.bytes.TryAcquire(int64(n)) {
		return holdfast.Errorf(holdfast.Unavailable, "the hub is reading too much at once: try again")
	}
	m.held += n
	return nil
}

// First and largest steps in which a buffer grows.
const (
	firstStep = 4 << 10
	lastStep  = 256 << 10
)

// readAll is io.ReadAll within MaxBody and the budget. hint is the expected size,
// 0 if nobody knows; what exceeds the first step is not believed before it comes.
func (m *meter) readAll(r io.Reader, hint int) ([]byte, error) {
	step := firstStep
	if hint > 0 {
		step = min(hint+1, 64<<10) // the one byte more meets the end of the body
	}
	var b []byte
	for {
		if len(b) == cap(b) {
			if len(b) > m.api.o.MaxBody {
				return nil, m.api.errBody()
			}
			if err := m.take(step); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, cap(b)+step), b...)
			step = min(max(2*cap(b), firstStep), lastStep)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if len(b) > m.api.o.MaxBody {
			return nil, m.api.errBody()
		}
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
