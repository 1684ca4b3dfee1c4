// Package holdfast holds the words that every other package of Holdfast shares:
// ids, values, readings, scopes, purposes and kinds of error.
//
// It imports the standard library only and does no I/O. A word stands here when
// two packages need it; one that only one package needs stands there. What each
// word means to a user is written in docs/architecture.md.
package holdfast
