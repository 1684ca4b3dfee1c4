// Package lobby is where connections wait until their TLS handshake is done: the
// admission to every port.
//
// It promises that a flood of connections delays others but does not shut them
// out. Handshakes are computed a few at a time, so that those who are inside don't
// wait behind thousands of strangers; who has begun goes before who has not, and
// among equals the addresses take turns: ten thousand devices behind one address
// leave to another address every second turn. While there are places, nobody is
// hurried. When all are taken, who has kept the hub waiting for too long gives up
// his place to the next one, and those who say nothing from addresses that already
// hold more than their share go first. Time that a connection waits for the hub is
// not held against it.
//
// An address is an IPv4 address or an IPv6 /64, for that is what one subscriber
// has. One from which a device has shown a good certificate within the day is
// known, and its connections are given more time.
//
// A lobby does not look at certificates: that is the TLS configuration's. It has
// no say once a connection is inside, but for counting it until it is closed.
package lobby
