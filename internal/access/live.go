package access

import (
	"context"
	"sync"

	"github.com/holdfast-iot/holdfast"
)

// Again returns who was let in with a credential before, if it still counts: for a
// connection that lives longer than a request.
func (a *Access) Again(ctx context.Context, id holdfast.CredentialID) (Principal, error) {
	c, err := a.lookUp(ctx, id)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return Principal{}, a.refusal("ended")
	}
	if err != nil {
		return Principal{}, err
	}
	return a.staying(a.admit(ctx, c, c.principal(a.now())))
}

// tracked is an open connection of a credential.
type tracked struct{ cut func(reason error) }

// Track registers a live connection of a credential. When that is revoked or its
// party is erased, cut is called once, from another goroutine; it should close the
// connection without waiting for the peer. If that has happened already, Track calls
// it before it returns. That a credential expires is for the caller to watch. forget
// ends the registration.
func (a *Access) Track(id holdfast.CredentialID, cut func(reason error)) (forget func()) {
	t := &tracked{cut}
	a.mu.Lock()
	_, late := a.refused[id]
	if !late {
		all := a.tracks[id]
		if all == nil {
			all = make(map[*tracked]struct{})
			a.tracks[id] = all
		}
		all[t] = struct{}{}
	}
	a.mu.Unlock()
	if late {
		cut(errNotAccepted())
		return func() {}
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		all := a.tracks[id]
		delete(all, t)
		if len(all) == 0 {
			delete(a.tracks, id)
		}
	}
}

// cutOff ends connections side by side, for closing one can wait for its peer.
func cutOff(all []*tracked) {
	var wg sync.WaitGroup
	for _, t := range all {
		wg.Go(func() { t.cut(errNotAccepted()) })
	}
	wg.Wait()
}
