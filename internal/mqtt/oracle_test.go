package mqtt

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/mochi-mqtt/server/v2/packets"
)

// The packets package of mochi, another implementation, is the witness: its
// vectors are read here, and it reads what is written here.

func TestVectorsOfPublish(t *testing.T) {
	n := 0
	for _, x := range packets.TPacketData[packets.Publish] {
		if x.Packet == nil || x.Group == "encode" || x.Group == "copy" || len(x.RawBytes) < 2 {
			continue
		}
		version := x.Packet.ProtocolVersion
		if version != v5 {
			version = v311
		}
		header, total, err := frame(x.RawBytes, 1<<20, version)
		if err != nil || total != len(x.RawBytes) {
			continue // vectors of its reader, not of the packet
		}
		n++
		var p publish
		err = parsePublish(x.RawBytes[0], x.RawBytes[header:], version, &p)
		if err == nil && len(p.topic) > 0 {
			err = checkTopic(p.topic)
		}
		if x.FailFirst != nil || x.Expect != nil {
			if err == nil && x.Group != "validate" {
				t.Errorf("%s: accepted, mochi says %v %v", x.Desc, x.FailFirst, x.Expect)
			}
			continue
		}
		if p.qos == 0 && p.dup { // mochi lets it pass; MQTT-3.3.1-2
			continue
		}
		w := x.Packet
		if err != nil {
			if len(w.Properties.SubscriptionIdentifier) > 0 {
				continue // a server's publish
			}
			t.Errorf("%s: %v", x.Desc, err)
			continue
		}
		got := fmt.Sprintf("%s %d %d %v %v %q %q %d", p.topic, p.qos, p.id, p.dup, p.retain, p.payload, p.content, p.alias)
		want := fmt.Sprintf("%s %d %d %v %v %q %q %d", w.TopicName, w.FixedHeader.Qos, w.PacketID, w.FixedHeader.Dup, w.FixedHeader.Retain, w.Payload, w.Properties.ContentType, w.Properties.TopicAlias)
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", x.Desc, got, want)
		}
	}
	if n < 15 {
		t.Errorf("only %d vectors were tried", n)
	}
}

func TestVectorsOfConnect(t *testing.T) {
	n := 0
	for _, x := range packets.TPacketData[packets.Connect] {
		fails := x.FailFirst != nil || x.Expect != nil
		if x.Packet == nil && !fails || x.Group == "encode" || len(x.RawBytes) < 2 {
			continue
		}
		n++ // the lengths of some don't fit: mochi, too, tries only what follows
		var c connect
		err := parseConnect(x.RawBytes[0], x.RawBytes[2:], &c)
		if fails {
			if err == nil {
				t.Errorf("%s: accepted, mochi says %v %v", x.Desc, x.FailFirst, x.Expect)
			}
			continue
		}
		w := x.Packet
		if w.ProtocolVersion == 3 || w.Properties.AuthenticationMethod != "" || w.Connect.WillRetain && w.ProtocolVersion == v5 {
			if err == nil {
				t.Errorf("%s: accepted", x.Desc)
			}
			continue // not offered here
		}
		if err != nil {
			t.Errorf("%s: %v", x.Desc, err)
			continue
		}
		got := fmt.Sprintf("%d %q %v %v %v", c.version, c.clientID, c.clean, c.keepAlive.Seconds(), c.will != nil)
		want := fmt.Sprintf("%d %q %v %v %v", w.ProtocolVersion, w.Connect.ClientIdentifier, w.Connect.Clean, w.Connect.Keepalive, w.Connect.WillFlag)
		if c.will != nil {
			got += fmt.Sprintf(" %s %q %v", c.will.topic, c.will.payload, c.will.delay.Seconds())
			want += fmt.Sprintf(" %s %q %v", w.Connect.WillTopic, w.Connect.WillPayload, w.Connect.WillProperties.WillDelayInterval)
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", x.Desc, got, want)
		}
	}
	if n < 15 {
		t.Errorf("only %d vectors were tried", n)
	}
}

