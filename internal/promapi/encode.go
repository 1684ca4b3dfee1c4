package promapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// envelope is every answer of the API, as Prometheus writes it.
type envelope struct {
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data,omitempty"`
	ErrorType errorType       `json:"errorType,omitempty"`
	Error     string          `json:"error,omitempty"`
	Warnings  []string        `json:"warnings,omitempty"`
	Infos     []string        `json:"infos,omitempty"`
}

// appendValue writes what an expression came to. A value stands in quotes, since JSON
// has no NaN.
func appendValue(b []byte, v parser.Value) ([]byte, error) {
	b = append(append(append(b, `{"resultType":"`...), v.Type()...), `","result":`...)
	switch v := v.(type) {
	case promql.Scalar:
		b = appendPoint(b, v.T, v.V)
	case promql.String:
		text, err := json.Marshal(v.V)
		if err != nil {
			return nil, err
		}
		b = append(append(append(append(appendTime(append(b, '['), v.T), ','), text...), ']'), '}')
		return b, nil
	case promql.Vector:
		b = append(b, '[')
		for i, s := range v {
			b = appendMetric(b, i, s.Metric)
			b = append(appendPoint(append(b, `,"value":`...), s.T, s.F), '}')
		}
		b = append(b, ']')
	case promql.Matrix:
		b = append(b, '[')
		for i, s := range v {
			b = append(appendMetric(b, i, s.Metric), `,"values":[`...)
			for k, p := range s.Floats {
				if k > 0 {
					b = append(b, ',')
				}
				b = appendPoint(b, p.T, p.F)
			}
			b = append(b, `]}`...)
		}
		b = append(b, ']')
	default:
		return nil, fmt.Errorf("write answer: a %s is not known", v.Type())
	}
	return append(b, '}'), nil
}

func appendMetric(b []byte, i int, ls labels.Labels) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	text, err := json.Marshal(ls)
	if err != nil { // of texts it has no error
		panic(err)
	}
	return append(append(b, `{"metric":`...), text...)
}

// appendPoint writes [seconds, "value"].
func appendPoint(b []byte, t int64, f float64) []byte {
	b = append(appendTime(append(b, '['), t), `,"`...)
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return append(strconv.AppendFloat(b, f, format, -1, 64), `"]`...)
}

// appendTime writes milliseconds as seconds.
func appendTime(b []byte, t int64) []byte {
	if t < 0 {
		b, t = append(b, '-'), -t
	}
	b = strconv.AppendInt(b, t/1000, 10)
	if ms := t % 1000; ms != 0 {
		b = append(append(b, '.'), strconv.FormatInt(1000+ms, 10)[1:]...)
	}
	return b
}

// leastZipped is the shortest answer that is worth to be compressed.
const leastZipped = 1 << 10

// zipped compresses an answer where its reader takes that.
func zipped(r *http.Request, h http.Header, body []byte) []byte {
	h.Add("Vary", "Accept-Encoding")
	if len(body) < leastZipped || !accepts(r.Header.Get("Accept-Encoding"), "gzip") {
		return body
	}
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // the level is one that there is
	w.Write(body)                                     // into memory: no error
	w.Close()
	h.Set("Content-Encoding", "gzip")
	return out.Bytes()
}

func accepts(header, coding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, quality, _ := strings.Cut(part, ";")
		if strings.TrimSpace(name) != coding {
			continue
		}
		q, found := strings.CutPrefix(strings.TrimSpace(quality), "q=")
		f, err := strconv.ParseFloat(q, 64)
		return !found || err != nil || f > 0
	}
	return false
}
