package mqtt

import (
	"bytes"
	"time"
)

// parsePubrel reads a PUBREL.
func parsePubrel(h byte, body []byte, version byte) (id uint16, err error) {
	d := decoder{b: body}
	id = d.uint16()
	if h&0x0f != 2 || d.bad {
		return 0, &fault{malformed, "PUBREL is malformed"}
	}
	if id == 0 {
		return 0, &fault{protocolError, "packet id 0"}
	}
	if version == v5 && len(d.b) > 0 {
		if code := reason(d.byte()); code != success && code != packetIDUnknown {
			return 0, &fault{protocolError, "a reason code that PUBREL doesn't have"}
		}
		if len(d.b) > 0 {
			var p properties
			if err := d.properties(typePubrel, &p); err != nil {
				return 0, err
			}
		}
	}
	if len(d.b) > 0 {
		return 0, &fault{malformed, "PUBREL is malformed"}
	}
	return id, nil
}

// parseSubscribe reads a SUBSCRIBE and says what each filter is told.
func parseSubscribe(h byte, body []byte, version byte) (id uint16, codes []reason, err error) {
	d := decoder{b: body}
	id = d.uint16()
	if h&0x0f != 2 || d.bad {
		return 0, nil, &fault{malformed, "SUBSCRIBE is malformed"}
	}
	if version == v5 {
		var p properties
		if err := d.properties(typeSubscribe, &p); err != nil {
			return 0, nil, err
		}
		if p.seen.has(propSubscriptionID) {
			return 0, nil, &fault{idsNotSupported, "subscription ids are not available"}
		}
	}
	code := unspecified // all that 3.1.1 knows
	if version == v5 {
		code = notAuthorized
	}
	for len(d.b) > 0 && !d.bad {
		filter, options := d.text(), d.byte()
		if !d.bad {
			if err := checkSubscription(filter, options, version); err != nil {
				return 0, nil, err
			}
		}
		codes = append(codes, code)
	}
	return id, codes, endOfFilters(&d, id, len(codes))
}

// checkSubscription refuses what breaks the standard, and in MQTT 5 what CONNACK
// says is not available (sections 3.2.2.3.11 to 13): a client of 3.1.1 can't know
// and is told in SUBACK.
func checkSubscription(filter []byte, options, version byte) error {
	switch {
	case version == v311 && (options&0xfc != 0 || options == 3), options&0xc0 != 0:
		return &fault{malformed, "the options of a subscription are malformed"}
	case options&3 == 3:
		return &fault{protocolError, "a subscription of QoS 3"}
	case options&0x30 == 0x30:
		return &fault{protocolError, "a retain handling of 3"}
	case !validFilter(filter):
		return &fault{protocolError, "a topic filter is not valid"}
	case version == v311:
		return nil
	}
	shared := bytes.HasPrefix(filter, []byte("$share/"))
	switch {
	case shared && options&4 != 0:
		return &fault{protocolError, "no local on a shared subscription"}
	case shared:
		return &fault{sharedNotSupported, "shared subscriptions are not available"}
	case bytes.ContainsAny(filter, "+#"):
		return &fault{wildcardsNotSupported, "wildcard subscriptions are not available"}
	}
	return nil
}

// validFilter: # alone in the last level, + alone in its level (section 4.7).
func validFilter(f []byte) bool {
	if len(f) == 0 {
		return false
	}
	for level := range bytes.SplitSeq(f, []byte("/")) {
		if len(level) > 1 && bytes.ContainsAny(level, "+#") {
			return false
		}
	}
	i := bytes.IndexByte(f, '#')
	return i < 0 || i == len(f)-1
}

// parseUnsubscribe reads an UNSUBSCRIBE and counts its filters.
func parseUnsubscribe(h byte, body []byte, version byte) (id uint16, n int, err error) {
	d := decoder{b: body}
	id = d.uint16()
	if h&0x0f != 2 || d.bad {
		return 0, 0, &fault{malformed, "UNSUBSCRIBE is malformed"}
	}
	if version == v5 {
		var p properties
		if err := d.properties(typeUnsubscribe, &p); err != nil {
			return 0, 0, err
		}
	}
	for len(d.b) > 0 && !d.bad {
		if filter := d.text(); !d.bad && !validFilter(filter) {
			return 0, 0, &fault{protocolError, "a topic filter is not valid"}
		}
		n++
	}
	return id, n, endOfFilters(&d, id, n)
}

func endOfFilters(d *decoder, id uint16, n int) error {
	switch {
	case d.bad:
		return &fault{malformed, "a topic filter is malformed"}
	case id == 0:
		return &fault{protocolError, "packet id 0"}
	case n == 0:
		return &fault{protocolError, "no topic filter"}
	}
	return nil
}

// disconnect is a DISCONNECT of a client.
type disconnect struct {
	code      reason
	hasExpiry bool
	expiry    time.Duration
}

func parseDisconnect(h byte, body []byte, version byte) (x disconnect, err error) {
	if h&0x0f != 0 || version == v311 && len(body) > 0 {
		return x, &fault{malformed, "DISCONNECT is malformed"}
	}
	if len(body) == 0 {
		return x, nil
	}
	d := decoder{b: body}
	x.code = reason(d.byte())
	if !x.code.endsClient() {
		return x, &fault{protocolError, "a reason code that a client's DISCONNECT doesn't have"}
	}
	if len(d.b) > 0 {
		var p properties
		if err := d.properties(typeDisconnect, &p); err != nil {
			return x, err
		}
		x.hasExpiry, x.expiry = p.seen.has(propSessionExpiry), seconds(p.sessionExpiry)
	}
	if len(d.b) > 0 {
		return x, &fault{malformed, "DISCONNECT is malformed"}
	}
	return x, nil
}
