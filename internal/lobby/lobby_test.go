package lobby

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// street is a listener whose connections come from any address, by pipes, so that
// time can be a test's own.
type street struct {
	arriving chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func newStreet() *street {
	return &street{arriving: make(chan net.Conn), closed: make(chan struct{})}
}

func (s *street) Accept() (net.Conn, error) {
	select {
	case nc := <-s.arriving:
		return nc, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *street) Close() error   { s.once.Do(func() { close(s.closed) }); return nil }
func (s *street) Addr() net.Addr { return &net.TCPAddr{} }

// comer is a socket that comes from an address.
type comer struct {
	net.Conn
	from string
}

func (c comer) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 1))
}

// dial returns when the lobby has taken the socket from the kernel.
func (s *street) dial(from string) net.Conn {
	ours, theirs := net.Pipe()
	select {
	case s.arriving <- comer{theirs, from}:
	case <-s.closed:
	}
	return ours
}

// certificates for both ends.
func configs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	if from.Year() > 2000 {
		from = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // a test's own time begins then
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, DNSNames: []string{"x"},
		NotBefore: from.Add(-time.Hour), NotAfter: from.AddDate(200, 0, 0), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	pair := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return &tls.Config{Certificates: pair, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, SessionTicketsDisabled: true},
		&tls.Config{Certificates: pair, RootCAs: pool, ServerName: "x"}
}

// open is a lobby whose connections are echoed to.
func open(t *testing.T, s net.Listener, config *tls.Config, o Options) *Lobby {
	t.Helper()
	if o.Known == nil {
		o.Known = func(cs tls.ConnectionState) bool { return len(cs.PeerCertificates) > 0 }
	}
	l := Listen(s, config, o)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				if !nc.(*tls.Conn).ConnectionState().HandshakeComplete {
					t.Error("somebody is inside without a handshake")
				}
				io.Copy(nc, nc)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.open != 0 || len(l.guests) != 0 {
			t.Errorf("in the end %d are open, %d in the lobby", l.open, len(l.guests))
		}
		for _, p := range l.places {
			if p.waiting != 0 {
				t.Errorf("in the end %d wait from %s", p.waiting, p.addr)
			}
		}
	})
	return l
}

// greets says hello over TLS and expects it back, which proves that it is inside.
func greets(nc net.Conn, config *tls.Config) (*tls.Conn, error) {
	c := tls.Client(nc, config)
	c.Write([]byte("hello")) // right behind the handshake, which it does first
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	if string(b) != "hello" {
		return nil, fmt.Errorf("echoed %q", b)
	}
	return c, nil
}

func (l *Lobby) count(why reason) uint64 { return l.refused[why].Load() }

func closedNow(nc net.Conn) bool {
	nc.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := nc.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// When all places are taken by silent sockets of many addresses, a newcomer is in
// within the patience; while there are places, a silent socket keeps its own for
// the whole timeout.
func TestTheSilentGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := configs(t)
		s := newStreet()
		l := open(t, s, server, Options{MaxPending: 8, MaxOpen: 100})
		var silent []net.Conn
		for i := range 8 {
			nc := s.dial(fmt.Sprintf("192.0.2.%d", i+1))
			defer nc.Close()
			silent = append(silent, nc)
		}
		time.Sleep(300 * time.Millisecond)
		if slices.ContainsFunc(silent, closedNow) {
			t.Error("a silent socket was closed though nobody waits")
		}
		began := time.Now()
		c, err := greets(s.dial("198.51.100.1"), client)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if d := time.Since(began); d > time.Second {
			t.Errorf("the newcomer is in after %s", d)
		}
		if n := l.count(displaced); n != 1 {
			t.Errorf("%d gave way", n)
		}
		time.Sleep(10 * time.Second)
		if n := l.count(late); n != 7 {
			t.Errorf("%d ran out of time", n)
		}
	})
}

