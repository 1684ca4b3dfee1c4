package mqtt

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// A violation after CONNECT ends the connection with its code, and what came
// before it in the same read is acknowledged.
func TestMalformedPackets(t *testing.T) {
	longTopic := append([]byte{0xff, 0xff}, strings.Repeat("x", 10)...)
	for _, x := range []struct {
		name    string
		version byte // 0: both
		raw     []byte
		code    reason
	}{
		{"reserved type 0", 0, unhex("0000"), malformed},
		{"length of 5 bytes", 0, unhex("30 80808080 01"), malformed},
		{"length of 4 bytes, all more", 0, unhex("c0 ffffffff"), malformed},
		{"length not in shortest form", v5, unhex("c0 8000"), malformed},
		{"too large", 0, unhex("30 ffffff7f"), packetTooLarge},
		{"just too large", 0, framed(0x30, make([]byte, 4094))[:10], packetTooLarge},

		{"PUBLISH QoS 3", 0, framed(0x36, unhex("0006 646174612f78 0001 31")), malformed},
		{"PUBLISH DUP with QoS 0", v311, framed(0x38, unhex("0006 646174612f78 31")), protocolError},
		{"PUBLISH DUP with QoS 0", v5, framed(0x38, unhex("0006 646174612f78 00 31")), protocolError},
		{"PUBLISH packet id 0", v311, framed(0x32, unhex("0006 646174612f78 0000 31")), protocolError},
		{"PUBLISH packet id 0", v5, framed(0x32, unhex("0006 646174612f78 0000 00 31")), protocolError},
		{"PUBLISH without packet id", 0, framed(0x32, unhex("0006 646174612f78")), malformed},
		{"PUBLISH with half a packet id", 0, framed(0x32, unhex("0006 646174612f78 00")), malformed},
		{"PUBLISH empty", 0, unhex("3000"), malformed},
		{"PUBLISH topic longer than packet", 0, framed(0x30, longTopic), malformed},
		{"PUBLISH no topic", v311, framed(0x30, unhex("0000 31")), protocolError},
		{"PUBLISH no topic, no alias", v5, framed(0x30, unhex("0000 00 31")), protocolError},
		{"PUBLISH topic not UTF-8", 0, framed(0x30, unhex("0002 c328 00")), malformed},
		{"PUBLISH topic with surrogate", 0, framed(0x30, unhex("0003 eda080 00")), malformed},
		{"PUBLISH topic overlong UTF-8", 0, framed(0x30, unhex("0002 c0af 00")), malformed},
		{"PUBLISH topic with NUL", 0, framed(0x30, unhex("0003 610062 00")), malformed},
		{"PUBLISH topic with +", 0, framed(0x30, unhex("0006 646174612f2b 00")), protocolError},
		{"PUBLISH topic with #", 0, framed(0x30, unhex("0006 646174612f23 00")), protocolError},
		{"PUBLISH without property length", v5, framed(0x30, unhex("0006 646174612f78")), malformed},
		{"PUBLISH properties longer than packet", v5, framed(0x30, unhex("0006 646174612f78 05 0101")), malformed},
		{"PUBLISH unknown property", v5, framed(0x30, unhex("0006 646174612f78 02 7f01")), malformed},
		{"PUBLISH property of CONNECT", v5, framed(0x30, unhex("0006 646174612f78 05 1100000000")), malformed},
		{"PUBLISH property twice", v5, framed(0x30, unhex("0006 646174612f78 04 0101 0101")), protocolError},
		{"PUBLISH payload format 2", v5, framed(0x30, unhex("0006 646174612f78 02 0102")), protocolError},
		{"PUBLISH truncated property", v5, framed(0x30, unhex("0006 646174612f78 03 020000")), malformed},
		{"PUBLISH content type not UTF-8", v5, framed(0x30, unhex("0006 646174612f78 04 030001ff")), malformed},
		{"PUBLISH response topic with wildcard", v5, framed(0x30, unhex("0006 646174612f78 04 08000123")), protocolError},
		{"PUBLISH subscription id", v5, framed(0x30, unhex("0006 646174612f78 02 0b01")), protocolError},
		{"PUBLISH retained", v5, framed(0x31, unhex("0006 646174612f78 00 31")), retainNotSupported},
		{"PUBLISH alias over maximum", v5, framed(0x30, unhex("0006 646174612f78 03 230021")), aliasInvalid},
		{"PUBLISH alias 0", v5, framed(0x30, unhex("0006 646174612f78 03 230000")), aliasInvalid},
		{"PUBLISH alias never set", v5, framed(0x30, unhex("0000 03 230001")), protocolError},

		{"PUBREL flags", 0, unhex("60 02 0001"), malformed},
		{"PUBREL short", 0, unhex("62 01 00"), malformed},
		{"PUBREL packet id 0", 0, unhex("62 02 0000"), protocolError},
		{"PUBREL long", v311, unhex("62 03 000100"), malformed},
		{"PUBREL code", v5, unhex("62 03 000180"), protocolError},
		{"PUBREL properties", v5, unhex("62 05 0001 00 01 ff"), malformed},
		{"PUBACK", 0, unhex("40 02 0001"), protocolError},
		{"PUBREC", 0, unhex("50 02 0001"), protocolError},
		{"PUBCOMP", 0, unhex("70 02 0001"), protocolError},

		{"second CONNECT", v311, hello{version: v311, id: "a", clean: true}.bytes(), protocolError},
		{"second CONNECT", v5, hello{version: v5, id: "a", clean: true}.bytes(), protocolError},
		{"CONNACK", 0, unhex("20 02 0000"), protocolError},
		{"SUBACK", 0, unhex("90 03 000100"), protocolError},
		{"UNSUBACK", 0, unhex("b0 02 0001"), protocolError},
		{"PINGRESP", 0, unhex("d0 00"), protocolError},
		{"PINGREQ with body", 0, unhex("c0 01 00"), malformed},
		{"PINGREQ flags", 0, unhex("c1 00"), malformed},
		{"AUTH", v5, unhex("f0 00"), protocolError},
		{"AUTH flags", v5, unhex("f1 00"), malformed},
		{"AUTH", v311, unhex("f0 00"), malformed},

		{"SUBSCRIBE flags", 0, unhex("80 06 0001 0001 61 00"), malformed},
		{"SUBSCRIBE packet id 0", v311, unhex("82 06 0000 0001 61 00"), protocolError},
		{"SUBSCRIBE packet id 0", v5, unhex("82 07 0000 00 0001 61 00"), protocolError},
		{"SUBSCRIBE no filter", v311, unhex("82 02 0001"), protocolError},
		{"SUBSCRIBE no filter", v5, unhex("82 03 0001 00"), protocolError},
		{"SUBSCRIBE QoS 3", v311, unhex("82 06 0001 0001 61 03"), malformed},
		{"SUBSCRIBE QoS 3", v5, unhex("82 07 0001 00 0001 61 03"), protocolError},
		{"SUBSCRIBE reserved options", v311, unhex("82 06 0001 0001 61 04"), malformed},
		{"SUBSCRIBE reserved options", v5, unhex("82 07 0001 00 0001 61 40"), malformed},
		{"SUBSCRIBE retain handling 3", v5, unhex("82 07 0001 00 0001 61 30"), protocolError},
		{"SUBSCRIBE shared, no local", v5, framed(0x82, append(append(unhex("0001 00"), appendText(nil, "$share/a/b")...), 4)), protocolError},
		{"SUBSCRIBE without options", v311, unhex("82 05 0001 0001 61"), malformed},
		{"SUBSCRIBE filter not UTF-8", v311, unhex("82 06 0001 0001 ff 00"), malformed},
		{"SUBSCRIBE subscription id 0", v5, unhex("82 09 0001 02 0b00 0001 61 00"), protocolError},
		{"SUBSCRIBE two subscription ids", v5, unhex("82 0b 0001 04 0b010b02 0001 61 00"), protocolError},
		{"SUBSCRIBE shared without a name", v5, framed(0x82, append(append(unhex("0001 00"), appendText(nil, "$share//b")...), 0)), protocolError},
		{"SUBSCRIBE shared without a filter", v5, framed(0x82, append(append(unhex("0001 00"), appendText(nil, "$share/a")...), 0)), protocolError},
		{"SUBSCRIBE shared with a wildcard for a name", v5, framed(0x82, append(append(unhex("0001 00"), appendText(nil, "$share/+/b")...), 0)), protocolError},
		{"PUBACK flags", 0, unhex("42 02 0001"), malformed},
		{"PUBACK short", 0, unhex("40 01 00"), malformed},
		{"PUBACK packet id 0", 0, unhex("40 02 0000"), protocolError},
		{"PUBACK long", v311, unhex("40 03 000100"), malformed},
		{"PUBACK code", v5, unhex("40 03 000192"), protocolError},
		{"PUBACK properties", v5, unhex("40 05 0001 00 01 ff"), malformed},
		{"SUBSCRIBE empty filter", v311, unhex("82 05 0001 0000 00"), protocolError},
		{"SUBSCRIBE empty filter", v5, unhex("82 06 0001 00 0000 00"), protocolError},
		{"SUBSCRIBE # before the end", v311, unhex("82 08 0001 0003 232f61 00"), protocolError},
		{"SUBSCRIBE + beside others", v5, unhex("82 08 0001 00 0002 612b 00"), protocolError},
		{"UNSUBSCRIBE empty filter", v311, unhex("a2 04 0001 0000"), protocolError},
		{"UNSUBSCRIBE # beside others", v5, unhex("a2 07 0001 00 0002 6123"), protocolError},
		{"UNSUBSCRIBE flags", 0, unhex("a0 05 0001 0001 61"), malformed},
		{"UNSUBSCRIBE no filter", v311, unhex("a2 02 0001"), protocolError},
		{"UNSUBSCRIBE packet id 0", v311, unhex("a2 05 0000 0001 61"), protocolError},
		{"UNSUBSCRIBE filter cut", v311, unhex("a2 04 0001 0001"), malformed},

		{"DISCONNECT flags", 0, unhex("e1 00"), malformed},
		{"DISCONNECT with body", v311, unhex("e0 01 00"), malformed},
		{"DISCONNECT property of PUBLISH", v5, unhex("e0 04 00 02 0100"), malformed},
		{"DISCONNECT code of a server", v5, unhex("e0 01 8b"), protocolError},
		{"DISCONNECT code of nothing", v5, unhex("e0 01 03"), protocolError},
		{"DISCONNECT server reference", v5, unhex("e0 06 00 04 1c000161"), malformed},
		{"DISCONNECT trailing bytes", v5, unhex("e0 03 00 00 00"), malformed},
	} {
		for _, v := range versions {
			if x.version != 0 && x.version != v {
				continue
			}
			t.Run(x.name, func(t *testing.T) {
				h := newHub()
				c := newPipes(t, h, Options{MaxPacket: 4096}).dial(holdfast.DeviceID{1})
				c.connect(hello{version: v, id: "a", clean: true})
				c.write(slices.Concat(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}), x.raw))
				c.expect(typePuback, "0001")
				why := c.expectEnd(x.code)
				if (v == v5) != (why != "") {
					t.Errorf("v%d: reason %q", v, why)
				}
				if n := len(h.arrivals()); n != 1 {
					t.Errorf("v%d: %d arrivals", v, n)
				}
			})
		}
	}
}

