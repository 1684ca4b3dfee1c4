package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// PrintTable writes results for a terminal.
func PrintTable(w io.Writer, results []*Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tMEASURE\tHOLDFAST (min median max)\tAGAINST\tPEER (min median max)\tRATIO\tGOAL\t")
	for _, r := range results {
		f, err := figureOf(r)
		if err != nil {
			return err
		}
		for _, row := range f.Rows(r) {
			against, peer, ratio := "-", "-", "-"
			if row.Measure.Peer != "" {
				against = row.Measure.Peer
			}
			if row.Peer != nil {
				peer, ratio = row.Measure.Unit.spread(*row.Peer), Times.Format(row.Ratio.Median)
			}
			goal := row.Measure.Goal.Format(row.Measure)
			if goal == "" {
				goal = "-"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Figure, row.Measure.What, row.Measure.Unit.spread(row.Own), against, peer, ratio, goal, row.Verdict)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for _, r := range results {
		for _, remark := range r.remarks() {
			fmt.Fprintf(w, "%s: %s\n", r.Figure, remark)
		}
	}
	return nil
}

// remarks are what a reader must know beside the numbers.
func (r *Result) remarks() []string {
	var out []string
	for _, s := range r.Skipped {
		out = append(out, "skipped: "+s)
	}
	disk := fmt.Sprintf("bare disk before: %s; after: %s", r.Before, r.After)
	if r.Disturbed {
		disk += "; it changed more than threefold: the figure is disturbed"
	}
	return append(out, disk)
}

// spread writes minimum, median and maximum.
func (u Unit) spread(s Spread) string {
	if math.IsNaN(s.Median) {
		return "-"
	}
	if s.Min == s.Max {
		return u.Format(s.Median)
	}
	return strings.Join([]string{u.Format(s.Min), u.Format(s.Median), u.Format(s.Max)}, "  ")
}

func figureOf(r *Result) (*Figure, error) {
	found, err := Find([]string{r.Figure})
	if err != nil {
		return nil, err
	}
	return &found[0], nil
}

// PrintJSON writes results for programs: what each round measured, and the rows
// with their verdicts.
func PrintJSON(w io.Writer, results []*Result) error {
	type row struct {
		Measure string  `json:"measure"`
		Unit    Unit    `json:"unit"`
		Own     Spread  `json:"holdfast"`
		Against string  `json:"against,omitempty"`
		Peer    *Spread `json:"peer,omitempty"`
		Ratio   *Spread `json:"ratio,omitempty"`
		Goal    string  `json:"goal,omitempty"`
		Verdict Verdict `json:"verdict,omitempty"`
		Why     string  `json:"why,omitempty"`
	}
	type judged struct {
		*Result
		Rows []row `json:"rows"`
	}
	out := []judged{}
	for _, r := range results {
		f, err := figureOf(r)
		if err != nil {
			return err
		}
		j := judged{Result: r}
		for _, x := range f.Rows(r) {
			j.Rows = append(j.Rows, row{x.Measure.Key, x.Measure.Unit, x.Own, x.Measure.Peer, x.Peer, x.Ratio, x.Measure.Goal.Format(x.Measure), x.Verdict, x.Why})
		}
		out = append(out, j)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(out); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
