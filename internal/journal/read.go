package journal

import (
	"errors"
	"io/fs"
	"iter"
	"sort"

	"github.com/holdfast-iot/holdfast"
)

// readAhead is what a reader asks of the disk at once.
const readAhead = 256 << 10

// Read implements Log. It is safe while records are appended and trimmed.
func (f *File) Read(from Pos) iter.Seq2[Entry, error] {
	segments, end := f.view()
	return func(yield func(Entry, error) bool) {
		w := window{ahead: readAhead}
		for i, s := range segments {
			limit := end
			if i+1 < len(segments) {
				limit = min(end, segments[i+1].base)
			}
			if limit <= from || limit <= s.base {
				continue
			}
			w = window{file: s.file, limit: s.offset(limit), ahead: readAhead, buf: w.buf[:0]}
			pos, err := s.seek(&w, max(from, s.base), limit)
			for err == nil && pos < limit {
				var r record
				if r, err = s.fetch(&w, pos, limit); err != nil {
					break
				}
				if !r.mark && !yield(Entry{Pos: pos, Next: r.next, Data: r.body}, nil) {
					return
				}
				pos = r.next
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
		}
	}
}

// view returns the segments and an end that lies in them.
func (f *File) view() ([]*segment, Pos) {
	end := f.End() // first: a segment that comes later begins at or after it
	return f.snapshot(), end
}

// At implements Log.
func (f *File) At(pos Pos) ([]byte, error) {
	segments, end := f.view()
	i := sort.Search(len(segments), func(i int) bool { return segments[i].base > pos }) - 1
	if i < 0 || pos >= end {
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no journal record at position %d", pos)
	}
	s, limit := segments[i], end
	if i+1 < len(segments) {
		limit = min(end, segments[i+1].base)
	}
	w := window{file: s.file, limit: s.offset(limit), ahead: 1 << 10}
	switch start, err := s.seek(&w, pos, limit); {
	case err != nil:
		return nil, err
	case start != pos:
		return nil, holdfast.Errorf(holdfast.Invalid, "no journal record begins at position %d", pos)
	}
	r, err := s.fetch(&w, pos, limit)
	switch {
	case err != nil:
		return nil, err
	case r.mark:
		return nil, holdfast.Errorf(holdfast.NotFound, "there is no journal record at position %d", pos)
	}
	return r.body, nil // the window is ours alone
}

// seek returns the first position at or after from, before limit, at which a
// record begins. Almost always that is from itself; else it walks from the
// beginning.
func (s *segment) seek(w *window, from, limit Pos) (Pos, error) {
	if from == s.base {
		return from, nil
	}
	if from%recordAlign == 0 && limit-from >= recordHeadSize {
		b, err := w.at(s.offset(from), recordHeadSize)
		if err != nil {
			return 0, s.fault(from, err)
		}
		if _, ok := parseHead(b, &s.id, s.base, from, limit); ok {
			return from, nil
		}
	}
	pos := s.base
	for pos < from {
		r, err := s.fetch(w, pos, limit)
		if err != nil {
			return 0, err
		}
		pos = r.next
	}
	return pos, nil
}

// fetch loads the record that must stand at pos.
func (s *segment) fetch(w *window, pos, limit Pos) (record, error) {
	r, ok, err := s.load(w, pos, limit)
	if err != nil || !ok {
		return record{}, s.fault(pos, err)
	}
	return r, nil
}

// fault says why a durable record can't be read.
func (s *segment) fault(pos Pos, err error) error {
	switch {
	case s.gone.Load():
		return holdfast.Errorf(holdfast.NotFound, "the journal was trimmed past position %d", pos)
	case errors.Is(err, fs.ErrClosed):
		return errClosed()
	case err != nil:
		return holdfast.Errorf(holdfast.Unavailable, "read journal segment %s at byte %d: %w", s.path, s.offset(pos), err)
	}
	return holdfast.Errorf(holdfast.Internal, "read journal: %w", error(&Damage{Path: s.path, Offset: s.offset(pos), Reason: "a durable record no longer checks"}))
}
