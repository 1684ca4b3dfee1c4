package mqtt

import (
	"io"
	"net"
	"syscall"
)

// Pollable makes the connections of a TCP listener such that a Server can wait for
// their input without a goroutine each. It goes under the TLS listener:
//
//	s.Run(ctx, tls.NewListener(mqtt.Pollable(ln), config))
//
// A connection of another kind is left as it is, and has a goroutine.
func Pollable(ln net.Listener) net.Listener { return pollable{ln} }

type pollable struct{ net.Listener }

func (l pollable) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nc, nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nc, nil
	}
	s := &socket{TCPConn: t, raw: raw}
	s.step = s.try
	return s, nil
}

// socket is a TCP connection whose Read can be told not to wait.
type socket struct {
	*net.TCPConn
	raw  syscall.RawConn
	step func(fd uintptr) bool // try, bound once

	// The rest belongs to who reads.
	polled  bool // it has been told not to
	drained bool // the last read took all that there was: another would find nothing
	last    bool // there will be no other event: read up to the end
	p       []byte
	n       int
	err     error
}

// again is what Read returns in place of waiting. TLS takes it as it takes a
// deadline: the read can be repeated.
type again struct{}

func (again) Error() string   { return "nothing to read yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

func (s *socket) Read(p []byte) (int, error) {
	switch {
	case !s.polled:
		return s.TCPConn.Read(p)
	case s.drained:
		return 0, again{}
	}
	s.p = p
	err := s.raw.Read(s.step)
	s.p = nil
	switch {
	case err != nil: // closed, or a deadline that has passed
		return 0, err
	case s.err == syscall.EAGAIN:
		s.drained = true
		return 0, again{}
	case s.err != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: s.err}
	case s.n == 0:
		return 0, io.EOF
	}
	// What comes after a read that was not filled makes a new event, but the end of it
	// all may have come before, together with what was read.
	s.drained = s.n < len(p) && !s.last
	return s.n, nil
}

func (s *socket) try(fd uintptr) bool {
	for {
		s.n, s.err = syscall.Read(int(fd), s.p)
		if s.err != syscall.EINTR {
			return true
		}
	}
}