func TestVectorsOfRarePackets(t *testing.T) {
	n := 0
	for _, kind := range []byte{packets.Puback, packets.Pubrel, packets.Subscribe, packets.Unsubscribe, packets.Disconnect} {
		for _, x := range packets.TPacketData[kind] {
			if x.Packet == nil || x.Group == "encode" || len(x.RawBytes) < 2 {
				continue
			}
			version := x.Packet.ProtocolVersion
			if version != v5 {
				version = v311
			}
			header, total, err := frame(x.RawBytes, 1<<20, version)
			if err != nil || total != len(x.RawBytes) {
				continue
			}
			n++
			h, body := x.RawBytes[0], x.RawBytes[header:]
			var id uint16
			filters := 0
			switch kind {
			case packets.Pubrel:
				id, err = parsePubrel(h, body, version)
			case packets.Subscribe:
				var q subscribe
				q, err = parseSubscribe(typeSubscribe, h, body, version)
				id, filters = q.id, q.n
			case packets.Unsubscribe:
				var q subscribe
				q, err = parseSubscribe(typeUnsubscribe, h, body, version)
				id, filters = q.id, q.n
			case packets.Puback:
				id, err = parsePuback(h, body, version)
			case packets.Disconnect:
				_, err = parseDisconnect(h, body, version)
			}
			switch {
			case x.FailFirst != nil || x.Expect != nil && x.Group != "validate":
				if err == nil {
					t.Errorf("%s %s: accepted, mochi says %v %v", packetNames[kind], x.Desc, x.FailFirst, x.Expect)
				}
			case x.Expect != nil: // what its validation says needs state
			case version == v5 && notFromClients(x):
				if err == nil {
					t.Errorf("%s %s: accepted", packetNames[kind], x.Desc)
				}
			case err != nil:
				t.Errorf("%s %s: %v", packetNames[kind], x.Desc, err)
			case id != x.Packet.PacketID || filters != len(x.Packet.Filters):
				t.Errorf("%s %s: id %d, %d filters", packetNames[kind], x.Desc, id, filters)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d vectors were tried", n)
	}
}

// notFromClients says that a vector is of a server.
func notFromClients(x packets.TPacketCase) bool {
	p := x.Packet
	return p.FixedHeader.Type == packets.Disconnect && !reason(p.ReasonCode).endsClient() ||
		p.FixedHeader.Type == packets.Publish && len(p.Properties.SubscriptionIdentifier) > 0
}

// Every vector of a packet that arrives after CONNECT, played to a session: it gets
// the answer of its kind, or ends the connection.
func TestVectorsThroughASession(t *testing.T) {
	answers := map[byte]byte{typePubrel: typePubcomp, typeSubscribe: typeSuback, typeUnsubscribe: typeUnsuback, typePingreq: typePingresp}
	n := 0
	for kind := byte(packets.Connack); kind <= packets.Auth; kind++ {
		for _, x := range packets.TPacketData[kind] {
			if x.Group == "encode" || x.Group == "copy" || len(x.RawBytes) < 2 {
				continue
			}
			version := byte(v311)
			if x.Packet != nil && x.Packet.ProtocolVersion == v5 {
				version = v5
			}
			if _, total, err := frame(x.RawBytes, 1<<20, version); err != nil || total == 0 || total > len(x.RawBytes) {
				continue
			}
			n++
			t.Run(packetNames[kind]+" "+x.Desc, func(t *testing.T) {
				c := newPipes(t, newHub(), Options{}).dial(holdfast.DeviceID{1})
				c.connect(hello{version: version, id: "a", clean: true})
				c.write(x.RawBytes)
				want, known := answers[kind]
				bad := x.FailFirst != nil || x.Packet == nil || version == v5 && notFromClients(x)
				if kind == packets.Publish && !bad {
					p := x.Packet.FixedHeader
					bad = p.Qos == 0 && p.Dup || p.Retain && version == v5 || x.Packet.TopicName == ""
					want, known = map[byte]byte{0: typePingresp, 1: typePuback, 2: typePubrec}[p.Qos], true
					c.write([]byte{typePingreq << 4, 0})
				}
				if bad || !known {
					c.nextUntilClosed()
					return
				}
				if p := c.next(); p.kind != want {
					t.Errorf("received %v, want %s", p, packetNames[want])
				}
			})
		}
	}
	if n < 80 {
		t.Errorf("only %d vectors were tried", n)
	}
}

// Vectors of what this server says are written here byte for byte as mochi has them.
func TestVectorsOfAnswers(t *testing.T) {
	n := 0
	for kind := byte(packets.Connack); kind <= packets.Disconnect; kind++ {
		for _, x := range packets.TPacketData[kind] {
			p := x.Packet
			if p == nil || x.Group != "" || x.FailFirst != nil || len(p.Properties.User) > 0 {
				continue
			}
			d := dialect{version: v311, problemInfo: true}
			if p.ProtocolVersion == v5 {
				d.version = v5
			}
			code, why := reason(p.ReasonCode), p.Properties.ReasonString
			codes := make([]reason, len(p.ReasonCodes))
			for i, c := range p.ReasonCodes {
				codes[i] = reason(c)
			}
			var b []byte
			switch kind {
			case packets.Connack:
				switch {
				case d.version == v5 && code != success:
					b = appendRefusal(nil, code, why, d)
				case d.version == v311 && code == success:
					b = appendConnack(nil, welcome{present: p.SessionPresent}, d)
				}
			case packets.Puback, packets.Pubrec, packets.Pubcomp:
				b = appendAck(nil, kind, p.PacketID, code, why, d)
			case packets.Suback, packets.Unsuback:
				if why == "" && x.Desc != "unsuback many" { // its codes are in the place of properties
					b = appendSuback(nil, kind, p.PacketID, codes, d)
				}
			case packets.Disconnect:
				if why != "" && p.Properties.SessionExpiryInterval == 0 { // only clients say when a session expires
					b = appendDisconnect(nil, code, why, d)
				}
			}
			if b == nil {
				continue
			}
			n++
			if !bytes.Equal(b, x.RawBytes) {
				t.Errorf("%s %s:\n got %x\nwant %x", packetNames[kind], x.Desc, b, x.RawBytes)
			}
		}
	}
	if n < 18 {
		t.Errorf("only %d vectors were tried", n)
	}
}

// reread decodes b by mochi.
func reread(t *testing.T, b []byte, version byte) packets.Packet {
	t.Helper()
	pk := packets.Packet{ProtocolVersion: version}
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		t.Fatal(err)
	}
	n, _, err := packets.DecodeLength(bytes.NewReader(b[1:]))
	header := len(b) - n
	if err != nil || header < 2 || header > 3 {
		t.Fatalf("length %d of %x: %v", n, b, err)
	}
	pk.FixedHeader.Remaining = n
	body := b[header:]
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Pubrec:
		err = pk.PubrecDecode(body)
	case packets.Pubcomp:
		err = pk.PubcompDecode(body)
	case packets.Suback:
		err = pk.SubackDecode(body)
	case packets.Unsuback:
		err = pk.UnsubackDecode(body)
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
	}
	if err != nil {
		t.Fatalf("mochi can't read %x: %v", b, err)
	}
	return pk
}

