// Package intake brings readings in from an MQTT broker that is there already:
// it subscribes to it, says by a map whose and which readings a message holds,
// sends them to a hub through the ordinary edge of devices, as a gateway for its
// children, and acknowledges a message to the broker only when the hub has
// acknowledged its readings as durable.
//
// It promises that a message delivered at QoS 1 is stored or counted as refused
// before the broker may forget it, whichever of the three is killed; that a
// message which the broker delivers again becomes the same readings with the same
// times, which the hub drops; and that a hub or broker which is away costs no more
// memory than one window of messages. A reading's time is the one in the message
// where the map names one, else that of the message's first receipt, which is on
// disk before the readings leave (times.go).
//
// It does not promise anything for what the broker delivers at QoS 0, and for
// what a broker forgets or says twice under another packet id.
//
// It is a program beside the hub: it uses no store and decides nothing. In the
// folder of its state lie times and keyed checks of messages, and what Sparkplug's
// births say of names and types: no values. A map is read by Parse (map.go), its
// grammar is docs/intake.md; Map.Take is pure.
package intake
