package journal

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// A record on disk is a head of 16 bytes, the data, and zeros up to a multiple
// of 8. All numbers are big-endian.
//
//	0  length of the data; markLength for a mark, which has none
//	4  back: bytes from the start of the group to this head
//	8  CRC-32C of (log id, position, data and padding)
//	12 CRC-32C of (log id, position, the 12 bytes above)
//
// Log id and position are not stored: a head that was written for another log,
// or for another place, does not check.
//
// A group is what one sync made durable. A head whose group began after some
// position is a witness that everything before that position was durable when
// the head was written: this is how damage is told from a torn write.
const (
	recordHeadSize = 16
	recordAlign    = 8
	markLength     = math.MaxUint32
)

// logID tells the records of one log from those of all others.
type logID [16]byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordSize is what a record takes on disk.
func recordSize(data int) int {
	return recordHeadSize + (data+recordAlign-1)/recordAlign*recordAlign
}

// placeSum is the checksum of what binds a record to its place: the log's id and the
// position, big-endian. Byte by byte, since crc32.Update has its bytes escape to the
// heap, for every record.
func placeSum(id *logID, pos Pos) uint32 {
	sum := ^crc32.Checksum(id[:], castagnoli)
	for shift := 56; shift >= 0; shift -= 8 {
		sum = castagnoli[byte(sum)^byte(pos>>shift)] ^ sum>>8
	}
	return ^sum
}

// appendRecord appends the record that stands at pos in a group begun at group.
func appendRecord(buf []byte, id *logID, group, pos Pos, data []byte) []byte {
	return sealRecord(buf, id, group, pos, uint32(len(data)), data)
}

// appendMark appends a record that holds nothing: a witness for all before it.
func appendMark(buf []byte, id *logID, pos Pos) []byte {
	return sealRecord(buf, id, pos, pos, markLength, nil)
}

func sealRecord(buf []byte, id *logID, group, pos Pos, length uint32, data []byte) []byte {
	var pad [recordAlign]byte
	at := len(buf)
	buf = append(buf, make([]byte, recordHeadSize)...)
	buf = append(buf, data...)
	buf = append(buf, pad[:recordSize(len(data))-recordHeadSize-len(data)]...)
	place := placeSum(id, pos)
	head, body := buf[at:at+recordHeadSize], buf[at+recordHeadSize:]
	binary.BigEndian.PutUint32(head, length)
	binary.BigEndian.PutUint32(head[4:], uint32(pos-group))
	binary.BigEndian.PutUint32(head[8:], crc32.Update(place, castagnoli, body))
	binary.BigEndian.PutUint32(head[12:], crc32.Update(place, castagnoli, head[:12]))
	return buf
}

// head is a record's head that has been checked.
type head struct {
	group Pos // where its group began
	data  int // bytes of data
	sum   uint32
	mark  bool
}

// parseHead checks the head at pos, of a record that must end at or before limit
// and whose group can't have begun before base.
func parseHead(b []byte, id *logID, base, pos, limit Pos) (head, bool) {
	length, back := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if length == 0 || uint64(back) > uint64(pos-base) || back%recordAlign != 0 {
		return head{}, false
	}
	h := head{group: pos - Pos(back), sum: binary.BigEndian.Uint32(b[8:]), mark: length == markLength}
	if !h.mark {
		if uint64(length) > uint64(limit-pos) {
			return head{}, false
		}
		h.data = int(length)
	}
	if uint64(recordSize(h.data)) > uint64(limit-pos) {
		return head{}, false
	}
	if crc32.Update(placeSum(id, pos), castagnoli, b[:12]) != binary.BigEndian.Uint32(b[12:]) {
		return head{}, false
	}
	return h, true
}

// checkBody checks data and padding against the head.
func (h head) checkBody(body []byte, id *logID, pos Pos) bool {
	return crc32.Update(placeSum(id, pos), castagnoli, body) == h.sum
}
