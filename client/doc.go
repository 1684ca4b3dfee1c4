// Package client talks to a Holdfast hub: as a device that enrols, renews and
// sends, and as a person or program that asks.
//
// It promises that it trusts nobody but whom it was told to: the authority in an
// identity's ca.pem, the one that a token's or an enrolment code's pin names, a
// given certificate, or the system's authorities if asked. It speaks TLS 1.3 only,
// follows no redirect, and never prints a secret. Errors of the hub come back as
// *holdfast.Error with the hub's kind; who can't be reached is Unavailable.
//
// Only reads are repeated by themselves. It imports the root package and the
// standard library, so that a program of one's own may use it.
package client
