package deviceapi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
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

// meter counts what a request holds of the shared budget, and has its buffers.
type meter struct {
	api     *API
	held    int
	buffers []*[]byte
}

// bodies are buffers of requests that have ended, cleared. There are never more of
// them than the budget let requests have at once.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

func (m *meter) release() {
	m.api.bytes.Release(int64(m.held))
	m.held = 0
	for _, b := range m.buffers {
		clear(*b)
		*b = (*b)[:0]
		bodies.Put(b)
	}
	m.buffers = nil
}

func (m *meter) take(n int) error {
	if !m.api.bytes.TryAcquire(int64(n)) {
		m.api.metrics.refuse("bytes")
		return holdfast.Errorf(holdfast.Unavailable, "the hub is reading too much at once: try again")
	}
	m.held += n
	return nil
}

// First and largest steps in which a body takes its share of the budget.
const (
	firstStep = 4 << 10
	lastStep  = 256 << 10
)

// readAll is io.ReadAll within MaxBody and the budget, into a buffer that is the
// caller's until release. hint is the expected size, 0 if nobody knows; what
// exceeds the first step is not believed before it comes.
func (m *meter) readAll(r io.Reader, hint int) ([]byte, error) {
	step := firstStep
	if hint > 0 {
		step = min(hint+1, 64<<10) // the one byte more meets the end of the body
	}
	kept := bodies.Get().(*[]byte)
	m.buffers = append(m.buffers, kept)
	for b, room := *kept, 0; ; *kept = b {
		if len(b) == room {
			if err := m.take(step); err != nil {
				return nil, err
			}
			room += step
			b = slices.Grow(b, step)
			step = min(max(2*room, firstStep), lastStep)
		}
		n, err := r.Read(b[len(b):room])
		b = b[:len(b)+n]
		if len(b) > m.api.o.MaxBody {
			*kept = b
			return nil, m.api.errBody()
		}
		if err == io.EOF {
			*kept = b
			return b, nil
		}
		if err != nil {
			*kept = b
			return nil, err
		}
	}
}
