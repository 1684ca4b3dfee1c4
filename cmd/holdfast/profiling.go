package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
)

// profileFlags let an operator see where a hub's time and memory go. Profiles name
// functions of this program and count; they hold nothing of anybody's data.
type profileFlags struct {
	CPUProfile    string `name:"cpu-profile" help:"Write where processor time goes, from start to end, for go tool pprof." placeholder:"FILE"`
	MemoryProfile string `name:"memory-profile" help:"Write at the end where memory went." placeholder:"FILE"`
}

// profile begins to write; stop ends it.
func (p profileFlags) profile() (stop func() error, err error) {
	var cpu *os.File
	if p.CPUProfile != "" {
		if cpu, err = os.Create(p.CPUProfile); err != nil {
			return nil, fmt.Errorf("write processor profile: %w", err)
		}
		if err := pprof.StartCPUProfile(cpu); err != nil {
			return nil, errors.Join(fmt.Errorf("write processor profile: %w", err), cpu.Close())
		}
	}
	return func() error {
		if cpu != nil {
			pprof.StopCPUProfile()
			if err := cpu.Close(); err != nil {
				return fmt.Errorf("write processor profile: %w", err)
			}
		}
		if p.MemoryProfile == "" {
			return nil
		}
		f, err := os.Create(p.MemoryProfile)
		if err != nil {
			return fmt.Errorf("write memory profile: %w", err)
		}
		if err := errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close()); err != nil {
			return fmt.Errorf("write memory profile: %w", err)
		}
		return nil
	}, nil
}
