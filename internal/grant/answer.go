package grant

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Answer is what a recipient is about to hear of a group whose members' grants ask
// for a least number of data subjects.
//
// What he hears are cells: a group, a unit and type, a window. The register sees to
// it that the cells of one recipient and stream name never overlap, whatever he
// asks, so that none can be taken from another: no data subject is in two groups,
// a group has one length of windows, and a cell once told is told the same or not at
// all. And it compares who is in a group with everyone who ever was when it answered.
type Answer struct {
	Recipient holdfast.PartyID
	Stream    string // the name
	Group     holdfast.GroupID
	Least     int // data subjects
	Parts     []AnswerPart
}

// AnswerPart is what is told of the streams of one unit and type.
type AnswerPart struct {
	Key     string // the same for the same unit and type
	Members []Member
	Windows []Cell // in order of time; empty: not known yet
}

// Member is a data subject with the streams that count.
type Member struct {
	Subject holdfast.PartyID
	Streams []holdfast.StreamID // in the order of their ids
}

// Cell is one window: Sum is a digest of all that could be told of it.
type Cell struct {
	Start int64
	Sum   [8]byte
}

// A member is remembered by keyed hashes, which outlive its keys: without them the
// next answer would show what went.
const memberBytes = 16

// What is remembered of one group, unit and type.
const (
	maxMemberships = 32
	maxMembers     = 4 << 20 // bytes of all memberships together, but the last
	maxCells       = 20_000
)

type answeredInfo struct {
	Groups map[holdfast.GroupID]map[string]*answeredPart `json:"groups"`
}

type answeredPart struct {
	Memberships [][]byte `json:"memberships"` // the last is the latest
	Cells       []byte   `json:"cells"`       // start and sum of each, in order of time
	Floor       int64    `json:"floor"`       // windows before are not remembered any more
}

// MayAnswer refuses an answer that the recipient can't have after what he was told.
func (r *Register) MayAnswer(ctx context.Context, a Answer) error {
	r.answering.Lock()
	defer r.answering.Unlock()
	_, _, err := r.answer(ctx, a)
	return err
}

// Told is MayAnswer, and remembers the answer. When it returns nil, that is durable and the
// answer may go out.
func (r *Register) Told(ctx context.Context, a Answer) error {
	r.answering.Lock()
	defer r.answering.Unlock()
	key, info, err := r.answer(ctx, a)
	if err != nil {
		return err
	}
	box, err := r.seal(ctx, vault.Hub, "group_answer", key, info)
	if err != nil {
		return err
	}
	return r.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO group_answer (id_hash, recipient, info_sealed) VALUES ($1, $2, $3)
			ON CONFLICT (id_hash) DO UPDATE SET info_sealed = excluded.info_sealed`, key, a.Recipient, box)
		return err
	})
}

// answer returns what is to be remembered once a is told.
func (r *Register) answer(ctx context.Context, a Answer) (key []byte, info answeredInfo, err error) {
	if key, err = r.keys.Hash(ctx, "group answer", a.Recipient.String()+" "+a.Stream); err != nil {
		return nil, info, err
	}
	var box []byte
	err = r.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT info_sealed FROM group_answer WHERE id_hash = $1`, key).Scan(&box)
	})
	switch {
	case err == sql.ErrNoRows:
		info.Groups = map[holdfast.GroupID]map[string]*answeredPart{}
	case err != nil:
		return nil, info, err
	default:
		if err := r.open(ctx, vault.Hub, "group_answer", key, box, &info); err != nil {
			return nil, info, err
		}
	}
	mine := info.Groups[a.Group]
	if mine == nil {
		mine = map[string]*answeredPart{}
	}
	for _, part := range a.Parts {
		members, err := r.members(ctx, part.Members)
		if err != nil {
			return nil, info, err
		}
		for id, other := range info.Groups {
			if id != a.Group && overlap(members, other) {
				return nil, info, holdfast.Errorf(holdfast.Denied, "the group shares data subjects with another that you were answered about: the two together would tell of fewer than each")
			}
		}
		p := mine[part.Key]
		if p == nil {
			p = &answeredPart{}
			mine[part.Key] = p
		}
		if err := p.add(members, a.Least, part.Windows); err != nil {
			return nil, info, err
		}
	}
	info.Groups[a.Group] = mine
	return key, info, nil
}

