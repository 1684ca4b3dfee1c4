package api

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// columnRows writes the readings of a stream as columns, some thousand to a line:
// what all have in common stands there once, then "time", "value" and, where a
// reading has one, "seq" and "marks", all of one length. A time is a decimal number
// of Unix seconds, exact to the nanosecond. The last line is ndjson's.
type columnRows struct {
	out    *sink
	result *query.Result

	of    *query.Source
	head  []byte
	times []byte
	value []byte
	seqs  []uint64 // nil: all 0
	marks []holdfast.Mark
	n     int
	count int
}

// A line ends when it has so many rows or bytes of values.
const (
	columnsRows  = 8192
	columnsBytes = 1 << 20
)

func (c *columnRows) headers(h http.Header) { h.Set("Content-Type", "application/x-ndjson") }

func (c *columnRows) begin() error { return nil }

func (c *columnRows) row(r query.Row) error {
	if r.Source != c.of || c.n == columnsRows || len(c.value) > columnsBytes {
		if err := c.line(); err != nil {
			return err
		}
		if r.Source != c.of {
			c.of, c.head = r.Source, appendHead(c.head[:0], r.Source, 0)
		}
	}
	if c.n > 0 {
		c.times, c.value = append(c.times, ','), append(c.value, ',')
	}
	c.times = appendSeconds(c.times, r.Time)
	c.value = appendValue(c.value, r.Value)
	c.seqs = extend(c.seqs, c.n, r.Seq)
	c.marks = extend(c.marks, c.n, r.Mark)
	c.n++
	return nil
}

// extend appends to a column that is missing while all of it is zero.
func extend[T ~uint64 | ~uint8](column []T, n int, v T) []T {
	if column == nil {
		if v == 0 {
			return nil
		}
		column = make([]T, n, columnsRows)
	}
	return append(column, v)
}

// line writes what has come together.
func (c *columnRows) line() error {
	if c.n == 0 {
		return nil
	}
	if err := c.write(c.head, []byte(`,"time":[`), c.times, []byte(`],"value":[`), c.value); err != nil {
		return err
	}
	b := append(c.times[:0], ']')
	if c.seqs != nil {
		b = append(b, `,"seq":[`...)
		for i, s := range c.seqs {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(b, s, 10)
		}
		b = append(b, ']')
	}
	if c.marks != nil {
		b = append(b, `,"marks":[`...)
		for i, m := range c.marks {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendMarks(b, m)
		}
		b = append(b, ']')
	}
	err := c.write(append(b, "}\n"...))
	c.count += c.n
	c.times, c.value, c.seqs, c.marks, c.n = b[:0], c.value[:0], nil, nil, 0
	return err
}

func (c *columnRows) write(parts ...[]byte) error {
	for _, p := range parts {
		if _, err := c.out.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func (c *columnRows) end(next string) error {
	if err := c.line(); err != nil {
		return err
	}
	return c.write(appendDone(nil, c.count, c.result.Withheld, next))
}

func (c *columnRows) broken(p *Problem) {
	if c.line() == nil {
		json.NewEncoder(c.out).Encode(map[string]any{"error": p})
	}
}
