package mqtt

import (
	"bytes"
)

// Identifiers of MQTT 5 properties (section 2.2.2.2).
const (
	propPayloadFormat        = 0x01
	propMessageExpiry        = 0x02
	propContentType          = 0x03
	propResponseTopic        = 0x08
	propCorrelationData      = 0x09
	propSubscriptionID       = 0x0B
	propSessionExpiry        = 0x11
	propAssignedClientID     = 0x12
	propServerKeepAlive      = 0x13
	propAuthMethod           = 0x15
	propAuthData             = 0x16
	propRequestProblemInfo   = 0x17
	propWillDelay            = 0x18
	propRequestResponseInfo  = 0x19
	propReasonString         = 0x1F
	propReceiveMaximum       = 0x21
	propTopicAliasMaximum    = 0x22
	propTopicAlias           = 0x23
	propRetainAvailable      = 0x25
	propUserProperty         = 0x26
	propMaxPacketSize        = 0x27
	propWildcardAvailable    = 0x28
	propSubscriptionIDsAvail = 0x29
	propSharedAvailable      = 0x2A
)

// propSet is a set of property identifiers.
type propSet uint64

func propsOf(ids ...byte) (s propSet) {
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

func (s propSet) has(id byte) bool { return id < 64 && s&(1<<id) != 0 }

// allowed says which properties a client may put into a packet.
func allowed(packet byte) propSet {
	switch packet {
	case typeConnect:
		return propsOf(propSessionExpiry, propReceiveMaximum, propMaxPacketSize, propTopicAliasMaximum,
			propRequestResponseInfo, propRequestProblemInfo, propUserProperty, propAuthMethod, propAuthData)
	case typePublish:
		return 1<<propPayloadFormat | 1<<propMessageExpiry | 1<<propTopicAlias | 1<<propResponseTopic |
			1<<propCorrelationData | 1<<propUserProperty | 1<<propSubscriptionID | 1<<propContentType
	case typePuback, typePubrel:
		return propsOf(propReasonString, propUserProperty)
	case typeSubscribe:
		return propsOf(propSubscriptionID, propUserProperty)
	case typeUnsubscribe:
		return propsOf(propUserProperty)
	case typeDisconnect:
		return propsOf(propSessionExpiry, propReasonString, propUserProperty)
	case willProperties:
		return propsOf(propWillDelay, propPayloadFormat, propMessageExpiry, propContentType,
			propResponseTopic, propCorrelationData, propUserProperty)
	}
	return 0
}

// willProperties is not a packet but the second set of properties of CONNECT.
const willProperties = 16

// properties holds what this server acts upon. The rest is checked and dropped;
// user properties are never echoed. contentType shares the packet's memory.
type properties struct {
	seen           propSet
	payloadFormat  byte
	contentType    []byte
	sessionExpiry  uint32
	problemInfo    byte // 1 unless the client said 0
	willDelay      uint32
	topicAlias     uint16
	maxPacketSize  uint32
	subscriptionID int
	hasAuthMethod  bool
	receiveMax     uint16
	purpose        []byte // the user property of this name, the first one; shares the packet's memory
}

// properties reads a set of properties of a packet.
func (d *decoder) properties(packet byte, p *properties) error {
	*p = properties{problemInfo: 1}
	n := d.varint()
	if n == 0 && !d.bad {
		return nil
	}
	in := decoder{b: d.take(n), bad: d.bad}
	may := allowed(packet)
	for len(in.b) > 0 && !in.bad {
		id := in.byte()
		if !may.has(id) {
			return &fault{malformed, "a property does not belong in this packet"}
		}
		if p.seen.has(id) && id != propUserProperty {
			return &fault{protocolError, "a property appears twice"}
		}
		p.seen |= 1 << id
		if err := p.read(id, &in); err != nil {
			return err
		}
	}
	if in.bad {
		d.bad = true
		return &fault{malformed, "the properties are malformed"}
	}
	if p.seen.has(propAuthData) && !p.hasAuthMethod {
		return &fault{protocolError, "authentication data without a method"}
	}
	return nil
}

func (p *properties) read(id byte, in *decoder) error {
	flag := func() byte {
		v := in.byte()
		if v > 1 {
			return 2
		}
		return v
	}
	var wrong bool // a value that the standard calls a protocol error
	switch id {
	case propPayloadFormat:
		p.payloadFormat = flag()
		wrong = p.payloadFormat > 1
	case propRequestProblemInfo:
		p.problemInfo = flag()
		wrong = p.problemInfo > 1
	case propRequestResponseInfo:
		wrong = flag() > 1
	case propMessageExpiry:
		in.uint32()
	case propContentType:
		p.contentType = in.text()
	case propResponseTopic:
		t := in.text()
		wrong = len(t) == 0 && !in.bad || bytes.ContainsAny(t, "+#")
	case propCorrelationData, propAuthData:
		in.binary()
	case propReasonString:
		in.text()
	case propAuthMethod:
		in.text()
		p.hasAuthMethod = true
	case propSubscriptionID:
		p.subscriptionID = in.varint()
		wrong = p.subscriptionID == 0 && !in.bad
	case propSessionExpiry:
		p.sessionExpiry = in.uint32()
	case propWillDelay:
		p.willDelay = in.uint32()
	case propReceiveMaximum:
		p.receiveMax = in.uint16()
		wrong = p.receiveMax == 0 && !in.bad
	case propTopicAliasMaximum:
		in.uint16()
	case propTopicAlias:
		p.topicAlias = in.uint16()
		if p.topicAlias == 0 && !in.bad {
			return &fault{aliasInvalid, "a topic alias of 0"}
		}
	case propMaxPacketSize:
		p.maxPacketSize = in.uint32()
		wrong = p.maxPacketSize == 0 && !in.bad
	case propUserProperty:
		name, value := in.text(), in.text()
		if p.purpose == nil && string(name) == "purpose" {
			p.purpose = value
		}
	}
	if wrong {
		return &fault{protocolError, "a property has a value that is not allowed"}
	}
	return nil
}
