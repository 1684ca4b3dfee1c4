package deviceapi

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// socket hands a connection over to MQTT under WebSocket (RFC 6455; MQTT 5,
// section 6): for networks that let nothing but HTTPS out.
func (a *API) socket(w http.ResponseWriter, r *http.Request) {
	id, ok := a.subscriber(w, r)
	if !ok {
		return
	}
	leave, err := a.budgets.enter(id, time.Now())
	if err != nil {
		a.problem(w, r, err)
		return
	}
	leave() // the pace counts; from here on MQTT's own limits hold
	answer, err := upgrade(r)
	if err != nil {
		a.problem(w, r, err)
		return
	}
	nc, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		a.problem(w, r, err)
		return
	}
	nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(nc, answer); err != nil {
		nc.Close()
		return
	}
	nc.SetWriteDeadline(time.Time{})
	// What the HTTP server has read ahead comes first. Its own reader is not used
	// any more: it panics when two goroutines read.
	ahead, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err != nil {
		nc.Close()
		return
	}
	in := bufio.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(ahead)), nc))
	// The API's own link to a revocation has ended with the request; MQTT asks
	// again who it is and makes another.
	a.d.MQTT.ServeConn(r.Context(), &wsConn{Conn: nc, in: in}, *r.TLS)
}

// subscriber says who wants to speak MQTT: a device, or a person or program by the id of
// the credential. Whether that counts is for MQTT to say, which asks again, and
// follows it from then on.
func (a *API) subscriber(w http.ResponseWriter, r *http.Request) (holdfast.DeviceID, bool) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		if id, _, err := a.d.Identity.Credential(r.Context(), *r.TLS); err == nil {
			if err := a.meet(r, holdfast.DeviceID(id), func(func(error)) func() { return func() {} }); err != nil {
				a.problem(w, r, err)
				return holdfast.DeviceID{}, false
			}
			return holdfast.DeviceID(id), true
		}
	}
	p, ok := a.peer(w, r)
	return p.Device, ok
}

// upgrade checks an opening handshake (section 4.2) and returns the answer to it.
func upgrade(r *http.Request) (string, error) {
	h := r.Header
	key := h.Get("Sec-WebSocket-Key")
	nonce, err := base64.StdEncoding.DecodeString(key)
	if !hasToken(h, "Connection", "upgrade") || !hasToken(h, "Upgrade", "websocket") || h.Get("Sec-WebSocket-Version") != "13" || err != nil || len(nonce) != 16 {
		return "", holdfast.Errorf(holdfast.Invalid, "this address speaks WebSocket (version 13)")
	}
	if !hasToken(h, "Sec-WebSocket-Protocol", "mqtt") {
		return "", holdfast.Errorf(holdfast.Invalid, "the WebSocket must offer the subprotocol mqtt")
	}
	// A page of somebody else in a browser that holds a device's certificate must
	// not become that device.
	if origin := h.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return "", holdfast.Errorf(holdfast.Denied, "pages of another origin may not connect")
		}
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // section 1.3; proves nothing but that we speak WebSocket
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n", nil
}

// hasToken looks for a token in a header that is a list.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// Opcodes and the status codes of a close that are used (sections 5.2 and 7.4.1).
const (
	opContinue = 0x0
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xa

	closeNormal   = 1000
	closeProtocol = 1002
)

// maxFrame bounds one frame; MQTT bounds its packets itself, which need not lie in
// one frame.
const maxFrame = 1 << 20

// wsConn is the server's side of a WebSocket as a stream of bytes: the content of
// binary frames. It can be read again after a deadline has passed. Any goroutine
// may read and write, as of every net.Conn: whoever hangs up reads what is left.
type wsConn struct {
	net.Conn
	read sync.Mutex
	in   *bufio.Reader

	left    int64 // bytes of the present frame that were not read yet
	mask    [4]byte
	at      int  // place in mask
	message bool // a message has begun and its last frame has not come
	err     error

	write  sync.Mutex
	closed bool // a close was sent
}

