package mqtt

import (
	"math"
	"time"
)

// Bounds of a CONNECT beside the packet's own.
const (
	maxConnect  = 32 << 10
	maxClientID = 256
	maxWill     = 4 << 10
)

// connect is a CONNECT packet, copied out of the packet's memory.
type connect struct {
	version     byte
	clean       bool // clean session, clean start
	clientID    string
	keepAlive   time.Duration // 0: none
	expiry      time.Duration // of the session; 3.1.1 has none to say
	problemInfo bool
	maxPacket   uint32 // what the client takes, 0: anything
	receiveMax  uint16 // how many messages it leaves unacknowledged, 0: any number
	purpose     string // what it subscribes for, where SUBSCRIBE doesn't say
	will        *will
}

// will is what the server publishes when the connection ends ungracefully.
type will struct {
	topic   string
	payload []byte
	content string
	utf8    bool
	delay   time.Duration
}

// parseConnect reads a CONNECT. After an error c.version is what the answer must
// be written in, 0 if nothing can be answered.
func parseConnect(h byte, body []byte, c *connect) error {
	*c = connect{problemInfo: true}
	if h&0x0f != 0 {
		return &fault{malformed, "reserved flags of CONNECT are set"}
	}
	d := decoder{b: body}
	name, level := string(d.binary()), d.byte()
	if d.bad {
		return &fault{malformed, "CONNECT is malformed"}
	}
	switch {
	case name == "MQIsdp" && level == 3:
		c.version = v311 // 3.1 knows the same answer
		return &fault{unsupportedVersion, "MQTT 3.1 is not spoken here"}
	case name != "MQTT":
		return &fault{unsupportedVersion, "not MQTT"}
	case level == 0x80|v311: // as bridges of mosquitto begin; they try again without the bit
		c.version = v311
		return &fault{unsupportedVersion, "bridges are not served"}
	case level > v5:
		c.version = v5
		return &fault{unsupportedVersion, "MQTT 3.1.1 and 5 are spoken here"}
	case level < v311:
		c.version = v311
		return &fault{unsupportedVersion, "MQTT 3.1.1 and 5 are spoken here"}
	}
	c.version = level
	flags := d.byte()
	c.keepAlive = time.Duration(d.uint16()) * time.Second
	if err := c.readFlags(flags); err != nil {
		return err
	}
	if level == v5 {
		if err := c.readProperties(&d); err != nil {
			return err
		}
	}
	c.clientID = string(d.text())
	if flags&4 != 0 {
		if err := c.readWill(&d, flags); err != nil {
			return err
		}
	}
	if flags&0x80 != 0 {
		d.text() // a user name says nothing here
	}
	if flags&0x40 != 0 {
		d.binary()
	}
	if d.bad || len(d.b) > 0 {
		return &fault{malformed, "CONNECT is malformed"}
	}
	if len(c.clientID) > maxClientID || (c.clientID == "" && level == v311 && !c.clean) {
		return &fault{badClientID, "the client id is not valid"}
	}
	return nil
}

func (c *connect) readFlags(flags byte) error {
	c.clean = flags&2 != 0
	hasWill, qos := flags&4 != 0, flags>>3&3
	switch {
	case flags&1 != 0:
		return &fault{malformed, "the reserved flag of CONNECT is set"}
	case qos == 3:
		return &fault{malformed, "a will of QoS 3"}
	case !hasWill && flags&0x38 != 0:
		return &fault{malformed, "flags of a will without a will"}
	case c.version == v311 && flags&0xc0 == 0x40: // MQTT-3.1.2-22 of 3.1.1
		return &fault{malformed, "a password without a user name"}
	}
	return nil
}

func (c *connect) readProperties(d *decoder) error {
	var p properties
	if err := d.properties(typeConnect, &p); err != nil {
		return err
	}
	c.problemInfo = p.problemInfo == 1
	c.maxPacket = p.maxPacketSize
	c.receiveMax, c.purpose = p.receiveMax, string(p.purpose)
	c.expiry = seconds(p.sessionExpiry)
	if p.hasAuthMethod {
		return &fault{badAuthMethod, "there is no authentication but the certificate"}
	}
	return nil
}

func (c *connect) readWill(d *decoder, flags byte) error {
	w := &will{}
	if c.version == v5 {
		var p properties
		if err := d.properties(willProperties, &p); err != nil {
			return err
		}
		w.delay = seconds(p.willDelay)
		w.utf8 = p.payloadFormat == 1
		w.content = string(p.contentType)
	}
	topic := d.text()
	w.payload = append([]byte(nil), d.binary()...)
	if d.bad {
		return &fault{malformed, "the will is malformed"}
	}
	if err := checkTopic(topic); err != nil {
		return err
	}
	w.topic = string(topic)
	if len(w.payload) > maxWill {
		return &fault{quotaExceeded, "the will is larger than 4 KiB"}
	}
	if c.version == v5 && flags&0x20 != 0 {
		return &fault{retainNotSupported, "nothing is retained here"}
	}
	c.will = w
	return nil
}

// seconds turns an interval of MQTT 5 into a duration; the largest means never.
func seconds(n uint32) time.Duration {
	if n == math.MaxUint32 {
		return math.MaxInt64
	}
	return time.Duration(n) * time.Second
}
