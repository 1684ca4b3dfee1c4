package main

import (
	"io"
	"os"
	"unicode"
	"unicode/utf8"
)

// forPeople is a file as people see it: on a terminal, what others wrote (a
// reading's text, as CSV or JSON) may not steer it. Into files and pipes every byte
// goes as it is.
func forPeople(f *os.File) io.Writer {
	if isTerminal(f) {
		return &screen{to: f}
	}
	return f
}

// screen replaces what a terminal would not show as a character.
type screen struct {
	to   io.Writer
	rest []byte // the beginning of a character whose end has not come
}

func (s *screen) Write(p []byte) (int, error) {
	text := append(s.rest, p...)
	out := make([]byte, 0, len(text))
	for len(text) > 0 && utf8.FullRune(text) {
		r, n := utf8.DecodeRune(text)
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			r = utf8.RuneError
		}
		out, text = utf8.AppendRune(out, r), text[n:]
	}
	s.rest = append([]byte(nil), text...)
	if _, err := s.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