// What is wrong with CONNECT is told in CONNACK where the version has a word.
func TestMalformedConnects(t *testing.T) {
	for _, x := range []struct {
		name string
		raw  []byte
		want string // CONNACK's first two bytes and how many follow; "": closed unanswered
	}{
		{"PUBLISH first", framed(0x30, unhex("0006 646174612f78 31")), ""},
		{"PINGREQ first", unhex("c000"), ""},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), ""},
		{"empty", unhex("1000"), ""},
		{"flags", framed(0x11, hello{version: v5, id: "a"}.bytes()[2:]), ""},
		{"length", unhex("10 ffffffff"), ""},
		{"too large", unhex("10 ffff7f"), ""},
		{"MQTT 3.1", framed(0x10, unhex("0006 4d5149736470 03 02 003c 0001 61")), "0001"},
		{"level 3 of MQTT", framed(0x10, unhex("0004 4d515454 03 02 003c 0001 61")), "0001"},
		{"level 6", framed(0x10, unhex("0004 4d515454 06 02 003c 00 0001 61")), "0084"},
		{"another protocol", framed(0x10, unhex("0004 4d515455 05 02 003c 00 0001 61")), ""},
		{"a bridge", framed(0x10, unhex("0004 4d515454 84 02 003c 0001 61")), "0001"},
		{"length not in shortest form", append(unhex("10 8e00"), unhex("0004 4d515454 05 02 003c 00 0001 61")...), "0081"},
		{"reserved flag", framed(0x10, unhex("0004 4d515454 05 03 003c 00 0001 61")), "0081"},
		{"reserved flag", framed(0x10, unhex("0004 4d515454 04 03 003c 0001 61")), ""},
		{"will QoS 3", framed(0x10, unhex("0004 4d515454 05 1e 003c 00 0001 61 00 0001 61 0000")), "0081"},
		{"will flags without will", framed(0x10, unhex("0004 4d515454 05 0a 003c 00 0001 61")), "0081"},
		{"password without name", framed(0x10, unhex("0004 4d515454 04 42 003c 0001 61 0000")), ""},
		{"client id missing", framed(0x10, unhex("0004 4d515454 05 02 003c 00")), "0081"},
		{"client id not UTF-8", framed(0x10, unhex("0004 4d515454 05 02 003c 00 0001 ff")), "0081"},
		{"trailing bytes", framed(0x10, unhex("0004 4d515454 05 02 003c 00 0001 61 00")), "0081"},
		{"user name missing", framed(0x10, unhex("0004 4d515454 05 82 003c 00 0001 61")), "0081"},
		{"receive maximum 0", framed(0x10, unhex("0004 4d515454 05 02 003c 03 210000 0001 61")), "0082"},
		{"maximum packet size 0", framed(0x10, unhex("0004 4d515454 05 02 003c 05 2700000000 0001 61")), "0082"},
		{"property twice", framed(0x10, unhex("0004 4d515454 05 02 003c 04 17011701 0001 61")), "0082"},
		{"property of PUBLISH", framed(0x10, unhex("0004 4d515454 05 02 003c 02 0101 0001 61")), "0081"},
		{"authentication method", framed(0x10, unhex("0004 4d515454 05 02 003c 04 15000161 0001 61")), "008c"},
		{"authentication data alone", framed(0x10, unhex("0004 4d515454 05 02 003c 04 16000161 0001 61")), "0082"},
		{"will topic with NUL", framed(0x10, unhex("0004 4d515454 05 06 003c 00 0001 61 00 0001 00 0000")), "0081"},
		{"will properties cut", framed(0x10, unhex("0004 4d515454 05 06 003c 00 0001 61 05 18")), "0081"},
	} {
		t.Run(x.name, func(t *testing.T) {
			h := newHub()
			c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
			c.write(x.raw)
			if x.want != "" {
				p := c.next()
				if p.kind != typeConnack || !slices.Equal(p.body[:2], unhex(x.want)) {
					t.Errorf("received %v, want %s", p, x.want)
				}
			}
			c.expectClosed()
			if len(h.sessions) != 0 {
				t.Error("a session was opened")
			}
		})
	}
}

