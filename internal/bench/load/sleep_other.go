//go:build !linux

package load

import "time"

type precise struct{}

func preciseSleep() precise { return precise{} }

func (precise) sleep(d time.Duration) { time.Sleep(d) }

func (precise) done() {}
