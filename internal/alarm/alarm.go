// Package alarm warns: rules that look at readings, and messages when what they wait
// for is so.
package alarm
