package mqtt

import (
	"bytes"
	"strings"
)

// sharedPrefix begins the filter of a shared subscription (section 4.8.2).
const sharedPrefix = "$share/"

// subscribe is a SUBSCRIBE or an UNSUBSCRIBE. Its filters share the packet's memory
// and have passed the checks of the standard.
type subscribe struct {
	id      uint16
	number  int    // the subscription identifier, 0: none
	purpose string // the user property
	filters decoder
	n       int
}

// next takes a filter, and its options from a SUBSCRIBE.
func (q *subscribe) next(packet byte) (filter, options []byte) {
	filter = q.filters.text()
	if packet == typeSubscribe {
		options = q.filters.take(1)
	}
	return filter, options
}

// parseSubscribe reads a SUBSCRIBE or an UNSUBSCRIBE whole, for what is wrong with one
// filter is wrong with all.
func parseSubscribe(packet, h byte, body []byte, version byte) (q subscribe, err error) {
	name := "SUBSCRIBE"
	if packet == typeUnsubscribe {
		name = "UNSUBSCRIBE"
	}
	d := decoder{b: body}
	q.id = d.uint16()
	if h&0x0f != 2 || d.bad {
		return q, &fault{malformed, name + " is malformed"}
	}
	if version == v5 {
		var p properties
		if err := d.properties(packet, &p); err != nil {
			return q, err
		}
		q.number, q.purpose = p.subscriptionID, string(p.purpose)
	}
	q.filters = d
	for len(d.b) > 0 && !d.bad {
		filter, options := d.text(), byte(0)
		if packet == typeSubscribe {
			options = d.byte()
		}
		if !d.bad {
			if err := checkSubscription(filter, options, version); err != nil {
				return q, err
			}
		}
		q.n++
	}
	switch {
	case d.bad:
		return q, &fault{malformed, "a topic filter is malformed"}
	case q.id == 0:
		return q, &fault{protocolError, "packet id 0"}
	case q.n == 0:
		return q, &fault{protocolError, "no topic filter"}
	}
	return q, nil
}

// checkSubscription refuses what breaks the standard.
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
	case version == v311 || !bytes.HasPrefix(filter, []byte(sharedPrefix)):
		return nil
	case options&4 != 0:
		return &fault{protocolError, "no local on a shared subscription"}
	}
	if _, _, ok := splitShared(string(filter)); !ok {
		return &fault{protocolError, "a shared subscription is $share/NAME/FILTER"}
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

// splitShared takes the filter of a shared subscription apart.
func splitShared(filter string) (group, inner string, ok bool) {
	rest, ok := strings.CutPrefix(filter, sharedPrefix)
	if !ok {
		return "", "", false
	}
	group, inner, ok = strings.Cut(rest, "/")
	return group, inner, ok && group != "" && inner != "" && !strings.ContainsAny(group, "+#")
}
