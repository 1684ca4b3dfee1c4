package deviceapi

import (
	"context"
	"mime"
	"net/http"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/senml"
)

// data takes a SenML pack.
func (a *API) data(w http.ResponseWriter, r *http.Request, p identity.Peer) error {
	decode, err := decoderOf(r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	body, release, err := a.body(w, r)
	if err != nil {
		return err
	}
	defer release()
	samples, err := decode(body, a.o.Now())
	if err != nil {
		return err
	}
	route, err := a.d.Custody.Route(r.Context(), p.Device)
	if err != nil {
		return err
	}
	return a.take(w, r, p, len(body), []message{{route, samples}})
}

// decoderOf reads a Content-Type. What curl says when it is told nothing is taken
// for JSON, too: so is nothing.
func decoderOf(contentType string) (func([]byte, int64) ([]holdfast.Sample, error), error) {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case contentType == "":
		return senml.DecodeJSON, nil
	case err != nil:
	case media == senml.MediaJSON, media == "application/json", media == "application/x-www-form-urlencoded":
		return senml.DecodeJSON, nil
	case media == senml.MediaCBOR, media == "application/cbor":
		return senml.DecodeCBOR, nil
	}
	return nil, holdfast.Errorf(holdfast.Invalid, "the Content-Type must be %s or %s", senml.MediaJSON, senml.MediaCBOR)
}

// message is what a request carries for one device: the peer or a child of it.
type message struct {
	route   *custody.Route
	samples []holdfast.Sample
}

// take makes all messages durable in one commit and answers, or takes none. size is
// how many bytes they came in.
func (a *API) take(w http.ResponseWriter, r *http.Request, p identity.Peer, size int, messages []message) error {
	if err := a.charge(size, messages); err != nil {
		return err
	}
	// A client that hangs up does not undo what is on its way to the disk.
	ctx := context.WithoutCancel(r.Context())
	b := a.d.Gate.Batch(ctx, p, "")
	for _, m := range messages {
		if err := b.AddTo(m.route, m.samples, ingest.Delivery{}); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	b.Commit(func(err error) { done <- err })
	if err := <-done; err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
