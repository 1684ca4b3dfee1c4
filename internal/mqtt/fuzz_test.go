package mqtt

import (
	"bytes"
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/mochi-mqtt/server/v2/packets"
)

// FuzzParse reads any bytes as any packet. What is accepted as a PUBLISH is read
// by mochi to the same.
func FuzzParse(f *testing.F) {
	for _, cases := range packets.TPacketData {
		for _, x := range cases {
			f.Add(x.RawBytes, false)
			f.Add(x.RawBytes, true)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, five bool) {
		version := byte(v311)
		if five {
			version = v5
		}
		header, total, err := frame(b, 1<<16, version)
		if err != nil || total == 0 || total > len(b) {
			return
		}
		if header < 2 || header > maxHeader || total < header {
			t.Fatalf("header of %d, packet of %d", header, total)
		}
		h, body := typePublish<<4|b[0]&0x0f, b[header:total]
		kept := bytes.Clone(body)
		var c connect
		parseConnect(h, body, &c)
		parsePubrel(h, body, version)
		for _, packet := range []byte{typeSubscribe, typeUnsubscribe} {
			if q, err := parseSubscribe(packet, h, body, version); err == nil {
				for range q.n {
					if filter, _ := q.next(packet); len(filter) == 0 {
						t.Fatal("a subscription without a filter was accepted")
					}
				}
				if q.n == 0 || q.filters.bad || len(q.filters.b) > 0 {
					t.Fatal("the filters are not what was counted")
				}
			}
		}
		parsePuback(h, body, version)
		parseDisconnect(h, body, version)
		var p publish
		if parsePublish(h, body, version, &p) == nil && checkTopic(p.topic) == nil {
			compare(t, h, body, version, &p)
			r := routeOf(string(p.topic))
			var one [1]holdfast.Sample
			if s, err := r.samples(message{p.payload, p.content, p.utf8}, &one); err == nil {
				for _, s := range s {
					if !s.Value.Type().Valid() || s.Stream == "" {
						t.Fatalf("a sample without value or stream: %+v", s)
					}
				}
			}
		}
		if !bytes.Equal(body, kept) {
			t.Fatal("parsing has changed the packet")
		}
	})
}

func compare(t *testing.T, h byte, body []byte, version byte, p *publish) {
	pk := packets.Packet{ProtocolVersion: version}
	if err := pk.FixedHeader.Decode(h); err != nil {
		t.Fatalf("mochi refuses the header 0x%02X: %v", h, err)
	}
	pk.FixedHeader.Remaining = len(body)
	if err := pk.PublishDecode(body); err != nil {
		t.Fatalf("mochi refuses %x: %v", body, err)
	}
	if pk.TopicName != string(p.topic) || !bytes.Equal(pk.Payload, p.payload) || pk.PacketID != p.id || pk.FixedHeader.Qos != p.qos ||
		pk.Properties.TopicAlias != p.alias || pk.Properties.ContentType != string(p.content) {
		t.Fatalf("%x is read as %+v, by mochi as %+v", body, p, pk)
	}
}

// FuzzSession sends any bytes to a server, alone and behind a CONNECT. Whatever
// they are, the connection ends and nothing is left of it.
func FuzzSession(f *testing.F) {
	for _, v := range versions {
		x := pub{qos: 1, id: 1, topic: "data/x", payload: "1"}
		y := pub{qos: 2, id: 2, topic: "child/c/event/boot", payload: "up"}
		f.Add(hello{version: v, id: "a", will: &testWill{topic: "event/gone"}}.bytes(), byte(0))
		f.Add(slices.Concat(x.bytes(v), y.bytes(v), pubrel(2), []byte{0xc0, 0}), v)
		f.Add(slices.Concat(x.bytes(v), framed(0x82, unhex("0001 0001 61 00")), []byte{0xe0, 0}), v)
		f.Add(framed(0x30, make([]byte, 10_000)), v)
		c := client{version: v}
		f.Add(slices.Concat(c.subscribeWith(1, 1, nil, "feed/#", "$share/g/feed/#", "cmd/#"), puback(1), puback(2), puback(9), []byte{0xc0, 0}), v)
	}
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		h := newHub()
		h.board.fromStart = true
		h.board.post(readings(100)...)
		s := New(authenticate, h, h, Options{MaxPacket: 16 << 10, MaxInflightBytes: 100, Source: h.board})
		ours, theirs := net.Pipe()
		ended := make(chan struct{})
		go func() {
			s.ServeConn(context.Background(), theirs, state(holdfast.DeviceID{1}, time.Time{}))
			close(ended)
		}()
		answered := make(chan error, 1)
		go func() {
			for {
				if _, err := readPacket(ours); err != nil {
					answered <- err
					return
				}
			}
		}()
		if version == v311 || version == v5 {
			ours.Write(hello{version: version, id: "a", clean: true}.bytes())
		}
		ours.Write(b)
		ours.Write([]byte{0xe0, 0}) // where a packet is expected: goodbye
		ours.Close()
		<-ended
		<-answered
		if len(s.groups) != 0 || h.board.isOpen() != 0 {
			t.Errorf("left behind: %d groups, %d subscriptions", len(s.groups), h.board.isOpen())
		}
		if s.door.open != 0 || len(s.conns) != 0 || len(s.registry.counts) != 0 {
			t.Errorf("left behind: %d at the door, %d connections, %d devices", s.door.open, len(s.conns), len(s.registry.counts))
		}
		s.registry.close()
	})
}
