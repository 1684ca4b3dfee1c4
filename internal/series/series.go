// Package series keeps readings: from the journal, where they are durable, into
// sealed chunks in immutable segments, where they are small, and back out in
// order of time.
package series
