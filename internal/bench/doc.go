// Package bench measures what a machine does with Holdfast: the figures P1 to P9,
// each with what it is measured against and when it is reached.
//
// A figure is measured in rounds. In each round every side takes its turn:
// Holdfast, a peer, Holdfast, the peer; so that what disturbs the machine for a
// while disturbs both. What counts is the median of the rounds' ratios. Holdfast
// is a real `holdfast serve`, a process of its own, whose processor time and
// memory are read from the operating system; so are the peers. Before and after a
// figure the bare disk is probed, and a figure whose disk changed meanwhile is
// marked as disturbed.
//
// The package runs Holdfast alone, so that anybody can size a machine with it.
// Peers are added by a program of their own (internal/bench/peers), and what only
// they need is not linked into holdfast.
//
// Everything listens on loopback, lies in one temporary folder and ends with the
// context. It reads /proc, so it needs Linux.
package bench
