package tpmholder

import (
	"bytes"
	"encoding/binary"

	"github.com/holdfast-iot/holdfast"
)

const boxMagic = "HFTB\x01"

// sealedBox is what the keyring keeps of a root key: the two halves of a sealed
// data object, as TPM2_Load takes them.
type sealedBox struct {
	ring            []byte
	generation      uint64
	public, private []byte // TPMT_PUBLIC, and the contents of TPM2B_PRIVATE
}

func (b sealedBox) append(dst []byte) []byte {
	dst = append(dst, boxMagic...)
	dst = append(dst, b.ring...)
	dst = binary.BigEndian.AppendUint64(dst, b.generation)
	for _, part := range [][]byte{b.public, b.private} {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(part)))
		dst = append(dst, part...)
	}
	return dst
}

func parseBox(in []byte) (sealedBox, error) {
	damaged := holdfast.Errorf(holdfast.Denied, "the box is not one of a TPM holder, or damaged")
	rest, ok := bytes.CutPrefix(in, []byte(boxMagic))
	if !ok || len(rest) < 24 {
		return sealedBox{}, damaged
	}
	b := sealedBox{ring: rest[:16], generation: binary.BigEndian.Uint64(rest[16:])}
	rest = rest[24:]
	for _, part := range []*[]byte{&b.public, &b.private} {
		if len(rest) < 2 {
			return sealedBox{}, damaged
		}
		n := int(binary.BigEndian.Uint16(rest))
		if rest = rest[2:]; len(rest) < n {
			return sealedBox{}, damaged
		}
		*part, rest = rest[:n], rest[n:]
	}
	if len(rest) != 0 {
		return sealedBox{}, damaged
	}
	return b, nil
}
