package lobby

import (
	"cmp"
	"net"
	"slices"
	"time"
)

// reason is why a connection was not let in.
type reason int

const (
	full      reason = iota + 1 // MaxOpen are inside
	tooOften                    // its address opens too many a second
	displaced                   // it kept others waiting, and another has its place
	late                        // the handshake took the other end too long
	failed                      // the handshake failed: no certificate, a wrong one, no TLS
	reasons
)

var reasonNames = [reasons]string{full: "full", tooOften: "rate", displaced: "displaced", late: "timeout", failed: "handshake"}

// enter gives a socket a place in the lobby, when there is one; nil: it was sent
// away, or the lobby has closed.
func (l *Lobby) enter(nc net.Conn) *guest {
	for {
		g, again := l.tryEnter(nc, time.Now())
		if again == 0 {
			return g
		}
		if !l.pause(again) {
			nc.Close()
			return nil
		}
	}
}

// tryEnter says, if all places are taken and none can be freed, when to try again.
func (l *Lobby) tryEnter(nc net.Conn, now time.Time) (g *guest, again time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.guests) >= l.o.MaxPending || l.open >= l.o.MaxOpen {
		again = l.makeRoomLocked(now)
	}
	switch {
	case l.isClosed():
		nc.Close()
		return nil, 0
	case len(l.guests) >= l.o.MaxPending:
		return nil, again
	}
	p := l.placeLocked(addressOf(nc), now)
	why := reason(0)
	switch {
	case l.open >= l.o.MaxOpen:
		why = full
		l.warnings.Do(func() {
			l.o.Logger.Warn("lobby: too many connections, new ones are closed", "port", l.inner.Addr().String())
		})
	case !p.rate.AllowN(now, 1):
		why = tooOften
	}
	if why != 0 {
		l.refused[why].Add(1)
		nc.Close()
		return nil, 0
	}
	g = &guest{Conn: nc, l: l, place: p, granted: make(chan struct{}, 1), since: now}
	l.guests[g] = struct{}{}
	p.waiting++
	l.open++
	return g, 0
}

// makeRoomLocked takes the places of those who have kept the hub waiting longest
// beyond its patience: of up to an eighth at once, so that a flood doesn't have all
// guests looked through for each socket. It returns when the next will be late.
func (l *Lobby) makeRoomLocked(now time.Time) (again time.Duration) {
	places := make(map[*place]struct{})
	for g := range l.guests {
		places[g.place] = struct{}{}
	}
	share := max(1, l.o.MaxPending/max(1, len(places)))
	type overdue struct {
		*guest
		by time.Duration
	}
	var over []overdue
	again = l.o.Patience
	for g := range l.guests {
		if g.since.IsZero() {
			continue // it waits for us
		}
		by := now.Sub(g.since) - l.patience(g, share, now)
		if by >= 0 {
			over = append(over, overdue{g, by})
		} else {
			again = min(again, -by)
		}
	}
	slices.SortFunc(over, func(a, b overdue) int { return cmp.Compare(b.by, a.by) })
	for _, x := range over[:min(len(over), max(1, l.o.MaxPending/8))] {
		l.refused[displaced].Add(1)
		l.forgetLocked(x.guest)
		x.stage = gone
		l.open--
		x.Conn.Close() // which ends its goroutine
	}
	return max(again, time.Millisecond)
}

// patience is how long a guest may keep the hub waiting when places are scarce.
func (l *Lobby) patience(g *guest, share int, now time.Time) time.Duration {
	p := l.o.Patience
	if g.stage == begun {
		p *= 3 // what was computed for it would be lost
	}
	switch {
	case g.place.isKnown(now):
		return 4 * p
	case g.place.waiting > share && g.stage == silent:
		return p / 4
	}
	return p
}

// forgetLocked takes g out of the lobby, if it is there.
func (l *Lobby) forgetLocked(g *guest) {
	if _, ok := l.guests[g]; !ok {
		return
	}
	delete(l.guests, g)
	g.place.waiting--
	l.wake()
}

func (l *Lobby) wake() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// waits notes that g is waited for, and has been for as long altogether as if since
// then; false: its place has been given away.
func (l *Lobby) waits(g *guest, since time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.stage == gone {
		return false
	}
	g.since = since
	return true
}

// heard notes that g is not waited for any more.
func (l *Lobby) heard(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g.since = time.Time{}
	if g.stage == silent {
		g.stage = talking
	}
}

// answered notes that the hub has computed something for g.
func (l *Lobby) answered(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.stage == talking {
		g.stage = begun
	}
}

func (l *Lobby) hasBegun(g *guest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return g.stage == begun
}

func (l *Lobby) isGone(g *guest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return g.stage == gone || l.isClosed()
}

// admitted lets g in; false: its place was given away at the last moment.
func (l *Lobby) admitted(g *guest, known bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.stage == gone {
		return false
	}
	l.forgetLocked(g)
	g.stage = inside
	if known && g.place.addr.IsValid() {
		g.place.known = time.Now()
	}
	return true
}

// left gives back what a connection held. Its socket is closed.
func (l *Lobby) left(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.stage == gone {
		return
	}
	l.forgetLocked(g)
	l.open--
	l.wake()
}
