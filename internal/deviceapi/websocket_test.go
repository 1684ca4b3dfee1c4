package deviceapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
)

const opening = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt"

// masked makes a client's frame.
func masked(first byte, content []byte) []byte {
	out := []byte{first}
	switch n := len(content); {
	case n < 126:
		out = append(out, 0x80|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	var mask [4]byte
	rand.Read(mask[:])
	out = append(out, mask[:]...)
	for i, b := range content {
		out = append(out, b^mask[i&3])
	}
	return out
}

// wsClient is the client's side as a stream of bytes, written apart from the
// server's. It sends each write in two frames with a ping between.
type wsClient struct {
	net.Conn
	in    *bufio.Reader
	rest  []byte
	pongs atomic.Int32
}

func (c *wsClient) Write(p []byte) (int, error) {
	half := len(p) / 2
	frames := append(masked(opBinary, p[:half]), masked(0x80|opPing, []byte("ping"))...)
	if _, err := c.Conn.Write(append(frames, masked(0x80|opContinue, p[half:])...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *wsClient) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		var head [2]byte
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			return 0, err
		}
		size := int(head[1])
		if size == 126 {
			var more [2]byte
			io.ReadFull(c.in, more[:])
			size = int(binary.BigEndian.Uint16(more[:]))
		}
		content := make([]byte, size)
		if _, err := io.ReadFull(c.in, content); err != nil {
			return 0, err
		}
		switch head[0] {
		case 0x80 | opBinary:
			c.rest = content
		case 0x80 | opPong:
			if string(content) != "ping" {
				return 0, errors.New("a pong with other content")
			}
			c.pongs.Add(1)
		case 0x80 | opClose:
			return 0, io.EOF
		default:
			return 0, errors.New("a frame that should not come")
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// webSocket opens one as x. The handshake is that of RFC 6455, section 1.3.
func (x *thing) webSocket() *wsClient {
	x.h.t.Helper()
	nc := x.dial()
	must(io.WriteString(nc, opening+"\r\n\r\n"))(x.h.t)
	in := bufio.NewReader(nc)
	r := must(http.ReadResponse(in, nil))(x.h.t)
	if r.StatusCode != 101 || r.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || r.Header.Get("Sec-WebSocket-Protocol") != "mqtt" {
		x.h.t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
	return &wsClient{Conn: nc, in: in}
}

// Another's MQTT client sends through the WebSocket, and is cut when its device
// is revoked.
func TestMQTTOverWebSocket(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	ws := x.webSocket()
	ended := make(chan error, 1)
	// The client pings from a goroutine of its own, between the writes of a packet.
	safe := packets.NewThreadSafeConn(ws)
	c := paho.NewClient(paho.ClientConfig{Conn: safe, OnClientError: func(err error) { ended <- err },
		OnServerDisconnect: func(d *paho.Disconnect) { ended <- errors.New("disconnected") }})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.Connect(ctx, &paho.Connect{ClientID: "page", KeepAlive: 60, CleanStart: true}); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 100_000) // beyond the buffer, with a 64-bit length
	for topic, payload := range map[string]string{"data/temperature": "21.5", "data/text": text} {
		if r, err := c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)}); err != nil || r.ReasonCode != 0 {
			t.Fatal(topic, r, err)
		}
	}
	if got := h.readings(x.id, "temperature"); len(got) != 1 || got[0].Value != holdfast.NumberValue(21.5) {
		t.Errorf("%v", got)
	}
	if got := h.readings(x.id, "text"); len(got) != 1 || got[0].Value.Text() != text {
		t.Errorf("%d texts", len(got))
	}
	if ws.pongs.Load() == 0 {
		t.Error("no ping was answered")
	}
	if err := h.identity.Revoke(t.Context(), x.id, "lost"); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "the WebSocket of a revoked device", ended)
	until(t, "it is forgotten", func() bool { return h.identity.Connected(x.id) == 0 })
}

func TestOpeningsThatAreNone(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	for name, c := range map[string]struct {
		from, to string
		status   int
	}{
		"as it should be":      {"", "", 101},
		"a page of the hub":    {"\r\nUpgrade", "\r\nOrigin: https://localhost\r\nUpgrade", 101},
		"a page of another":    {"\r\nUpgrade", "\r\nOrigin: https://evil.example\r\nUpgrade", 403},
		"no page at all":       {"\r\nUpgrade", "\r\nOrigin: null\r\nUpgrade", 403},
		"another version":      {"Version: 13", "Version: 8", 400},
		"no upgrade":           {", Upgrade", "", 400},
		"another protocol":     {"Upgrade: websocket", "Upgrade: h2c", 400},
		"another subprotocol":  {"mqttv3.1, mqtt", "chat", 400},
		"a nonce that is none": {"dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 400},
		"a POST":               {"GET", "POST", 404},
	} {
		nc := x.dial()
		must(io.WriteString(nc, strings.Replace(opening, c.from, c.to, 1)+"\r\n\r\n"))(t)
		r := must(http.ReadResponse(bufio.NewReader(nc), nil))(t)
		if r.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", name, r.StatusCode, c.status)
		}
		nc.Close()
	}
	if got := readReply(t, must(x.http.Get(h.url+"/mqtt"))(t)); got.status != 400 {
		t.Errorf("plain GET: %d", got.status)
	}
}

// stub is a connection that gives what it was handed and keeps what is written.
type stub struct {
	io.Reader
	written bytes.Buffer
}

