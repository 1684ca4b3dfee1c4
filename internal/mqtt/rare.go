package mqtt

import "time"

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
