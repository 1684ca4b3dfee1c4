package mqtt

import "unicode/utf8"

// publish is a PUBLISH packet. Its slices share the packet's memory.
type publish struct {
	qos     byte
	dup     bool
	retain  bool
	utf8    bool // the client says the payload is UTF-8
	id      uint16
	alias   uint16
	topic   []byte // not yet checked: see checkTopic
	content []byte // content type, nil if not given
	payload []byte
}

// parsePublish reads a PUBLISH whose fixed header is h. It does not look into the
// topic: connections remember the topics that were good.
func parsePublish(h byte, body []byte, version byte, p *publish) error {
	*p = publish{qos: h >> 1 & 3, dup: h&8 != 0, retain: h&1 != 0}
	switch {
	case p.qos == 3:
		return &fault{malformed, "QoS 3"}
	case p.dup && p.qos == 0:
		return &fault{protocolError, "DUP with QoS 0"}
	}
	d := decoder{b: body}
	p.topic = d.binary()
	if p.qos > 0 {
		p.id = d.uint16()
	}
	if d.bad {
		return &fault{malformed, "PUBLISH is malformed"}
	}
	if p.qos > 0 && p.id == 0 {
		return &fault{protocolError, "packet id 0"}
	}
	if version == v5 {
		if err := p.readProperties(&d); err != nil {
			return err
		}
	}
	p.payload = d.b
	if len(p.topic) == 0 && p.alias == 0 {
		return &fault{protocolError, "PUBLISH without topic"}
	}
	return nil
}

func (p *publish) readProperties(d *decoder) error {
	if len(d.b) > 0 && d.b[0] == 0 { // most have none
		d.b = d.b[1:]
		return nil
	}
	var props properties
	if err := d.properties(typePublish, &props); err != nil {
		return err
	}
	if props.seen.has(propSubscriptionID) {
		return &fault{protocolError, "a subscription id from a client"}
	}
	p.alias = props.topicAlias
	p.utf8 = props.payloadFormat == 1
	p.content = props.contentType
	return nil
}

// checkTopic refuses what is no topic name at all.
func checkTopic(t []byte) error {
	if len(t) == 0 {
		return &fault{protocolError, "an empty topic"}
	}
	if !utf8.Valid(t) {
		return &fault{malformed, "the topic is not UTF-8"}
	}
	for _, c := range t {
		switch c {
		case 0:
			return &fault{malformed, "the topic contains NUL"}
		case '+', '#':
			return &fault{protocolError, "the topic contains a wildcard"}
		}
	}
	return nil
}