func (s *stub) Write(p []byte) (int, error)      { return s.written.Write(p) }
func (s *stub) Close() error                     { return nil }
func (s *stub) LocalAddr() net.Addr              { return from("local") }
func (s *stub) RemoteAddr() net.Addr             { return from("remote") }
func (s *stub) SetDeadline(time.Time) error      { return nil }
func (s *stub) SetReadDeadline(time.Time) error  { return nil }
func (s *stub) SetWriteDeadline(time.Time) error { return nil }

func readFrames(frames []byte) (content, answer []byte, err error) {
	s := &stub{Reader: bytes.NewReader(frames)}
	content, err = io.ReadAll(&wsConn{Conn: s, in: bufio.NewReader(s)})
	return content, s.written.Bytes(), err
}

// The frames of RFC 6455, section 5.7, and what breaks it.
func TestFrames(t *testing.T) {
	hello := []byte{0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58} // the RFC's, as binary
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	protocolError := []byte{0x88, 2, 0x03, 0xea}
	normal := []byte{0x88, 2, 0x03, 0xe8}
	for name, c := range map[string]struct {
		frames  []byte
		content string
		answer  []byte
		bad     bool
	}{
		"Hello":             {hello, "Hello", nil, false},
		"ping between":      {join(masked(0x02, []byte("Hel")), []byte{0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}, masked(0x80, []byte("lo"))), "Hello", append([]byte{0x8a, 5}, "Hello"...), false},
		"pong":              {join(masked(0x8a, []byte("x")), hello), "Hello", nil, false},
		"empty":             {join(masked(0x82, nil), hello), "Hello", nil, false},
		"close":             {join(hello, masked(0x88, []byte{3, 0xe8}), hello), "Hello", normal, false},
		"126":               {masked(0x82, make([]byte, 126)), string(make([]byte, 126)), nil, false},
		"65536":             {masked(0x82, make([]byte, 65536)), string(make([]byte, 65536)), nil, false},
		"not masked":        {[]byte{0x82, 5, 'H', 'e', 'l', 'l', 'o'}, "", protocolError, true},
		"text":              {masked(0x81, []byte("x")), "", protocolError, true},
		"compressed":        {masked(0xc2, []byte("x")), "", protocolError, true},
		"opcode 3":          {masked(0x83, []byte("x")), "", protocolError, true},
		"opcode 11":         {masked(0x8b, []byte("x")), "", protocolError, true},
		"continues nothing": {masked(0x80, []byte("x")), "", protocolError, true},
		"begins twice":      {join(masked(0x02, []byte("a")), masked(0x82, []byte("b"))), "a", protocolError, true},
		"half a ping":       {masked(0x09, []byte("a")), "", protocolError, true},
		"long ping":         {masked(0x89, make([]byte, 126)), "", protocolError, true},
		"too long":          {[]byte{0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0}, "", protocolError, true},
		"negative":          {[]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, "", protocolError, true},
	} {
		content, answer, err := readFrames(c.frames)
		if string(content) != c.content || !bytes.Equal(answer, c.answer) || (err != nil) != c.bad {
			t.Errorf("%s: read %q, answered %x, %v", name, content, answer, err)
		}
	}
}

// A read that has reached its deadline can be repeated, wherever that was.
func TestReadsCanBeRepeated(t *testing.T) {
	want := strings.Repeat("0123456789", 50)
	frames := append(masked(0x02, []byte(want[:300])), append(masked(0x89, []byte("x")), masked(0x80, []byte(want[300:]))...)...)
	s := &stub{Reader: &tired{in: iotest.OneByteReader(bytes.NewReader(frames))}}
	c := &wsConn{Conn: s, in: bufio.NewReader(s)}
	var got []byte
	deadlines := 0
	for {
		p := make([]byte, 7)
		n, err := c.Read(p)
		got = append(got, p[:n]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			deadlines++
			continue
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if string(got) != want || deadlines < len(frames) {
		t.Errorf("read %d bytes with %d deadlines between", len(got), deadlines)
	}
}

// tired reaches its deadline before each byte.
type tired struct {
	in    io.Reader
	awake bool
}

func (r *tired) Read(p []byte) (int, error) {
	if r.awake = !r.awake; r.awake {
		return 0, os.ErrDeadlineExceeded
	}
	return r.in.Read(p)
}

func FuzzFrames(f *testing.F) {
	f.Add(masked(0x82, []byte("Hello")))
	f.Add(append(masked(0x02, []byte("Hel")), masked(0x80, []byte("lo"))...))
	f.Add(masked(0x88, []byte{3, 0xe8}))
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, frames []byte) {
		content, answer, err := readFrames(frames)
		if len(content) > len(frames) || len(answer) > 2*len(frames)+4 {
			t.Errorf("%d bytes became %d and %d, %v", len(frames), len(content), len(answer), err)
		}
		// The same, byte by byte.
		s := &stub{Reader: iotest.OneByteReader(bytes.NewReader(frames))}
		again, _ := io.ReadAll(&wsConn{Conn: s, in: bufio.NewReader(s)})
		if !bytes.Equal(content, again) {
			t.Error("read byte by byte it is something else")
		}
	})
}

// Who hangs up reads what is left while the reader still waits: neither may be in
// the other's way.
func TestTwoMayRead(t *testing.T) {
	server, client := net.Pipe()
	defer client.Close()
	c := &wsConn{Conn: server, in: bufio.NewReader(server)}
	waiting := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := c.Read(make([]byte, 16))
			waiting <- err
		}()
	}
	if err := server.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if ne, ok := errors.AsType[net.Error](<-waiting); !ok || !ne.Timeout() {
			t.Error("a read ended otherwise than by its deadline")
		}
	}
}
