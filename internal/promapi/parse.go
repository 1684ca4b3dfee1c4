package promapi

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/holdfast-iot/holdfast"
)

// What an expression may be. The language's own parser, printer and engine go down an
// expression in steps whose cost grows with its depth, some of them with the square of
// it, and none of them can be stopped.
const (
	maxWords     = 5_000 // operators, brackets, names, numbers and texts
	maxDepth     = 100   // of operators and functions within each other
	maxSelectors = 100   // of one list
)

// parse reads an expression that is worked out in bounded steps.
func parse(text string) (parser.Expr, error) {
	if err := checkWords(text); err != nil {
		return nil, err
	}
	expr, err := parser.ParseExpr(text)
	if err != nil {
		return nil, &fault{badData, err.Error()}
	}
	return expr, checkDepth(expr)
}

// parseSelector reads a selector, which has no depth.
func parseSelector(text string) ([]*labels.Matcher, error) {
	if err := checkWords(text); err != nil {
		return nil, err
	}
	return parser.ParseMetricSelector(text)
}

func checkWords(text string) error {
	l := parser.Lex(text)
	var i parser.Item
	for range maxWords {
		if l.NextItem(&i); i.Typ == parser.EOF || i.Typ == parser.ERROR {
			return nil
		}
	}
	return holdfast.Errorf(holdfast.TooLarge, "an expression has at most %d operators, brackets, names, numbers and texts: name many devices by one regular expression", maxWords)
}

// checkDepth is level by level: what is too deep is not gone down.
func checkDepth(expr parser.Expr) error {
	level := []parser.Node{expr}
	for range maxDepth {
		var below []parser.Node
		for _, n := range level {
			below = append(below, parser.Children(n)...)
		}
		if level = below; len(level) == 0 {
			return nil
		}
	}
	return holdfast.Errorf(holdfast.TooLarge, "an expression has at most %d operators and functions within each other", maxDepth)
}
