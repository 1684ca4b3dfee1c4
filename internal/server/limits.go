package server

import (
	"net"
	"sync"
	"syscall"
)

// Most connections of each listener, where the process may have files enough.
const (
	mostMQTT   = 20_000
	mostDevice = 20_000
	mostAPI    = 2_000
)

// ownFiles is how many files the hub keeps for itself: journal, segments, catalog,
// keyring and what it looks up. A flood of connections must not take them, or
// nothing could be rolled any more.
const ownFiles = 512

// connections is how many each listener may have open at once.
type connections struct{ mqtt, device, api int }

// connectionsOf shares out a limit of open files.
func connectionsOf(files uint64) connections {
	own := min(files/2, ownFiles)
	spare := int(min(files-own, 1<<20))
	return connections{
		mqtt:   max(1, min(mostMQTT, spare/2)),
		device: max(1, min(mostDevice, spare*3/8)),
		api:    max(1, min(mostAPI, spare/8)),
	}
}

// openFiles is the process's limit of open files.
func openFiles() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // the least that systems give
	}
	return uint64(l.Cur)
}

// limited lets no more than its slots be open at once; who comes later waits in the
// kernel until a connection ends, which silent ones do within seconds.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	close  sync.Once
}

func limit(ln net.Listener, n int) net.Listener {
	return &limited{Listener: ln, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slot{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.close.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// slot is a connection that counts.
type slot struct {
	net.Conn
	free func()
}

func (s *slot) Close() error {
	defer s.free()
	return s.Conn.Close()
}