// An address that holds more than its share gives way at once, a known one last.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := configs(t)
		s := newStreet()
		l := open(t, s, server, Options{MaxPending: 8, MaxOpen: 100})
		home, err := greets(s.dial("203.0.113.1"), client) // known from now on
		if err != nil {
			t.Fatal(err)
		}
		home.Close()
		synctest.Wait()
		known := s.dial("203.0.113.1")
		defer known.Close()
		other := s.dial("198.51.100.7")
		defer other.Close()
		for range 6 {
			defer s.dial("2001:db8::1").Close()
		}
		first := time.Now()
		for i := 0; time.Since(first) < 600*time.Millisecond; i++ { // the others' own patience is longer
			began := time.Now()
			nc := s.dial(fmt.Sprintf("2001:db8:0:0:%d::2", i)) // of the same /64
			defer nc.Close()
			if d := time.Since(began); d > 300*time.Millisecond {
				t.Errorf("place %d was free after %s", i, d)
			}
			if closedNow(other) || closedNow(known) {
				t.Fatalf("after %d of the crowd, one of another address gave way", i)
			}
		}
		if l.count(displaced) == 0 {
			t.Error("nobody gave way")
		}
		time.Sleep(time.Second)
		for i := range 8 {
			defer s.dial(fmt.Sprintf("192.0.2.%d", i)).Close()
		}
		synctest.Wait()
		if closedNow(known) {
			t.Error("the known one gave way before strangers did")
		}
	})
}

