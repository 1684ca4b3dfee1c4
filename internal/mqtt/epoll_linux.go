package mqtt

import (
	"fmt"
	"os"
	"syscall"
)

// epoll tells which sockets have input. It is itself waited for by the runtime, so
// that who waits holds no thread.
type epoll struct {
	file *os.File
	raw  syscall.RawConn
}

// ticket names a socket: where it stands, and the how-manieth stands there.
type ticket struct{ slot, life int32 }

// edge asks for an event whenever something arrives, not as long as it is there.
const edge = syscall.EPOLLIN | syscall.EPOLLRDHUP | 1<<31 // EPOLLET, which syscall has as a negative number

func openEpoll() (*epoll, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // or os would not let the runtime wait for it
		syscall.Close(fd)
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	e := &epoll{file: os.NewFile(uintptr(fd), "epoll")}
	if e.raw, err = e.file.SyscallConn(); err != nil {
		e.file.Close()
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	return e, nil
}

func (e *epoll) add(s *socket, t ticket) error { return e.control(s, syscall.EPOLL_CTL_ADD, t) }

// remove is of no use for a socket that is closed: that has left by itself.
func (e *epoll) remove(s *socket) error { return e.control(s, syscall.EPOLL_CTL_DEL, ticket{}) }

func (e *epoll) control(s *socket, op int, t ticket) error {
	var err error
	outer := e.raw.Control(func(own uintptr) {
		inner := s.raw.Control(func(fd uintptr) {
			err = syscall.EpollCtl(int(own), op, int(fd), &syscall.EpollEvent{Events: edge, Fd: t.slot, Pad: t.life})
		})
		if inner != nil {
			err = inner
		}
	})
	if outer != nil {
		err = outer
	}
	return err
}

// catch is who waits for events, with room for them.
type catch struct {
	e      *epoll
	events [64]syscall.EpollEvent
	n      int
	err    error
	step   func(fd uintptr) bool
}

func (e *epoll) catch() *catch {
	c := &catch{e: e}
	c.step = c.try
	return c
}

func (c *catch) try(fd uintptr) bool {
	for {
		c.n, c.err = syscall.EpollWait(int(fd), c.events[:], 0)
		if c.err != syscall.EINTR {
			return c.n != 0
		}
	}
}

// endOfInput is of an event that says that nothing comes behind what is there.
const endOfInput = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR

// wait waits until there are events, one waiter at a time, and calls each for
// them. It reports false when the epoll has been closed.
func (c *catch) wait(each func(t ticket, last bool)) bool {
	if c.e.raw.Read(c.step) != nil || c.err != nil {
		return false
	}
	for i := range c.n {
		each(ticket{c.events[i].Fd, c.events[i].Pad}, c.events[i].Events&endOfInput != 0)
	}
	return true
}

func (e *epoll) close() { e.file.Close() }
