package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// slowSum is the record checksum as docs/format/journal.md words it, written
// apart from the code under test.
func slowSum(id [16]byte, pos Pos, rest []byte) uint32 {
	all := append([]byte{}, id[:]...)
	all = binary.BigEndian.AppendUint64(all, uint64(pos))
	return crc32.Checksum(append(all, rest...), crc32.MakeTable(crc32.Castagnoli))
}

// FuzzRecover opens a folder whose newest segment holds arbitrary bytes, behind a
// good header or not. It must not panic or hang; what it then reads must check
// by the letter of the format; and the log must work on.
func FuzzRecover(f *testing.F) {
	golden := goldenBytes()
	f.Add(true, golden[segmentHeaderSize:])
	f.Add(true, golden[segmentHeaderSize:segmentHeaderSize+40])
	f.Add(true, golden[segmentHeaderSize+24:])
	f.Add(true, append(make([]byte, 24), golden[segmentHeaderSize+24:]...))
	f.Add(true, append(bytes.Repeat([]byte{0xff}, 56), golden[segmentHeaderSize+56:]...))
	f.Add(true, bytes.Repeat([]byte{0, 0, 0, 8}, 1024))
	f.Add(false, golden)
	f.Add(false, []byte(segmentMagic))
	f.Fuzz(func(t *testing.T, header bool, content []byte) {
		image := content
		if header {
			image = append(bytes.Clone(golden[:segmentHeaderSize]), content...)
			image = append(image, make([]byte, max(0, 8192-len(image)))...)[:8192]
		}
		d := newMemDisk(1)
		d.files[third] = &memData{bytes: bytes.Clone(image), stable: bytes.Clone(image)}
		log, err := memOpen(d)
		if err != nil {
			if d.steps != 0 {
				t.Error("a refused open changed the folder")
			}
			return
		}
		var read []string
		for e, err := range log.Read(0) {
			if err != nil {
				t.Fatalf("read after recovery: %v", err)
			}
			off := segmentHeaderSize + int(e.Pos-log.Start())
			stored := image[off : off+int(e.Next-e.Pos)]
			switch {
			case binary.BigEndian.Uint32(stored) != uint32(len(e.Data)), !bytes.Equal(stored[16:16+len(e.Data)], e.Data),
				binary.BigEndian.Uint32(stored[8:]) != slowSum(log.ID(), e.Pos, stored[16:]),
				binary.BigEndian.Uint32(stored[12:]) != slowSum(log.ID(), e.Pos, stored[:12]):
				t.Fatalf("a record at %d that does not check", e.Pos)
			}
			read = append(read, string(e.Data))
		}
		put(t, log, "works on")
		mustClose(t, log)
		log, err = memOpen(d)
		if err != nil {
			t.Fatalf("open again: %v", err)
		}
		again := get(t, log, 0)
		if len(again) != len(read)+1 || again[len(read)] != "works on" {
			t.Errorf("%d records, then %d", len(read), len(again))
		}
		mustClose(t, log)
	})
}

// FuzzRecords writes records in groups as the input draws them, harms some bytes,
// and expects what can be read to be a prefix of what was written, or damage.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{3, 200, 10, 0, 1, 90}, uint16(4200), byte(1))
	f.Add([]byte{0, 0, 0}, uint16(4096), byte(0xff))
	f.Add([]byte{255, 255, 255, 255, 255}, uint16(8191), byte(0x80))
	f.Fuzz(func(t *testing.T, sizes []byte, where uint16, harm byte) {
		id := goldenID
		image := segmentHeader{id: id, num: 3, size: 8192}.encode()
		var want []string
		group, pos := Pos(0), Pos(0)
		for i, n := range sizes {
			if len(image)+recordSize(int(n)+1) > 8192 {
				break
			}
			if n%3 == 0 {
				group = pos
			}
			data := bytes.Repeat([]byte{byte(i)}, int(n)+1)
			image = appendRecord(image, &id, group, pos, data)
			pos = Pos(len(image) - segmentHeaderSize)
			want = append(want, string(data))
		}
		image = append(image, make([]byte, 8192-len(image))...)
		image[where%8192] ^= harm
		d := newMemDisk(1)
		d.files[third] = &memData{bytes: image, stable: bytes.Clone(image)}
		log, err := memOpen(d)
		if err != nil {
			return
		}
		got := get(t, log, 0)
		if len(got) > len(want) {
			t.Fatalf("%d records of %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("record %d is not what was written", i)
			}
		}
		mustClose(t, log)
	})
}
