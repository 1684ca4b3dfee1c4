//go:build race

package simtest

// raced: the race detector delays goroutines, and they take turns in another order.
const raced = true
