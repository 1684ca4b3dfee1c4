// Package deviceapi is the devices' HTTPS listener (8444): the edge for devices
// that speak HTTP instead of MQTT, and the place where devices enrol.
//
//	/.well-known/est/...                EST: the only part without a certificate
//	POST /v1/data                       a SenML pack, JSON or CBOR
//	POST /write, POST /api/v2/write     InfluxDB line protocol, v1 and v2
//	GET  /v1/commands                   what the device is to do; POST .../ID/result answers
//	GET  /v1/desired                    how it shall be; PUT and PATCH /v1/reported: how it is
//	GET  /mqtt                          MQTT over WebSocket (RFC 6455), if there is a server for it
//
// It translates and authenticates, it decides nothing. It promises that 2xx is
// sent only when all that a request carried is durable; that a request is taken
// whole or not at all; that what may work later is answered with 503 and
// Retry-After and ends the connection; that a revocation closes a device's
// connections at once; and that whatever a client sends or withholds, its memory
// and time are bounded. It speaks HTTP/1.1 alone: a device has one thing to say at
// a time.
//
// Errors are problem documents (RFC 9457). They name places in a body (a line, a
// record), never its content.
package deviceapi
