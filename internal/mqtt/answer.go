package mqtt

import (
	"encoding/binary"
	"strings"
)

// maxReasonText bounds a reason string.
const maxReasonText = 200

// dialect is how a client wants its answers.
type dialect struct {
	version     byte
	problemInfo bool   // reason strings may be sent
	maxPacket   uint32 // 0: any size
	receiveMax  uint16 // 0: any number
}

// fits reports whether a packet may be sent to the client.
func (d dialect) fits(size int) bool { return d.maxPacket == 0 || uint32(size) <= d.maxPacket }

// text prepares a reason string; "" where none may be sent in a packet that is
// size bytes without it.
func (d dialect) text(s string, size int) string {
	if !d.problemInfo || s == "" {
		return ""
	}
	if len(s) > maxReasonText {
		s = s[:maxReasonText]
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if !d.fits(size + len(s) + 6) {
		return ""
	}
	return s
}

// appendAck writes PUBACK, PUBREC or PUBCOMP.
func appendAck(b []byte, packet byte, id uint16, code reason, why string, d dialect) []byte {
	h := packet << 4
	if d.version != v5 || code == success {
		return append(b, h, 2, byte(id>>8), byte(id))
	}
	why = d.text(why, 5)
	if why == "" {
		return append(b, h, 3, byte(id>>8), byte(id), byte(code))
	}
	b = append(b, h)
	props := 3 + len(why)
	b = appendVarint(b, 3+varintLen(props)+props)
	b = append(b, byte(id>>8), byte(id), byte(code))
	b = appendVarint(b, props)
	b = append(b, propReasonString)
	return appendText(b, why)
}

func varintLen(n int) int {
	if n > 0x7f {
		return 2
	}
	return 1
}

// appendSuback writes SUBACK or UNSUBACK.
func appendSuback(b []byte, packet byte, id uint16, codes []reason, d dialect) []byte {
	size := 2 + len(codes)
	switch {
	case d.version == v5:
		size++
	case packet == typeUnsuback:
		codes, size = nil, 2
	}
	b = append(b, packet<<4)
	b = appendVarint(b, size)
	b = binary.BigEndian.AppendUint16(b, id)
	if d.version == v5 {
		b = append(b, 0)
	}
	for _, c := range codes {
		b = append(b, byte(c))
	}
	return b
}

// appendDisconnect writes a DISCONNECT, which 3.1.1 servers don't send.
func appendDisconnect(b []byte, code reason, why string, d dialect) []byte {
	if d.version != v5 || code == success || !d.fits(3) {
		return b
	}
	why = d.text(why, 3)
	if why == "" {
		return append(b, typeDisconnect<<4, 1, byte(code))
	}
	props := 3 + len(why)
	b = append(b, typeDisconnect<<4)
	b = appendVarint(b, 1+varintLen(props)+props)
	b = append(b, byte(code))
	b = appendVarint(b, props)
	b = append(b, propReasonString)
	return appendText(b, why)
}

// appendRefusal writes a CONNACK that says no, nothing where the client's version
// has no word for it.
func appendRefusal(b []byte, code reason, why string, d dialect) []byte {
	switch d.version {
	case v311:
		if c := code.connack3(); c != 0 {
			b = append(b, typeConnack<<4, 2, 0, c)
		}
	case v5:
		if !d.fits(5) {
			return b
		}
		props := []byte(nil)
		if why = d.text(why, 5); why != "" {
			props = appendText(append(props, propReasonString), why)
		}
		b = append(b, typeConnack<<4)
		b = appendVarint(b, 2+varintLen(len(props))+len(props))
		b = append(b, 0, byte(code))
		b = appendVarint(b, len(props))
		b = append(b, props...)
	}
	return b
}

// welcome is what a CONNACK says beside yes.
type welcome struct {
	present    bool
	assignedID string
	expiry     int64 // seconds, -1: as the client asked
	keepAlive  int   // seconds, -1: as the client asked
	receiveMax uint16
	aliasMax   uint16
	maxPacket  uint32
}

func appendConnack(b []byte, w welcome, d dialect) []byte {
	present := byte(0)
	if w.present {
		present = 1
	}
	if d.version != v5 {
		return append(b, typeConnack<<4, 2, present, 0)
	}
	p := make([]byte, 0, 64)
	if w.expiry >= 0 {
		p = binary.BigEndian.AppendUint32(append(p, propSessionExpiry), uint32(w.expiry))
	}
	p = binary.BigEndian.AppendUint16(append(p, propReceiveMaximum), w.receiveMax)
	p = append(p, propRetainAvailable, 0)
	p = binary.BigEndian.AppendUint32(append(p, propMaxPacketSize), w.maxPacket)
	if w.assignedID != "" {
		p = appendText(append(p, propAssignedClientID), w.assignedID)
	}
	p = binary.BigEndian.AppendUint16(append(p, propTopicAliasMaximum), w.aliasMax)
	if w.keepAlive >= 0 {
		p = binary.BigEndian.AppendUint16(append(p, propServerKeepAlive), uint16(w.keepAlive))
	}
	b = append(b, typeConnack<<4)
	b = appendVarint(b, 2+varintLen(len(p))+len(p))
	b = append(b, present, 0)
	b = appendVarint(b, len(p))
	return append(b, p...)
}
