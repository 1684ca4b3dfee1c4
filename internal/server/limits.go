package server

import (
	"bufio"
	"crypto/tls"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/lobby"
	"github.com/holdfast-iot/holdfast/internal/mqtt"
)

// Most connections of each listener by default, where the process may have files
// enough.
const (
	mostMQTT   = 20_000
	mostDevice = 10_000
	mostAPI    = 2_000
)

// ownFiles is how many files the hub keeps for itself: journal, segments, catalog,
// keyring and what it looks up. A flood of connections must not take them, or
// nothing could be rolled any more.
const ownFiles = 512

// What one device may send by default, and how much of it at once: a fleet that
// came back from a month without network is slowed, one that works is not.
const (
	defaultReadings = 20_000  // a second
	defaultBytes    = 8 << 20 // a second
	quotaBurst      = 30 * time.Second
)

// Limits bound what the hub takes on. The zero value of each field means its
// default.
type Limits struct {
	MQTTConnections   int // 20,000, or five eighths of the files that are not the hub's own
	DeviceConnections int // 10,000, or a quarter of them
	APIConnections    int // 2,000, or an eighth

	// ConnectsPerAddress is how many connections an IPv4 address or IPv6 /64 may
	// open a second, 1,000, and ten times as many at once; negative: no limit.
	ConnectsPerAddress float64

	// What one device may send, and one declared child of a gateway; negative: no
	// limit. Half a minute's worth may come at once.
	ReadingsPerDevice float64 // 20,000 a second
	BytesPerDevice    float64 // 8 MiB a second
}

// connections is how many each listener may have open at once.
type connections struct{ mqtt, device, api int }

// connectionsOf shares out a limit of open files. What was asked for is not
// exceeded, and not promised either.
func connectionsOf(files uint64, l Limits) connections {
	own := min(files/2, ownFiles)
	spare := int(min(files-own, 1<<24))
	share := func(asked, usual, eighths int) int {
		if asked <= 0 {
			asked = usual
		}
		return max(1, min(asked, spare*eighths/8))
	}
	return connections{mqtt: share(l.MQTTConnections, mostMQTT, 5), device: share(l.DeviceConnections, mostDevice, 2), api: share(l.APIConnections, mostAPI, 1)}
}

// openFiles is the process's limit of open files. The Go runtime has raised it to
// the hard limit at the start.
func openFiles() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // the least that systems give
	}
	return uint64(l.Cur)
}

// lobbies puts a lobby in front of each port. They share the processors.
func (s *Server) lobbies(l listeners, peopleTLS *tls.Config) (people, devices, broker *lobby.Lobby) {
	most := connectionsOf(openFiles(), s.config.Limits)
	o := lobby.Options{Logger: s.log, PerSecond: s.config.Limits.ConnectsPerAddress, Turns: lobby.NewTurns(0)}
	port := func(ln net.Listener, config *tls.Config, open int) *lobby.Lobby {
		o.MaxOpen = open
		return lobby.Listen(ln, config, o)
	}
	people = port(l.api, peopleTLS, most.api)
	// On the devices' ports a certificate that was shown is the hub's and not revoked.
	o.Known = func(cs tls.ConnectionState) bool { return len(cs.PeerCertificates) > 0 }
	deviceTLS := s.identity.DeviceTLS(s.config.DeviceTLSMin)
	deviceTLS.NextProtos = []string{"http/1.1"}
	return people, port(l.device, deviceTLS, most.device), port(mqtt.Pollable(l.mqtt), s.identity.MQTTTLS(s.config.DeviceTLSMin), most.mqtt)
}

// rate is what a device may send.
func (s *Server) rate() budget.Rate {
	of := func(asked, usual float64) float64 {
		if asked == 0 {
			return usual
		}
		return max(0, asked)
	}
	l := s.config.Limits
	return budget.Rate{Readings: of(l.ReadingsPerDevice, defaultReadings), Bytes: of(l.BytesPerDevice, defaultBytes), Burst: quotaBurst}
}

// quota is a device's allowance, whichever way it sends. A profile may give its
// devices another rate.
func (s *Server) quota(route *custody.Route) *budget.Allowance {
	r, l := s.rate(), route.Limits()
	if l.ReadingsPerSecond > 0 {
		r.Readings = l.ReadingsPerSecond
	}
	if l.BytesPerSecond > 0 {
		r.Bytes = l.BytesPerSecond
	}
	return s.quotas.Of(route.Device, r, s.clock.Now())
}

// LimitMemory tells the Go runtime how much memory the process may have, if its
// control group bounds that and GOMEMLIMIT does not: nine tenths, for the kernel
// counts more than the runtime sees. It returns the limit, 0 if none was set. A
// machine without such a bound is left to its operator: memory of the whole
// machine says nothing about what runs beside the hub.
func LimitMemory() int64 {
	if os.Getenv("GOMEMLIMIT") != "" {
		return 0
	}
	most := groupMemory("/")
	if most <= 0 {
		return 0
	}
	limit := most - most/10
	debug.SetMemoryLimit(limit)
	return limit
}

// groupMemory is the least memory that a control group of this process may have,
// 0 if none is bounded. root is where /proc and /sys are.
func groupMemory(root string) int64 {
	f, err := os.Open(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	defer f.Close()
	least := int64(math.MaxInt64)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) < 3 {
			continue
		}
		switch {
		case parts[0] == "0": // version 2
			least = min(least, boundsUpTo(filepath.Join(root, "sys/fs/cgroup"), parts[2], "memory.max"))
		case parts[1] == "memory":
			least = min(least, boundsUpTo(filepath.Join(root, "sys/fs/cgroup/memory"), parts[2], "memory.limit_in_bytes"))
		}
	}
	if least >= 1<<50 { // how version 1 writes that there is no bound
		return 0
	}
	return least
}

// boundsUpTo is the least bound of a group and those it lies in. In a container the
// group's own folder may not be there, and its root is the container's.
func boundsUpTo(mount, group, file string) int64 {
	least := int64(math.MaxInt64)
	for {
		if b, err := os.ReadFile(filepath.Join(mount, group, file)); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
				least = min(least, n)
			}
		}
		if group == "/" || group == "." || group == "" {
			return least
		}
		group = filepath.Dir(group)
	}
}
