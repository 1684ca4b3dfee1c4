package senml

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
)

// AppendJSON appends one record: stream, unit (left out if ""), time, sequence
// (left out if 0) and value. Records make a pack between [ and ], with commas.
// The marks of a reading are not written; a stamped one has the time of its
// arrival.
func AppendJSON(dst []byte, stream, unit string, r holdfast.Reading) []byte {
	dst = appendText(append(dst, `{"n":`...), stream)
	if unit != "" {
		dst = appendText(append(dst, `,"u":`...), unit)
	}
	if r.Time >= relative {
		dst = appendSeconds(append(dst, `,"t":`...), r.Time)
	} else {
		dst = strconv.AppendInt(append(dst, `,"hf_ns_":`...), r.Time, 10)
	}
	if r.Seq != 0 {
		dst = strconv.AppendUint(append(dst, `,"hf_seq":`...), r.Seq, 10)
	}
	return append(appendValue(dst, r.Value), '}')
}

// AppendScalar appends one value with its time and, if it has one, its sequence, in the
// form that DecodeScalar reads: the time as RFC 3339 text, exact to the nanosecond. A
// number that JSON has no literal for is a text.
func AppendScalar(dst []byte, r holdfast.Reading) []byte {
	dst = time.Unix(0, r.Time).UTC().AppendFormat(append(dst, `{"t":"`...), time.RFC3339Nano)
	dst = append(dst, `","v":`...)
	switch v := r.Value; v.Type() {
	case holdfast.Number:
		if f := v.Number(); math.IsNaN(f) || math.IsInf(f, 0) {
			dst = appendSpecial(dst, f)
		} else {
			dst = appendFloat(dst, f)
		}
	case holdfast.Integer:
		dst = strconv.AppendInt(dst, v.Integer(), 10)
	case holdfast.Boolean:
		dst = strconv.AppendBool(dst, v.Boolean())
	case holdfast.Text:
		dst = appendText(dst, v.Text())
	case holdfast.Bytes:
		dst = base64.StdEncoding.AppendEncode(append(dst, `{"b64":"`...), v.Bytes())
		dst = append(dst, `"}`...)
	case holdfast.Location:
		at := v.Position()
		dst = appendFloat(append(dst, `{"lat":`...), at.Latitude)
		dst = appendFloat(append(dst, `,"lon":`...), at.Longitude)
		if !math.IsNaN(at.Altitude) {
			dst = appendFloat(append(dst, `,"alt":`...), at.Altitude)
		}
		dst = append(dst, '}')
	default:
		dst = append(dst, "null"...)
	}
	if r.Seq != 0 {
		dst = strconv.AppendUint(append(dst, `,"seq":`...), r.Seq, 10)
	}
	return append(dst, '}')
}

// appendSeconds writes a positive time as a decimal without needless zeros.
func appendSeconds(dst []byte, t int64) []byte {
	dst = strconv.AppendInt(dst, t/1_000_000_000, 10)
	fraction := t % 1_000_000_000
	if fraction == 0 {
		return dst
	}
	start := len(dst)
	dst = strconv.AppendInt(dst, 1_000_000_000+fraction, 10) // the 1 keeps the zeros
	dst[start] = '.'
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

func appendValue(dst []byte, v holdfast.Value) []byte {
	switch v.Type() {
	case holdfast.Number:
		f := v.Number()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return appendSpecial(append(dst, `,"hf_f":`...), f)
		}
		return appendFloat(append(dst, `,"v":`...), f)
	case holdfast.Integer:
		dst = strconv.AppendInt(append(dst, `,"v":`...), v.Integer(), 10)
		return strconv.AppendInt(append(dst, `,"hf_int":`...), v.Integer(), 10)
	case holdfast.Boolean:
		return strconv.AppendBool(append(dst, `,"vb":`...), v.Boolean())
	case holdfast.Text:
		return appendText(append(dst, `,"vs":`...), v.Text())
	case holdfast.Bytes:
		dst = base64.RawURLEncoding.AppendEncode(append(dst, `,"vd":"`...), v.Bytes())
		return append(dst, '"')
	case holdfast.Location:
		at := v.Position()
		dst = appendFloat(append(dst, `,"hf_loc":[`...), at.Latitude)
		dst = appendFloat(append(dst, ','), at.Longitude)
		if !math.IsNaN(at.Altitude) {
			dst = appendFloat(append(dst, ','), at.Altitude)
		}
		return append(dst, ']')
	}
	return dst
}

// appendFloat writes the shortest literal that gives f back. From 2^53 on it has
// an exponent, so that it does not read as an integer that f is not.
func appendFloat(dst []byte, f float64) []byte {
	format := byte('f')
	if a := math.Abs(f); a != 0 && a < 1e-6 || a >= 1<<53 {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, 64)
}

