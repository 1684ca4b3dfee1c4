package series

import (
	"slices"
	"sync"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
)

// streamName is a stream as the index knows it.
type streamName struct {
	assignment holdfast.AssignmentID
	stream     holdfast.StreamID
}

func (c Cell) stream() streamName { return streamName{c.Assignment, c.Stream} }

// positions keeps in memory what the catalog says of streams that were read
// lately, so that a read of a thousand streams does not ask the catalog a thousand
// times. What it gives belongs to one moment: rows and the rolled position are of
// the same transaction. Whoever changes rows tells it after the transaction, failed
// or not, and before the journal's tail is dropped or scans are let go.
//
// Rows are shared and never changed. It keeps between half of positionsMax rows and
// all of them: the newer half and what of the older was used since.
type positions struct {
	mu         sync.Mutex
	version    uint64 // counts changes: what was read from the catalog before one is not taken in after it
	from       journal.Pos
	known      bool // from is what the catalog says
	young, old map[streamName][]chunkRow
	held       int // rows in young
}

const positionsMax = 1 << 17

// get returns the rows of a stream and the rolled position that belongs to them;
// if it has none, the version that put wants to hear.
func (x *positions) get(n streamName) (rows []chunkRow, from journal.Pos, version uint64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.known {
		return nil, 0, x.version, false
	}
	rows, ok = x.young[n]
	if !ok {
		if rows, ok = x.old[n]; ok {
			delete(x.old, n)
			x.add(n, rows)
		}
	}
	return rows, x.from, x.version, ok
}

// put takes in what the catalog said since get gave version.
func (x *positions) put(n streamName, rows []chunkRow, from journal.Pos, version uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.version == version {
		x.from, x.known = from, true
		x.add(n, rows)
	}
}

func (x *positions) add(n streamName, rows []chunkRow) {
	if x.young == nil || x.held+len(rows)+1 > positionsMax/2 {
		x.old, x.young, x.held = x.young, map[streamName][]chunkRow{}, 0
	}
	x.held += len(rows) + 1 - len(x.young[n])
	x.young[n] = rows
}

// rolled says that a transaction has added chunks and moved the rolled position.
func (x *positions) rolled(added []chunkRow, from journal.Pos) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.version++
	x.from = from
	for cell := range cells(added) { // what a roll made of a cell stands together
		x.extend(cell[0].stream(), cell)
	}
}

func (x *positions) extend(name streamName, added []chunkRow) {
	rows, young := x.young[name]
	if !young {
		var ok bool
		if rows, ok = x.old[name]; !ok {
			return
		}
		delete(x.old, name)
	}
	grown := slices.Clip(rows) // others share rows
	for _, r := range added {
		r.box = nil // it is open
		grown = append(grown, r)
	}
	slices.SortFunc(grown, compareRows)
	x.add(name, grown)
}

// forget says that rows of these streams have changed, or may have.
func (x *positions) forget(rows []chunkRow) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.version++
	for i := range rows {
		n := rows[i].stream()
		delete(x.young, n)
		delete(x.old, n)
	}
}

// reset says that anything may have changed.
func (x *positions) reset() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.version++
	x.known = false
	x.young, x.old, x.held = nil, nil, 0
}
