package server

import (
	"errors"
	"net"
	"testing"
	"time"
)

func TestConnectionsLeaveFilesForTheHub(t *testing.T) {
	for _, files := range []uint64{64, 256, 1024, 2048, 20_000, 65_536, 1 << 20, ^uint64(0)} {
		c := connectionsOf(files)
		sum := uint64(c.mqtt + c.device + c.api)
		if c.mqtt < 1 || c.device < 1 || c.api < 1 || sum > files-min(files/2, ownFiles) {
			t.Errorf("%d files: %+v", files, c)
		}
	}
	if c := connectionsOf(1 << 20); c.mqtt != mostMQTT || c.device != mostDevice || c.api != mostAPI {
		t.Errorf("with files enough: %+v", c)
	}
}

// The third of two connections waits until one ends; closing the listener ends the
// wait.
func TestLimitedListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := limit(inner, 2)
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 4 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection is open")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // counts once
	third := <-accepted
	select {
	case <-accepted:
		t.Fatal("one end made room for two")
	case <-time.After(50 * time.Millisecond):
	}
	ln.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	second.Close()
	third.Close()
}
