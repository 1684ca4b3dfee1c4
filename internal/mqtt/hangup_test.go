package mqtt

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// A client that goes without a word right behind its last packet is noticed at once,
// though its turn was still under way when both were there: its will must not wait
// for the keep-alive, and without one it would be kept for ever.
func TestEndBehindTheLastPacket(t *testing.T) {
	if !canPoll() {
		t.Skip("no epoll here: connections have goroutines")
	}
	a, h := newAuthority(t), newHub()
	block, blocked := make(chan struct{}), make(chan struct{})
	gate := blockingGate{h, func(topic string) {
		if topic == "slow" {
			close(blocked)
			<-block
		}
	}}
	ln, err := a.listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := New(authenticate, gate, h, Options{})
	go func() { ended <- s.Run(ctx, ln) }()
	dial := func(n byte) (*client, *net.TCPConn) {
		nc, err := tls.Dial("tcp", ln.Addr().String(), a.client(holdfast.DeviceID{n}))
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, nc)
		c.connect(hello{version: v5, id: "a"})
		return c, nc.NetConn().(*net.TCPConn)
	}
	going, socket := dial(1)
	going.send(going.publish(pub{qos: 1, id: 1, topic: "data/slow", payload: "1"}))
	<-blocked
	other, _ := dial(2)
	// One event at a time, each taken in before the next: an answer to another client
	// tells that the poller has been there.
	going.send([]byte{typePingreq << 4, 0})
	other.silent()
	if err := socket.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		other.silent()
	}
	close(block)
	going.expectCode(typePuback, 1, success)
	going.expect(typePingresp, "")
	select {
	case p, ok := <-going.packets:
		if ok {
			t.Errorf("received %v, want the end of the connection", p)
		}
	case <-time.After(patience()):
		t.Error("the connection is still open")
	}
	going.nc.Close()
	other.nc.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
