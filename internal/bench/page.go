package bench

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// WritePage puts results on the page at path, docs/performance.md. What the page
// says of other figures stays: their results are kept beside it as JSON.
func WritePage(path string, results []*Result) error {
	kept := strings.TrimSuffix(path, filepath.Ext(path)) + ".json"
	var all []*Result
	text, err := os.ReadFile(kept)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read kept results: %w", err)
	}
	for _, r := range results {
		all = slices.DeleteFunc(all, func(old *Result) bool { return old.Figure == r.Figure })
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *Result) int {
		return cmp.Or(cmp.Compare(len(a.Figure), len(b.Figure)), cmp.Compare(a.Figure, b.Figure))
	})
	page, err := Page(all)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	if err := e.Encode(all); err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	if err := os.WriteFile(kept, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	if err := os.WriteFile(path, page, 0o644); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

const preface = `# Performance

This page is written by ` + "`./test --peers`" + `; nobody edits it. ` + "`holdfast bench P1`" + ` measures a
figure on your own machine, with Holdfast alone; ` + "`./test --peers P1`" + ` measures it beside
its peers and writes its part of this page anew. The raw rounds are in
[performance.json](performance.json).

How to read it: each side takes its turn in every round, so that what disturbs
the machine for a while disturbs all. A cell shows minimum, **median** and maximum
of the rounds. A ratio is the median of the rounds' ratios, Holdfast divided by the
peer. Processor time and memory are the server process's, from the operating
system; "per core" is per second of the server's processor time, so it does not
depend on how much of the machine the load generator took. The bare disk is probed
before and after: 4 KiB and ` + "`fdatasync`" + `, appended and in a preallocated file. Read
ratios rather than absolute numbers: these are of one machine, named with each.
`

// Page writes results as the page.
func Page(results []*Result) ([]byte, error) {
	var w bytes.Buffer
	w.WriteString(preface)
	w.WriteString("\n| figure | goals reached | measured |\n|---|---|---|\n")
	for _, r := range results {
		f, err := figureOf(r)
		if err != nil {
			return nil, err
		}
		hits, judged := 0, 0
		for _, row := range f.Rows(r) {
			if row.Verdict != NotJudged {
				judged++
			}
			if row.Verdict == Hit {
				hits++
			}
		}
		fmt.Fprintf(&w, "| [%s](#%s) %s | %d of %d | %s |\n", f.ID, strings.ToLower(f.ID), f.Title, hits, judged, day(r.Date))
	}
	for _, r := range results {
		f, err := figureOf(r)
		if err != nil {
			return nil, err
		}
		f.section(&w, r)
	}
	return w.Bytes(), nil
}

// section writes one figure.
func (f *Figure) section(w *bytes.Buffer, r *Result) {
	fmt.Fprintf(w, "\n## %s\n\n%s. %s\n\n", f.ID, f.Title, f.What)
	w.WriteString("| measure | Holdfast | against | peer | ratio | goal | |\n|---|---|---|---|---|---|---|\n")
	var reasons []string // each once, in order
	missed := map[string][]string{}
	for _, row := range f.Rows(r) {
		m := row.Measure
		peer, ratio := "", ""
		if row.Peer != nil {
			peer = m.Unit.bold(*row.Peer)
			ratio = fmt.Sprintf("**%s** (%s to %s)", Times.Format(row.Ratio.Median), Times.Format(row.Ratio.Min), Times.Format(row.Ratio.Max))
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", m.What, m.Unit.bold(row.Own), r.named(m.Peer), peer, ratio, m.Goal.Format(m), row.Verdict)
		if row.Verdict == Miss {
			why := cmp.Or(row.Why, "No reason is known beyond the numbers.")
			if missed[why] == nil {
				reasons = append(reasons, why)
			}
			what := m.What
			if m.Peer != "" {
				what += " against " + m.Peer
			}
			missed[why] = append(missed[why], what)
		}
	}
	for _, why := range reasons {
		fmt.Fprintf(w, "\nMissed: %s. %s\n", strings.Join(missed[why], "; "), why)
	}
	own := r.Sides[0]
	fmt.Fprintf(w, "\nMeasured %s with `%s`, %d rounds, Holdfast %s.\n%s.\n", day(r.Date), r.Command, len(own.Rounds), own.Version, r.Machine)
	for _, remark := range r.remarks() {
		fmt.Fprintf(w, "%s%s.\n", strings.ToUpper(remark[:1]), remark[1:])
	}
}

// named is a peer with version and year.
func (r *Result) named(peer string) string {
	s := r.side(peer)
	switch {
	case peer == "":
		return ""
	case s == nil:
		return peer + " (not there)"
	case s.Year == 0:
		return peer + " " + s.Version
	}
	return fmt.Sprintf("%s %s (%d)", s.Name, s.Version, s.Year)
}

// bold is spread for the page.
func (u Unit) bold(s Spread) string {
	if s.Min == s.Max {
		return "**" + u.Format(s.Median) + "**"
	}
	return fmt.Sprintf("%s / **%s** / %s", u.Format(s.Min), u.Format(s.Median), u.Format(s.Max))
}
