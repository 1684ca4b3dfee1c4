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
	}
	for len(d.b) > 0 && !d.bad {
		filter, options := d.text(), d.byte()
		switch {
		case d.bad:
		case options&3 == 3, version == v311 && options&0xfc != 0, options&0xc0 != 0:
			return 0, nil, &fault{malformed, "the options of a subscription are malformed"}
		case version == v5 && options&0x30 == 0x30:
			return 0, nil, &fault{protocolError, "a retain handling of 3"}
		case version == v5 && options&4 != 0 && bytes.HasPrefix(filter, []byte("$share/")):
			return 0, nil, &fault{protocolError, "no local on a shared subscription"}
		}
		codes = append(codes, subscribeCode(filter, version))
	}
	return id, codes, endOfFilters(&d, id, len(codes))
}

// subscribeCode: nothing is served for subscription.
func subscribeCode(filter []byte, version byte) reason {
	switch {
	case version == v311:
		return unspecified
	case !validFilter(filter):
		return filterInvalid
	}
	return notAuthorized
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
		d.text()
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
