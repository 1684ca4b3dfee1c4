package promapi

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/holdfast-iot/holdfast"
)

// params reads what a request says; the first thing that is wrong stays in err.
type params struct {
	r   *http.Request
	err error
}

func (p *params) bad(name, want string) {
	if p.err == nil {
		p.err = &fault{badData, "invalid parameter \"" + name + "\": " + want}
	}
}

// mostMilli is the last millisecond that a reading can have.
const mostMilli = math.MaxInt64 / 1_000_000

// time reads seconds since 1970, with decimals, or RFC 3339.
func (p *params) time(name string, otherwise time.Time) time.Time {
	text := p.r.Form.Get(name)
	if text == "" {
		return otherwise
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(f) {
		if math.Abs(f) >= mostMilli/1000 { // clients write the ends of time in many ways
			return time.UnixMilli(int64(math.Copysign(mostMilli, f)))
		}
		whole, part := math.Modf(f)
		return time.UnixMilli(int64(whole)*1000 + int64(math.Round(part*1000)))
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t
	}
	p.bad(name, "a time is seconds since 1970 or RFC 3339")
	return otherwise
}

// duration reads seconds, with decimals, or what PromQL takes, as 5m.
func (p *params) duration(name string) time.Duration {
	text := p.r.Form.Get(name)
	if text == "" {
		return 0
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && f >= 0 && f < math.MaxInt64/1e9 {
		return time.Duration(f * float64(time.Second))
	}
	if d, err := model.ParseDuration(text); err == nil {
		return time.Duration(d)
	}
	p.bad(name, "a duration is seconds, or like 30s, 5m, 1h, 1d")
	return 0
}

func (p *params) limit(name string) int {
	text := p.r.Form.Get(name)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		p.bad(name, "a limit is a whole number, not negative")
	}
	return n
}

// selectors reads match[].
func (p *params) selectors() (all [][]*labels.Matcher) {
	if len(p.r.Form["match[]"]) > maxSelectors {
		p.bad("match[]", fmt.Sprintf("at most %d selectors", maxSelectors))
		return nil
	}
	for _, text := range p.r.Form["match[]"] {
		m, err := parseSelector(text)
		if err != nil {
			p.bad("match[]", err.Error())
			return nil
		}
		all = append(all, m)
	}
	return all
}

// span reads start and end of what lists streams; default all of time.
func (p *params) span() holdfast.Span {
	start, end := p.time("start", time.UnixMilli(-mostMilli)), p.time("end", time.UnixMilli(mostMilli))
	if end.Before(start) {
		p.bad("end", "end timestamp must not be before start timestamp")
	}
	return spanOf(start.UnixMilli(), end.UnixMilli())
}

// asker reads for what is asked, which stands in headers.
func (p *params) asker(by asker) asker {
	purpose, grant := p.r.Header.Get("Holdfast-Purpose"), p.r.Header.Get("Holdfast-Grant")
	if purpose != "" {
		if err := holdfast.CheckName("purpose", purpose); err != nil && p.err == nil {
			p.err = err
		}
		by.purpose = holdfast.Purpose(purpose)
	}
	if grant != "" {
		var err error
		if by.grant, err = holdfast.ParseID[holdfast.GrantID](grant); err != nil && p.err == nil {
			p.err = err
		}
	}
	return by
}
