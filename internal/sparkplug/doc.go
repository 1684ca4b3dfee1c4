// Package sparkplug reads Sparkplug B 3.0 (ISO/IEC 20237): topics, payloads in
// Google's protocol buffers, and what births say of the aliases that later
// messages use.
//
// It promises that no input makes it panic, loop or hold more than a small
// multiple of the input, and that a value is never guessed: a metric whose type
// nobody has said, or whose value does not fit its type, is counted and left out.
// Data sets, templates, arrays and extensions are counted and left out, too. Of a
// metric's properties it reads the unit alone.
//
// It keeps no time and no file: Tables are plain values that their owner may
// write down and read again.
package sparkplug
