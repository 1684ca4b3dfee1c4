package tpmholder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"github.com/holdfast-iot/holdfast"
)

type dialer func(ctx context.Context) (transport.TPMCloser, error)

// errLink marks that it is not known whether the TPM has executed the last command.
var errLink = errors.New("the TPM did not answer")

func dialTPM(address string) dialer {
	if filepath.IsAbs(address) {
		return func(context.Context) (transport.TPMCloser, error) { return linuxtpm.Open(address) }
	}
	network, where := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, where = "unix", path
	}
	return func(ctx context.Context) (transport.TPMCloser, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, where)
		if err != nil {
			return nil, err
		}
		return socket{conn}, nil
	}
}

// socket speaks with an emulator: a command, its reply, no frames around them.
type socket struct{ net.Conn }

const maxReply = 4096

func (s socket) Send(command []byte) ([]byte, error) {
	if _, err := s.Write(command); err != nil {
		return nil, err
	}
	var head [10]byte
	if _, err := io.ReadFull(s, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[2:])
	if n < 10 || n > maxReply {
		return nil, fmt.Errorf("the reply says that it has %d bytes", n)
	}
	reply := make([]byte, n)
	copy(reply, head[:])
	_, err := io.ReadFull(s, reply[10:])
	return reply, err
}

// link is one connection to the TPM, for one operation. It sends a command again
// that the TPM did not begin, and gives up when ctx ends, even if the TPM hangs.
type link struct {
	ctx   context.Context
	tpm   transport.TPMCloser
	pause func(context.Context, time.Duration) error
	// broken says that a command was sent and its reply was not had.
	broken bool
}

const (
	busyTries = 12
	busyPause = 5 * time.Millisecond // and twice that each time, up to busyMost
	busyMost  = time.Second
)

// Send implements transport.TPM.
func (l *link) Send(command []byte) ([]byte, error) {
	pause := busyPause
	for try := 1; ; try++ {
		reply, err := l.exchange(command)
		if err != nil {
			return nil, err
		}
		if try == busyTries || !busy(reply) {
			return reply, nil
		}
		if err := l.pause(l.ctx, pause); err != nil {
			return nil, err
		}
		pause = min(2*pause, busyMost)
	}
}

// busy reports that the TPM has not begun with the command. Nothing of it counts
// then, not even its session's nonce, so that the same bytes may be sent again.
func busy(reply []byte) bool {
	if len(reply) < 10 {
		return false
	}
	switch tpm2.TPMRC(binary.BigEndian.Uint32(reply[6:])) {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCNVRate, tpm2.TPMRCTesting, tpm2.TPMRCNVUnavailable:
		return true
	}
	return false
}

func (l *link) exchange(command []byte) ([]byte, error) {
	if l.broken {
		return nil, errLink
	}
	type answer struct {
		reply []byte
		err   error
	}
	// A device can't be told to give up. Who waits for it in vain leaves it to a
	// goroutine, which ends when the device answers or is closed.
	done := make(chan answer, 1)
	go func() {
		reply, err := l.tpm.Send(command)
		done <- answer{reply, err}
	}()
	select {
	case a := <-done:
		if a.err == nil && len(a.reply) < 10 {
			a.err = fmt.Errorf("the reply has %d bytes", len(a.reply))
		}
		if a.err != nil {
			l.broken = true
			return nil, fmt.Errorf("%w: %w", errLink, a.err)
		}
		return a.reply, nil
	case <-l.ctx.Done():
		l.broken = true
		return nil, holdfast.Errorf(holdfast.Unavailable, "the TPM hangs: %w", l.ctx.Err())
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
