// Package mqtt is Holdfast's own MQTT server (3.1.1 and 5): the edge through
// which devices send readings. It translates and authenticates, it decides
// nothing.
//
// It promises that no PUBACK, PUBREC or PUBCOMP leaves before the Gate has said
// that what it answers for is durable; that acknowledgements of a connection
// leave in the order of its publishes; that a QoS 2 publish enters the Gate once,
// also when it is sent again on another connection of the same session; that a
// refusal which can heal leaves the message unacknowledged and ends the
// connection within 5 seconds; and that whatever a client sends, it gets a reason
// code or is cut, its memory stays bounded, and the other connections don't
// notice.
//
// A device is who its TLS client certificate says. Topics carry no identity, the
// client id tells sessions of one device apart, and user names and passwords are
// read and thrown away.
//
// It is not a broker: nothing is retained, routed or subscribed to. A
// subscription is answered with a refusal. It opens no port without TLS and no
// WebSocket; who has taken a connection over from HTTP hands it to ServeConn.
//
// A connection is polled where its listener allows that (Pollable, Linux): while
// the device is silent it has no goroutine and no buffer, and a few workers give
// each a turn when it has something to say. Else it has one goroutine, which reads:
// it blocks in a short read and holds no buffer while the device is silent. The two
// ways differ only in who calls consume. The publishes of one read make one Batch
// and one Commit; the Gate calls back when that is durable, the acknowledgements
// are appended to the connection's out-buffer, and a goroutine that lives as long
// as there is something to write sends them.
//
// Sources: MQTT Version 3.1.1 and MQTT Version 5.0, OASIS Standards.
package mqtt