var errFrame = errors.New("websocket: the client breaks the protocol")

// Read reads content, and answers what control frames come between.
func (c *wsConn) Read(p []byte) (int, error) {
	c.read.Lock()
	defer c.read.Unlock()
	for c.left == 0 {
		if c.err != nil {
			return 0, c.err
		}
		if err := c.frame(); err != nil {
			if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
				c.err = err
			}
			return 0, err
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.in.Read(p[:min(int64(len(p)), c.left)])
	for i := range p[:n] {
		p[i] ^= c.mask[c.at&3]
		c.at++
	}
	c.left -= int64(n)
	if err == io.EOF && c.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// frame reads the head of a frame, and all of a control frame. It takes nothing
// from the buffer before that is whole, so that it can be tried again.
func (c *wsConn) frame() error {
	head, err := c.in.Peek(2)
	if err != nil {
		return err
	}
	opcode, final, size := head[0]&0xf, head[0]&0x80 != 0, int64(head[1]&0x7f)
	if head[0]&0x70 != 0 || head[1]&0x80 == 0 { // no extension was agreed on; a client masks
		return c.fail()
	}
	extra := 0
	switch size {
	case 126:
		extra = 2
	case 127:
		extra = 8
	}
	if head, err = c.in.Peek(2 + extra + 4); err != nil {
		return err
	}
	switch extra {
	case 2:
		size = int64(binary.BigEndian.Uint16(head[2:]))
	case 8:
		size = int64(min(binary.BigEndian.Uint64(head[2:]), maxFrame+1))
	}
	mask := [4]byte(head[2+extra:])
	if opcode >= opClose {
		return c.control(opcode, final, 2+extra+4, size, mask)
	}
	if opcode == opContinue != c.message || opcode != opContinue && opcode != opBinary || size > maxFrame {
		return c.fail()
	}
	c.in.Discard(len(head))
	c.message = !final
	c.left, c.mask, c.at = size, mask, 0
	return nil
}

// control answers a control frame (section 5.5).
func (c *wsConn) control(opcode byte, final bool, head int, size int64, mask [4]byte) error {
	if !final || size > 125 || opcode > opPong {
		return c.fail()
	}
	whole, err := c.in.Peek(head + int(size))
	if err != nil {
		return err
	}
	content := append([]byte(nil), whole[head:]...)
	for i := range content {
		content[i] ^= mask[i&3]
	}
	c.in.Discard(len(whole))
	switch opcode {
	case opPing:
		return c.send(opPong, content)
	case opClose:
		c.goodbye(closeNormal)
		return io.EOF
	}
	return nil
}

func (c *wsConn) fail() error {
	c.goodbye(closeProtocol)
	return errFrame
}

// Write sends p as one binary message.
func (c *wsConn) Write(p []byte) (int, error) {
	if err := c.send(opBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *wsConn) send(opcode byte, content []byte) error {
	frame := make([]byte, 0, 10+len(content))
	frame = append(frame, 0x80|opcode)
	switch n := len(content); {
	case n < 126:
		frame = append(frame, byte(n))
	case n < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(n))
	}
	frame = append(frame, content...)
	c.write.Lock()
	defer c.write.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	if opcode != opBinary { // written by the reader, who must not wait for a client that does not read
		c.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	}
	c.closed = opcode == opClose
	_, err := c.Conn.Write(frame)
	return err
}

// goodbye sends a close frame, as far as the client takes one.
func (c *wsConn) goodbye(status uint16) error {
	return c.send(opClose, binary.BigEndian.AppendUint16(nil, status))
}

// CloseWrite says that nothing more will be sent.
func (c *wsConn) CloseWrite() error { return c.goodbye(closeNormal) }

// Close ends the connection at once. It does not close TLS, whose farewell could
// wait for the peer.
func (c *wsConn) Close() error {
	if t, ok := c.Conn.(*tls.Conn); ok {
		return t.NetConn().Close()
	}
	return c.Conn.Close()
}
