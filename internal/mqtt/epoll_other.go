//go:build !linux

package mqtt

import "errors"

// epoll is there on Linux only; elsewhere each connection has its goroutine.
type epoll struct{}

type ticket struct{ slot, life int32 }

type catch struct{}

func openEpoll() (*epoll, error) { return nil, errors.ErrUnsupported }

func (*epoll) add(*socket, ticket) error    { return errors.ErrUnsupported }
func (*epoll) remove(*socket) error         { return errors.ErrUnsupported }
func (*epoll) catch() *catch                { return nil }
func (*epoll) close()                       {}
func (*catch) wait(func(ticket, bool)) bool { return false }
