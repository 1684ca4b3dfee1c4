package senml

import (
	"unicode/utf16"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
)

var (
	errSyntax    = holdfast.Errorf(holdfast.Invalid, "not valid JSON")
	errUTF8      = holdfast.Errorf(holdfast.Invalid, "a text must be UTF-8")
	errSurrogate = holdfast.Errorf(holdfast.Invalid, `a \u escape in a text is half of a pair`)
	errDepth     = holdfast.Errorf(holdfast.TooLarge, "nested deeper than %d levels", MaxDepth)
	errTooLong   = holdfast.Errorf(holdfast.TooLarge, "a value has at most %d bytes", holdfast.MaxValueBytes)
)

// scanner reads the tokens of JSON (RFC 8259), and nothing that only looks like
// them. Of Unicode it takes whole characters only, as RFC 7493 asks.
type scanner struct {
	data []byte
	pos  int
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// take skips white space and c; false if something else comes.
func (s *scanner) take(c byte) bool {
	if s.peek() != c || s.pos == len(s.data) {
		return false
	}
	s.pos++
	return true
}

// end reports whether only white space is left.
func (s *scanner) end() bool {
	s.peek()
	return s.pos == len(s.data)
}

// word skips w; false if something else comes.
func (s *scanner) word(w string) bool {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		return false
	}
	s.pos += len(w)
	return true
}

// digitsAt adds up the digits from i on; the sum wraps, the count does not.
func digitsAt(data []byte, i int, sum uint64) (int, uint64) {
	for i < len(data) && data[i]-'0' <= 9 {
		sum = sum*10 + uint64(data[i]-'0')
		i++
	}
	return i, sum
}

// number reads the longest number of JSON's grammar.
func (s *scanner) number(n *literal) error {
	data, start := s.data, s.pos
	i := start
	n.negative = i < len(data) && data[i] == '-'
	if n.negative {
		i++
	}
	first := i
	i, n.digits = digitsAt(data, i, 0)
	count := i - first
	if count == 0 || count > 1 && data[first] == '0' {
		return errSyntax
	}
	n.fraction, n.whole = 0, true
	if i < len(data) && data[i] == '.' {
		point := i + 1
		i, n.digits = digitsAt(data, point, n.digits)
		n.fraction, n.whole = i-point, false
		if n.fraction == 0 {
			return errSyntax
		}
		count += n.fraction
	}
	n.short = count <= 19
	if i < len(data) && data[i]|0x20 == 'e' {
		i++
		if i < len(data) && (data[i] == '+' || data[i] == '-') {
			i++
		}
		exponent := i
		if i, _ = digitsAt(data, i, 0); i == exponent {
			return errSyntax
		}
		n.short, n.whole = false, false
	}
	n.text = data[start:i]
	s.pos = i
	return nil
}

// text reads a string. The bytes are the input's own where nothing is escaped.
func (s *scanner) text() ([]byte, error) {
	start := s.pos + 1
	escaped, plain := false, true
	for i := start; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			raw := s.data[start:i]
			if !plain && !utf8.Valid(raw) {
				return nil, errUTF8
			}
			if escaped {
				return unescape(raw)
			}
			return raw, nil
		case c < ' ':
			return nil, errSyntax
		case c == '\\':
			escaped = true
			i++
			if !escapeAt(s.data, i) {
				return nil, errSyntax
			}
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	return nil, errSyntax
}

// escapeAt reports whether what follows a backslash is one of JSON's escapes.
func escapeAt(data []byte, i int) bool {
	if i >= len(data) {
		return false
	}
	switch data[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		_, ok := hex4(data[i+1:])
		return ok
	}
	return false
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape copies raw, whose escapes are known to be JSON's.
func unescape(raw []byte) ([]byte, error) {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch c := raw[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				if len(raw)-i < 7 || raw[i+1] != '\\' || raw[i+2] != 'u' {
					return nil, errSurrogate
				}
				low, _ := hex4(raw[i+3:])
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return nil, errSurrogate
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
	}
	return out, nil
}

// skip reads one value of any kind, depth levels deep already.
func (s *scanner) skip(depth int) error {
	switch c := s.peek(); c {
	case '"':
		_, err := s.text()
		return err
	case 't', 'f', 'n':
		if s.word("true") || s.word("false") || s.word("null") {
			return nil
		}
		return errSyntax
	case '{', '[':
		if depth >= MaxDepth {
			return errDepth
		}
		s.pos++
		return s.skipMembers(depth+1, c == '{')
	default:
		var n literal
		return s.number(&n)
	}
}

// skipMembers reads to the end of an object or array whose bracket was read.
func (s *scanner) skipMembers(depth int, object bool) error {
	closing := byte(']')
	if object {
		closing = '}'
	}
	if s.take(closing) {
		return nil
	}
	for {
		if object {
			if _, err := s.key(); err != nil {
				return err
			}
		}
		if err := s.skip(depth); err != nil {
			return err
		}
		if s.take(closing) {
			return nil
		}
		if !s.take(',') {
			return errSyntax
		}
	}
}

// key reads the name of a member and the colon.
func (s *scanner) key() ([]byte, error) {
	if s.peek() != '"' {
		return nil, errSyntax
	}
	key, err := s.text()
	if err != nil {
		return nil, err
	}
	if !s.take(':') {
		return nil, errSyntax
	}
	return key, nil
}
