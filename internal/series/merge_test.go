package series

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// texts are n readings of long values, from time at on.
func texts(at int64, n int, value func() string) (out []holdfast.Reading) {
	for i := range n {
		out = append(out, holdfast.Reading{Time: at + int64(i), Value: holdfast.TextValue(value())})
	}
	return out
}

func noise() string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	b := make([]byte, holdfast.MaxValueBytes)
	rand.Read(b)
	for i := range b {
		b[i] = letters[b[i]%64]
	}
	return string(b)
}

func silence() string { return strings.Repeat("-", holdfast.MaxValueBytes) }

// One roll makes a full chunk and several small ones: the merge of these stands
// behind the full one, not in its place.
func TestMergeBehindAFullChunkOfTheSameRoll(t *testing.T) {
	r := newSizedRig(t, Options{}, 8<<20)
	stream := testStream(1)
	rows := texts(1, 4, noise)
	rows = append(rows, texts(5, 12, silence)...)
	for i, x := range rows {
		if i >= 4 { // of one time, so that where they are cut says nothing
			x.Time, x.Seq = 5, uint64(i)
		}
		r.send(alice, stream, testArrival+int64(i), x)
	}
	r.roll()
	if n := r.count(`SELECT count(*) FROM chunk`); n < 4 {
		t.Fatalf("%d chunks", n)
	}
	for range 2 {
		r.merge()
		r.check("merged")
	}
	r.send(alice, stream, testArrival+100, texts(100, 1, silence)...)
	r.roll()
	r.merge()
	r.check("merged with a later roll")
	r.tidy("the end")
}

// A chunk of long texts is full, however small they become: the next merge leaves it.
func TestMergeLeavesFullChunksOfTextsThatCompress(t *testing.T) {
	r := newSizedRig(t, Options{}, 8<<20)
	stream := testStream(1)
	ids := func() (ids [][16]byte) {
		rows, err := r.cellRows(t.Context(), Cell{alice, stream, 202611})
		r.must(err)
		for _, row := range rows {
			ids = append(ids, row.id)
		}
		return ids
	}
	for i := range int64(9) {
		r.send(alice, stream, testArrival+i, texts(i, 1, silence)...)
		r.roll()
	}
	r.merge()
	before := ids()
	r.send(alice, stream, testArrival+9, texts(9, 1, silence)...)
	r.roll()
	r.merge()
	after := ids()
	if len(before) != 3 || len(after) != 4 || before[0] != after[0] || before[1] != after[1] || before[2] == after[2] {
		t.Errorf("%d chunks, then %d: the full ones were written again", len(before), len(after))
	}
	r.check("merged")
}