// User names and passwords are read and thrown away.
func TestUserNamesAreIgnored(t *testing.T) {
	c := newPipes(t, newHub(), Options{}).dial(holdfast.DeviceID{1})
	c.send(framed(0x10, unhex("0004 4d515454 05 c2 003c 00 0001 61 0002 6865 0002 ff00")))
	if p := c.next(); p.kind != typeConnack || p.body[1] != 0 {
		t.Errorf("received %v", p)
	}
}

// A server without a Source, and filters that it knows nothing of.
func TestSubscriptionsAreRefused(t *testing.T) {
	h := newHub()
	p := newPipes(t, h, Options{})
	p.s.o.Source = nil
	c := p.dial(holdfast.DeviceID{1})
	c.connect(hello{version: v5, id: "a"})
	c.send(c.subscribeWith(0x102, 1, nil, "cmd", "desired", "feed/x"))
	c.expect(typeSuback, "0102 00 87 87 87")
	c.send(framed(0xa2, append(unhex("0103 00"), appendText(appendText(nil, "a"), "b")...)))
	c.expect(typeUnsuback, "0103 00 11 11")
	p = newPipes(t, h, Options{})
	c = p.dial(holdfast.DeviceID{1})
	c.connect(hello{version: v311, id: "b"})
	c.send(c.subscribeWith(0x102, 2, nil, "#", "a/+/b/#", "$share/g/x", "$share/g", "$SYS/x"))
	c.expect(typeSuback, "0102 80 80 80 80 80")
	c.send(framed(0xa2, append(unhex("0103"), appendText(appendText(nil, "a"), "b")...)))
	c.expect(typeUnsuback, "0103")
}