// members is a membership as it is remembered, in the order of subjects.
func (r *Register) members(ctx context.Context, all []Member) ([]byte, error) {
	list := make([][memberBytes]byte, 0, len(all))
	for _, m := range all {
		var text []byte
		for _, s := range m.Streams {
			text = append(text, s[:]...)
		}
		subject, err := r.keys.Hash(ctx, "group subject", m.Subject.String())
		if err != nil {
			return nil, err
		}
		streams, err := r.keys.Hash(ctx, "group streams", string(text))
		if err != nil {
			return nil, err
		}
		var e [memberBytes]byte
		copy(e[:8], subject)
		copy(e[8:], streams)
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b [memberBytes]byte) int { return bytes.Compare(a[:], b[:]) })
	return slices.Concat(chunks(list)...), nil
}

func chunks(list [][memberBytes]byte) (all [][]byte) {
	for i := range list {
		all = append(all, list[i][:])
	}
	return all
}

// overlap reports whether any of members is a subject of what was told of another
// group.
func overlap(members []byte, other map[string]*answeredPart) bool {
	for _, p := range other {
		for _, m := range p.Memberships {
			_, _, both := compare(members, m)
			if both > 0 {
				return true
			}
		}
	}
	return false
}

// compare counts the subjects of two memberships: those that are in one only or whose
// streams are others, and those that are in both.
func compare(a, b []byte) (changed, same, both int) {
	for len(a) > 0 && len(b) > 0 {
		switch c := bytes.Compare(a[:8], b[:8]); {
		case c < 0:
			changed++
			a = a[memberBytes:]
		case c > 0:
			changed++
			b = b[memberBytes:]
		default:
			if both++; bytes.Equal(a[8:memberBytes], b[8:memberBytes]) {
				same++
			} else {
				changed++
			}
			a, b = a[memberBytes:], b[memberBytes:]
		}
	}
	return changed + (len(a)+len(b))/memberBytes, same, both
}

// add takes in an answer, or refuses it.
func (p *answeredPart) add(members []byte, least int, windows []Cell) error {
	for _, m := range p.Memberships {
		if changed, _, _ := compare(members, m); changed > 0 && changed < least {
			return holdfast.Errorf(holdfast.Denied, "fewer than %d data subjects of the group, or their devices, have changed since you were answered: the difference would tell of them", least)
		}
	}
	if len(windows) == 0 {
		return nil
	}
	if err := p.addCells(windows); err != nil {
		return err
	}
	p.Memberships = append(slices.DeleteFunc(p.Memberships, func(m []byte) bool { return bytes.Equal(m, members) }), members)
	size := 0
	for i := len(p.Memberships) - 2; i >= 0; i-- {
		size += len(p.Memberships[i])
		if len(p.Memberships)-i > maxMemberships || size > maxMembers {
			p.Memberships = slices.Clone(p.Memberships[i+1:])
			break
		}
	}
	return nil
}

const cellBytes = 16

func (p *answeredPart) addCells(windows []Cell) error {
	told := make([]Cell, 0, len(p.Cells)/cellBytes+len(windows))
	for c := range slices.Chunk(p.Cells, cellBytes) {
		told = append(told, Cell{Start: int64(binary.BigEndian.Uint64(c)), Sum: [8]byte(c[8:])})
	}
	byStart := func(c Cell, start int64) int { return cmp.Compare(c.Start, start) }
	known := told
	for _, w := range windows {
		if w.Start < p.Floor {
			return holdfast.Errorf(holdfast.Denied, "windows so long ago are not told any more: what was told of them is not remembered")
		}
		switch i, ok := slices.BinarySearchFunc(known, w.Start, byStart); {
		case !ok:
			told = append(told, w)
		case known[i].Sum != w.Sum:
			return holdfast.Errorf(holdfast.Denied, "a window that you were told of has changed since, by readings that came late or went, or by who is in the group: the difference would tell of them. Ask for the windows that you were not told of")
		}
	}
	slices.SortFunc(told, func(a, b Cell) int { return cmp.Compare(a.Start, b.Start) })
	if over := len(told) - maxCells; over > 0 {
		p.Floor, told = told[over].Start, told[over:]
	}
	p.Cells = make([]byte, 0, len(told)*cellBytes)
	for _, c := range told {
		p.Cells = append(binary.BigEndian.AppendUint64(p.Cells, uint64(c.Start)), c.Sum[:]...)
	}
	return nil
}