func TestAnswersAreReadable(t *testing.T) {
	long := "why " + string(bytes.Repeat([]byte("é"), 300)) + "\n\xff"
	for _, v := range versions {
		for _, why := range []string{"", "short", long[:130], long} {
			d := dialect{version: v, problemInfo: true}
			for _, kind := range []byte{typePuback, typePubrec, typePubcomp} {
				for _, code := range []reason{success, payloadInvalid} {
					p := reread(t, appendAck(nil, kind, 0x1234, code, why, d), v)
					if p.FixedHeader.Type != kind || p.PacketID != 0x1234 {
						t.Errorf("%d: %+v", kind, p)
					}
					if v == v5 && code != success && (p.ReasonCode != byte(code) || (p.Properties.ReasonString != "") != (why != "")) {
						t.Errorf("%d: code 0x%02X, %q", kind, p.ReasonCode, p.Properties.ReasonString)
					}
				}
			}
			if v == v5 {
				b := appendDisconnect(nil, serverBusy, why, d)
				p := reread(t, b, v)
				if len(b) == 3 { // mochi doesn't see a code without properties
					p.ReasonCode = b[2]
				}
				if p.ReasonCode != byte(serverBusy) || (p.Properties.ReasonString != "") != (why != "") {
					t.Errorf("DISCONNECT: %+v", p)
				}
				p = reread(t, appendRefusal(nil, badClientID, why, d), v)
				if p.ReasonCode != byte(badClientID) || (p.Properties.ReasonString != "") != (why != "") {
					t.Errorf("CONNACK: %+v", p)
				}
			}
		}
		d := dialect{version: v}
		codes := []reason{notAuthorized, topicInvalid}
		p := reread(t, appendSuback(nil, typeSuback, 7, codes, d), v)
		if p.PacketID != 7 || !bytes.Equal(p.ReasonCodes, []byte{0x87, 0x90}) {
			t.Errorf("SUBACK: %+v", p)
		}
		p = reread(t, appendSuback(nil, typeUnsuback, 7, codes, d), v)
		if p.PacketID != 7 || (len(p.ReasonCodes) == 2) != (v == v5) {
			t.Errorf("UNSUBACK: %+v", p)
		}
		w := welcome{present: true, assignedID: "auto-x", expiry: 60, keepAlive: 30, receiveMax: 64, aliasMax: 32, maxPacket: 1 << 19}
		p = reread(t, appendConnack(nil, w, d), v)
		if !p.SessionPresent || p.ReasonCode != 0 {
			t.Errorf("CONNACK: %+v", p)
		}
		if q := p.Properties; v == v5 && (q.AssignedClientID != "auto-x" || q.SessionExpiryInterval != 60 || q.ServerKeepAlive != 30 ||
			q.ReceiveMaximum != 64 || q.TopicAliasMaximum != 32 || q.MaximumPacketSize != 1<<19 || !q.RetainAvailableFlag || q.RetainAvailable != 0 ||
			q.WildcardSubAvailableFlag || q.SubIDAvailableFlag || q.SharedSubAvailableFlag) { // nothing said means that they are
			t.Errorf("CONNACK: %+v", q)
		}
		m := &parcel{Message: Message{Topic: "cmd/x", Payload: []byte("go"), Expiry: time.Minute, Correlation: []byte{0, 1}, ResponseTopic: "cmd/x/result", ContentType: "text/plain"},
			came: time.Now(), qos: 1, dup: true}
		m.id.Store(0x1234)
		p = reread(t, appendPublish(nil, m, 300, d), v)
		if p.TopicName != "cmd/x" || string(p.Payload) != "go" || p.PacketID != 0x1234 || p.FixedHeader.Qos != 1 || !p.FixedHeader.Dup || p.FixedHeader.Retain {
			t.Errorf("PUBLISH: %+v", p)
		}
		if q := p.Properties; v == v5 && (q.MessageExpiryInterval != 60 || q.ResponseTopic != "cmd/x/result" || string(q.CorrelationData) != "\x00\x01" ||
			q.ContentType != "text/plain" || !slices.Equal(q.SubscriptionIdentifier, []int{300})) {
			t.Errorf("PUBLISH: %+v", q)
		}
	}
}
