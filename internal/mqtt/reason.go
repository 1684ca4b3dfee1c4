package mqtt

import (
	"errors"
	"syscall"

	"github.com/holdfast-iot/holdfast"
)

// reason is an MQTT 5 reason code (section 2.4).
type reason byte

const (
	success                reason = 0x00
	disconnectWithWill     reason = 0x04
	noSubscribers          reason = 0x10
	noSubscription         reason = 0x11
	unspecified            reason = 0x80
	malformed              reason = 0x81
	protocolError          reason = 0x82
	implementationSpecific reason = 0x83
	unsupportedVersion     reason = 0x84
	badClientID            reason = 0x85
	notAuthorized          reason = 0x87
	serverUnavailable      reason = 0x88
	serverBusy             reason = 0x89
	shuttingDown           reason = 0x8B
	badAuthMethod          reason = 0x8C
	keepAliveTimeout       reason = 0x8D
	takenOver              reason = 0x8E
	filterInvalid          reason = 0x8F
	topicInvalid           reason = 0x90
	packetIDInUse          reason = 0x91
	packetIDUnknown        reason = 0x92
	receiveMaxExceeded     reason = 0x93
	aliasInvalid           reason = 0x94
	packetTooLarge         reason = 0x95
	quotaExceeded          reason = 0x97
	administrative         reason = 0x98
	payloadInvalid         reason = 0x99
	retainNotSupported     reason = 0x9A
)

// endsClient reports whether a client may say r in DISCONNECT (section 3.14.2.1).
func (r reason) endsClient() bool {
	switch r {
	case success, disconnectWithWill, unspecified, malformed, protocolError, implementationSpecific, topicInvalid,
		receiveMaxExceeded, aliasInvalid, packetTooLarge, 0x96, quotaExceeded, administrative, payloadInvalid: // 0x96: message rate too high
		return true
	}
	return false
}

// reasonsOf is the one translation of kinds of error: publish is what PUBACK and
// PUBREC say, end what CONNACK and DISCONNECT say. A publish code of 0 means that
// the publish is not answered and the connection ends.
func reasonsOf(err error) (publish, end reason) {
	switch holdfast.KindOf(err) {
	case holdfast.Invalid:
		return payloadInvalid, protocolError
	case holdfast.Denied:
		return notAuthorized, notAuthorized
	case holdfast.NotFound:
		return topicInvalid, notAuthorized
	case holdfast.Conflict:
		return implementationSpecific, implementationSpecific
	case holdfast.TooLarge:
		return quotaExceeded, quotaExceeded
	case holdfast.Unavailable:
		// A full disk is a quota of the hub: 0x97 tells it from an overload.
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return 0, quotaExceeded
		}
		return 0, serverBusy
	}
	return 0, unspecified
}

// connack3 is the return code of a 3.1.1 CONNACK (section 3.2.2.3), 0 where the
// standard has none and the connection just closes.
func (r reason) connack3() byte {
	switch r {
	case unsupportedVersion:
		return 1
	case badClientID:
		return 2
	case serverUnavailable, serverBusy, quotaExceeded, unspecified, shuttingDown, takenOver:
		return 3
	case notAuthorized, topicInvalid, administrative, badAuthMethod:
		return 5
	}
	return 0
}

// fault is why a connection ends or a publish is refused. Its text goes to the
// client.
type fault struct {
	code reason
	text string
}

func (f *fault) Error() string { return f.text }

// toldText is what a client may read of err: internal detail stays here.
func toldText(err error) string {
	if holdfast.KindOf(err) == holdfast.Internal {
		return ""
	}
	return err.Error()
}