// Five hundred good devices at once, to a lobby of sixteen: all get in, nobody is
// displaced, and a device of another address among them need not wait for all.
func TestStormOfGoodDevices(t *testing.T) {
	server, client := configs(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, ln, server, Options{MaxPending: 16, Patience: 20 * time.Second, Timeout: time.Minute})
	var wg sync.WaitGroup
	for range 500 {
		wg.Go(func() {
			nc, err := net.Dial("tcp", ln.Addr().String())
			if err == nil {
				var c *tls.Conn
				if c, err = greets(nc, client); err == nil {
					c.Close()
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := l.admits.Load(); n != 500 || l.count(displaced)+l.count(late)+l.count(failed) > 0 {
		t.Errorf("%d are in, %d displaced, %d late, %d failed", n, l.count(displaced), l.count(late), l.count(failed))
	}
}

// Time in which a connection waits for the hub is not held against it; what it
// keeps the hub waiting for is, in one piece or in drips.
func TestWhoWaitsForWhom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := configs(t)
		s := newStreet()
		turns := NewTurns(1)
		l := open(t, s, server, Options{MaxPending: 2, Turns: turns})
		turns.take(netip.Addr{}, false, nil) // the hub is busy
		in := make(chan error, 1)
		go func() {
			c, err := greets(s.dial("192.0.2.1"), client)
			if err == nil {
				c.Close()
			}
			in <- err
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		turns.give()
		if err := <-in; err != nil {
			t.Errorf("after a minute in which the hub was busy: %v", err)
		}
		drips := s.dial("192.0.2.2")
		began := time.Now()
		for _, b := range []byte{22, 3, 1, 2, 0, 1, 0, 1, 252} {
			if _, err := drips.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(3 * time.Second)
		}
		if d := time.Since(began); d > 13*time.Second {
			t.Errorf("one that drips was in the lobby for %s", d)
		}
		if l.count(late) != 1 {
			t.Errorf("%d were late", l.count(late))
		}
	})
}

func TestTurns(t *testing.T) {
	turns := NewTurns(1)
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	turns.take(a, false, nil)
	names := map[chan struct{}]string{}
	wait := func(name string, from netip.Addr, l *line) {
		w := make(chan struct{}, 1)
		names[w] = name
		l.push(from, w)
	}
	for i := range 4 {
		wait(fmt.Sprintf("a%d", i), a, &turns.fresh)
	}
	wait("b0", b, &turns.fresh)
	wait("c0", c, &turns.fresh)
	wait("b1", b, &turns.fresh)
	wait("half-way", c, &turns.begun)
	var order []string
	for range 8 {
		turns.give()
		for w, name := range names {
			select {
			case <-w:
				order = append(order, name)
			default:
			}
		}
	}
	if want := []string{"half-way", "a0", "b0", "c0", "a1", "b1", "a2", "a3"}; !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
	turns.give()
	if turns.free != 1 || len(turns.fresh.of)+len(turns.begun.of) != 0 {
		t.Errorf("in the end %+v", turns)
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := configs(t)
		s := newStreet()
		l := open(t, s, server, Options{MaxOpen: 3, PerSecond: 1, Burst: 4})
		var inside []*tls.Conn
		for i := range 3 {
			c, err := greets(s.dial(fmt.Sprintf("192.0.2.%d", i)), client)
			if err != nil {
				t.Fatal(err)
			}
			inside = append(inside, c)
		}
		if nc := s.dial("192.0.2.9"); !closedNow(nc) || l.count(full) != 1 {
			t.Errorf("a fourth of three is inside; %d were refused", l.count(full))
		}
		for _, c := range inside {
			c.Close()
		}
		synctest.Wait()
		for range 4 {
			nc := s.dial("198.51.100.1")
			nc.Close()
			synctest.Wait()
		}
		if nc := s.dial("198.51.100.1"); !closedNow(nc) || l.count(tooOften) != 1 {
			t.Errorf("five at once of one address; %d were refused", l.count(tooOften))
		}
		time.Sleep(time.Second)
		c, err := greets(s.dial("198.51.100.1"), client)
		if err != nil {
			t.Errorf("a second later: %v", err)
		} else {
			c.Close()
		}
		wrong := client.Clone()
		wrong.Certificates = nil
		before := l.count(failed)
		if _, err := greets(s.dial("192.0.2.10"), wrong); err == nil || l.count(failed) != before+1 {
			t.Errorf("without a certificate: %v; %d failed", err, l.count(failed))
		}
	})
}

// Many addresses take no memory without bound.
func TestPlacesAreBounded(t *testing.T) {
	l := &Lobby{o: Options{}.withDefaults(), places: map[netip.Addr]*place{}}
	now := time.Unix(1000, 0)
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range maxPlaces {
		p := l.placeLocked(at(i), now)
		if p.rate.AllowN(now, 1); i%2 == 0 {
			p.waiting = 1
		}
	}
	if p := l.placeLocked(at(maxPlaces), now.Add(time.Microsecond)); p.addr.IsValid() || len(l.places) != maxPlaces+1 {
		t.Errorf("%d places, the last is %s", len(l.places), p.addr)
	}
	now = now.Add(time.Minute)
	if p := l.placeLocked(at(maxPlaces), now); !p.addr.IsValid() || len(l.places) > maxPlaces/2+2 {
		t.Errorf("later %d places, the last is %s", len(l.places), p.addr)
	}
}

func TestAddressOf(t *testing.T) {
	for at, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := addressOf(comer{from: at}).String(); got != want {
			t.Errorf("%s is %s, want %s", at, got, want)
		}
	}
}

// BenchmarkHandshake is a handshake with client certificate, both ends: through a
// lobby, and without.
func BenchmarkHandshake(b *testing.B) {
	server, client := configs(b)
	for name, wrap := range map[string]func(net.Listener) net.Listener{
		"lobby": func(ln net.Listener) net.Listener { return Listen(ln, server, Options{PerSecond: -1}) },
		"bare":  func(ln net.Listener) net.Listener { return tls.NewListener(ln, server) },
	} {
		b.Run(name, func(b *testing.B) {
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ln := wrap(inner)
			defer ln.Close()
			go func() {
				for {
					nc, err := ln.Accept()
					if err != nil {
						return
					}
					go func() { io.Copy(nc, nc); nc.Close() }()
				}
			}()
			b.ReportAllocs()
			for b.Loop() {
				nc, err := net.Dial("tcp", inner.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				c, err := greets(nc, client)
				if err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}
