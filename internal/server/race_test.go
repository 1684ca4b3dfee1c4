//go:build race

package server

// raceDetector: what runs under it is slow, and a race in a client of others fails
// the test.
const raceDetector = true
