package promapi

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// What an expression asks of a series decides how it is read. By itself PromQL wants
// every sample; where all that matters of a window of readings is its last one, its
// sum, its number, its least or its greatest, the windows are read, which the hub has
// stored by the minute:
//
//   - an instant selector, at times that are multiples of its step: first and last of
//     each window, at their own times. A window's readings between them are nobody's
//     last.
//   - sum, count, avg, min, max, last, present and absent _over_time, at times and over
//     ranges that are multiples of the window: what is said of the window, and apart
//     from that its first reading if it stands on the window's start, since PromQL
//     counts a range's end and not its start.
//   - either at one time: windows cut to what is asked for, so any will do.
//
// The answers are the same, but for: sums, in their last bits; min and max, over which a
// reading that stands exactly on the start of the range may be counted; a window with
// a NaN or an infinity in it that stands on its start; and readings of one
// millisecond, of which a plain selection has the last only.
//
// All else, and whatever stands in a subquery, is read as it is.
type form string

const (
	raw    form = ""
	points form = "points" // first and last
	latest form = "latest" // last
	sum    form = "sum"
	number form = "count"
	least  form = "min"
	most   form = "max"
)

// overTime are the functions that windows answer.
var overTime = map[string]form{
	"sum_over_time": sum, "count_over_time": number, "avg_over_time": sum, "min_over_time": least, "max_over_time": most,
	"last_over_time": points, "present_over_time": number, "absent_over_time": number,
}

// leastWindow is the shortest window that it is worth to read.
const leastWindow = time.Minute

// plan marks the selectors of an expression with how they are to be read.
type plan struct {
	start, end, step int64 // ms
}

func planOf(s *parser.EvalStmt) plan {
	return plan{s.Start.UnixMilli(), s.End.UnixMilli(), s.Interval.Milliseconds()}
}

// rewrite marks what is in an expression, and returns what stands in its place.
func (p plan) rewrite(expr parser.Expr) parser.Expr {
	switch n := expr.(type) {
	case *parser.VectorSelector:
		p.mark(n, points, 0)
	case *parser.Call:
		return p.call(n)
	case *parser.AggregateExpr:
		n.Expr = p.rewrite(n.Expr)
		if n.Param != nil {
			n.Param = p.rewrite(n.Param)
		}
	case *parser.BinaryExpr:
		n.LHS, n.RHS = p.rewrite(n.LHS), p.rewrite(n.RHS)
	case *parser.ParenExpr:
		n.Expr = p.rewrite(n.Expr)
	case *parser.UnaryExpr:
		n.Expr = p.rewrite(n.Expr)
	case *parser.StepInvariantExpr:
		n.Expr = p.rewrite(n.Expr)
	}
	return expr // a subquery looks at other times, a range wants all there is
}

// call marks what a function is asked of. A count becomes the sum of the windows'
// counts, a mean the sum of their sums by that.
func (p plan) call(n *parser.Call) parser.Expr {
	f, known := overTime[n.Func.Name]
	m, ranged := (*parser.MatrixSelector)(nil), false
	if known && len(n.Args) == 1 {
		m, ranged = n.Args[0].(*parser.MatrixSelector)
	}
	if !ranged {
		for i := range n.Args {
			n.Args[i] = p.rewrite(n.Args[i])
		}
		return n
	}
	v, ok := m.VectorSelector.(*parser.VectorSelector)
	if !ok || !p.mark(v, f, m.Range) {
		return n
	}
	summed := parser.Functions["sum_over_time"]
	switch n.Func.Name {
	case "count_over_time":
		n.Func = summed
	case "avg_over_time":
		other, counted := *v, *m
		other.LabelMatchers = slices.Clone(v.LabelMatchers)
		p.mark(&other, number, m.Range)
		counted.VectorSelector = &other
		n.Func = summed
		return &parser.BinaryExpr{
			Op: parser.DIV, LHS: n, VectorMatching: &parser.VectorMatching{Card: parser.CardOneToOne},
			RHS: &parser.Call{Func: summed, Args: parser.Expressions{&counted}, PosRange: n.PosRange},
		}
	}
	return n
}

// mark says how a selector is to be read; false: as it is.
func (p plan) mark(v *parser.VectorSelector, f form, over time.Duration) bool {
	window, alone := p.window(v, over)
	if window < leastWindow {
		return false
	}
	if alone && f == points {
		f = latest
	}
	v.LabelMatchers = slices.DeleteFunc(slices.Clone(v.LabelMatchers), func(m *labels.Matcher) bool { return m.Name == markLabel })
	v.LabelMatchers = append(v.LabelMatchers, markOf(f, window))
	return true
}

// window is how long the windows may be in which a selector is read.
func (p plan) window(v *parser.VectorSelector, over time.Duration) (_ time.Duration, alone bool) {
	if v.Timestamp != nil || p.step <= 0 || p.start == p.end {
		if over > 10*24*time.Hour {
			return 24 * time.Hour, true
		}
		return time.Hour, true
	}
	first := p.start - v.OriginalOffset.Milliseconds()
	return time.Duration(gcd(gcd(p.step, first), over.Milliseconds())) * time.Millisecond, false
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return max(a, -a)
}

// markLabel is a matcher that carries how a selector is read to where it is read. It
// is of a kind that no function takes for a label.
const markLabel = "__holdfast_read__"

// checkMarks refuses an expression that has marks before it was planned.
func checkMarks(expr parser.Expr) (err error) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok && slices.ContainsFunc(v.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == markLabel }) {
			err = &fault{badData, "the label " + markLabel + " is the hub's own"}
		}
		return nil
	})
	return err
}

func markOf(f form, window time.Duration) *labels.Matcher {
	return &labels.Matcher{Type: labels.MatchNotEqual, Name: markLabel, Value: fmt.Sprintf("%s/%d", f, window.Milliseconds())}
}

// unmarked takes the mark from matchers.
func unmarked(all []*labels.Matcher) (rest []*labels.Matcher, f form, window time.Duration) {
	for _, m := range all {
		name, ms, ok := strings.Cut(m.Value, "/")
		n, err := strconv.ParseInt(ms, 10, 64)
		if m.Name == markLabel && m.Type == labels.MatchNotEqual && ok && err == nil {
			f, window = form(name), time.Duration(n)*time.Millisecond
		} else {
			rest = append(rest, m)
		}
	}
	return rest, f, window
}