// appendSpecial writes what JSON has no number for.
func appendSpecial(dst []byte, f float64) []byte {
	switch u := math.Float64bits(f); {
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	case u == math.Float64bits(math.NaN()):
		return append(dst, `"NaN"`...)
	default: // a NaN's exponent is all ones: 16 digits, without leading zeros
		return append(strconv.AppendUint(append(dst, `"NaN:`...), u, 16), '"')
	}
}

// appendText writes a string; bytes that are not UTF-8 become U+FFFD.
func appendText(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += size
			continue
		default:
			dst = append(dst, c)
		}
		i++
	}
	return append(dst, '"')
}

// AppendCBORPack appends the head of a pack of n records, which must follow.
func AppendCBORPack(dst []byte, n int) []byte { return appendHead(dst, cborArray, uint64(n)) }

// AppendCBOR appends one record, with the content that AppendJSON gives it.
// Times that are not whole seconds are decimal fractions; a number
// is always a float.
func AppendCBOR(dst []byte, stream, unit string, r holdfast.Reading) []byte {
	pairs := uint64(3)
	if unit != "" {
		pairs++
	}
	if r.Seq != 0 {
		pairs++
	}
	if r.Value.Type() == holdfast.Integer {
		pairs++
	}
	dst = appendHead(dst, cborMap, pairs)
	dst = appendCBORText(appendInt(dst, labelN), stream)
	if unit != "" {
		dst = appendCBORText(appendInt(dst, labelU), unit)
	}
	if r.Time >= relative {
		dst = appendCBORSeconds(appendInt(dst, labelT), r.Time)
	} else {
		dst = appendInt(appendCBORText(dst, "hf_ns_"), r.Time)
	}
	if r.Seq != 0 {
		dst = appendHead(appendCBORText(dst, "hf_seq"), cborUnsigned, r.Seq)
	}
	return appendCBORValue(dst, r.Value)
}

func appendCBORSeconds(dst []byte, t int64) []byte {
	exponent := int64(-9)
	for exponent < 0 && t%10 == 0 {
		t /= 10
		exponent++
	}
	if exponent == 0 {
		return appendInt(dst, t)
	}
	dst = appendHead(dst, cborTag, tagDecimal)
	dst = appendHead(dst, cborArray, 2)
	return appendInt(appendInt(dst, exponent), t)
}

func appendCBORValue(dst []byte, v holdfast.Value) []byte {
	switch v.Type() {
	case holdfast.Number:
		return appendCBORFloat(appendInt(dst, labelV), v.Number())
	case holdfast.Integer:
		dst = appendInt(appendInt(dst, labelV), v.Integer())
		return appendInt(appendCBORText(dst, "hf_int"), v.Integer())
	case holdfast.Boolean:
		if v.Boolean() {
			return append(appendInt(dst, labelVB), cborSimple<<5|21)
		}
		return append(appendInt(dst, labelVB), cborSimple<<5|20)
	case holdfast.Text:
		return appendCBORText(appendInt(dst, labelVS), v.Text())
	case holdfast.Bytes:
		b := v.Bytes()
		return append(appendHead(appendInt(dst, labelVD), cborBytes, uint64(len(b))), b...)
	case holdfast.Location:
		at := v.Position()
		dst = appendCBORText(dst, "hf_loc")
		if math.IsNaN(at.Altitude) {
			dst = appendHead(dst, cborArray, 2)
			return appendCBORFloat(appendCBORFloat(dst, at.Latitude), at.Longitude)
		}
		dst = appendHead(dst, cborArray, 3)
		return appendCBORFloat(appendCBORFloat(appendCBORFloat(dst, at.Latitude), at.Longitude), at.Altitude)
	}
	return dst
}

// appendCBORFloat writes 32 bits where they say the same. A NaN has 64.
func appendCBORFloat(dst []byte, f float64) []byte {
	if short := float32(f); float64(short) == f {
		return binary.BigEndian.AppendUint32(append(dst, cborSimple<<5|26), math.Float32bits(short))
	}
	return binary.BigEndian.AppendUint64(append(dst, cborSimple<<5|27), math.Float64bits(f))
}

func appendCBORText(dst []byte, s string) []byte {
	s = strings.ToValidUTF8(s, "\ufffd")
	return append(appendHead(dst, cborText, uint64(len(s))), s...)
}

func appendInt(dst []byte, i int64) []byte {
	if i < 0 {
		return appendHead(dst, cborNegative, uint64(-1-i))
	}
	return appendHead(dst, cborUnsigned, uint64(i))
}

// appendHead writes the shortest head (RFC 8949, section 4.2.1).
func appendHead(dst []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}
