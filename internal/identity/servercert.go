package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"sync"
	"time"
)

// serverCertificate is the one in use. Its key is made at the first connection
// and lives in memory only: a device trusts the authority, not this key.
type serverCertificate struct {
	mu        sync.Mutex
	current   *tls.Certificate
	notBefore time.Time
	renew     time.Time
}

func (s *serverCertificate) forget() {
	s.mu.Lock()
	s.current = nil
	s.mu.Unlock()
}

// ServerCertificate is a tls.Config's GetCertificate. It issues a fresh
// certificate when a third of the last one's life is left, and when the clock was
// set back to before it began. The authority's certificate comes with it: a device that
// holds nothing but the pin of an enrolment code finds the pinned key there.
func (i *Identity) ServerCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s, now := &i.server, i.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && !now.Before(s.notBefore) && now.Before(s.renew) {
		return s.current, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	c, err := i.authority.serve(key.Public(), *i.hosts.Load(), now)
	if err != nil {
		return nil, err
	}
	s.current = &tls.Certificate{Certificate: [][]byte{c.Raw, i.authority.root.Raw}, PrivateKey: key, Leaf: c}
	s.notBefore = c.NotBefore
	s.renew = c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
	return s.current, nil
}
