package drill

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Results of a step.
const (
	Pass     = "pass"
	Fail     = "fail"
	NotTried = "not tried"
	Limit    = "limit" // what the drill shows that erasure does not reach
)

// Report is what a drill found.
type Report struct {
	Format      string    `json:"holdfast-drill"`
	Version     string    `json:"version"`
	At          time.Time `json:"at"`
	Machine     string    `json:"machine"`
	Passed      bool      `json:"passed"` // no step failed
	Grade       string    `json:"grade,omitempty"`
	Readings    int       `json:"readings"`
	Patterns    int       `json:"patterns"` // of the erased owner that were looked for, in each form
	Keys        int       `json:"keys"`     // destroyed ones that were looked for
	Files       int       `json:"files_searched"`
	Bytes       uint64    `json:"bytes_searched"`
	Hits        int       `json:"hits"`
	Certificate string    `json:"certificate,omitempty"`
	Verifier    string    `json:"verifier,omitempty"`
	Steps       []Step    `json:"steps"`
	TookSeconds float64   `json:"took_seconds"`
}

// Step is one thing that was tried.
type Step struct {
	ID     string `json:"id"`
	What   string `json:"what"`
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
	*Tally
}

// Tally is what a search looked through and found.
type Tally struct {
	Files   int      `json:"files"`
	Bytes   uint64   `json:"bytes"`
	Hits    int      `json:"hits"`    // of what was erased
	Control int      `json:"control"` // of what lives: a search that finds none of it is blind
	Found   []string `json:"found,omitempty"`
}

const mostFound = 20

func (t *Tally) hit(what string) {
	if t.Hits++; len(t.Found) < mostFound {
		t.Found = append(t.Found, what)
	}
}

func (t *Tally) String() string {
	return fmt.Sprintf("%d files, %.1f MB: %d hits; control %d", t.Files, float64(t.Bytes)/1e6, t.Hits, t.Control)
}

// Line is the step for a person.
func (s Step) Line() string {
	mark := map[string]string{Pass: "✓", Fail: "✗", NotTried: "-", Limit: "!"}[s.Result]
	line := fmt.Sprintf("%s %s", mark, s.What)
	if s.Result == NotTried {
		line += ": not tried"
	}
	for _, more := range s.details() {
		line += "\n    " + more
	}
	return line
}

func (s Step) details() (all []string) {
	if s.Detail != "" {
		all = append(all, s.Detail)
	}
	if s.Tally != nil {
		all = append(all, s.Tally.String())
		for _, f := range s.Found {
			all = append(all, "found: "+f)
		}
	}
	return all
}

// WriteMarkdown writes the report for people.
func (r Report) WriteMarkdown(w io.Writer) error {
	passed := "passed"
	if !r.Passed {
		passed = "FAILED"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Drill of erasure: %s\n\nholdfast %s, %s, %s. %d readings; %d patterns and %d destroyed keys looked for in %d files and %.1f MB: %d hits. Grade %s.\n\n| step | result | |\n|---|---|---|\n",
		passed, r.Version, r.At.Format(time.RFC3339), r.Machine, r.Readings, r.Patterns, r.Keys, r.Files, float64(r.Bytes)/1e6, r.Hits, r.Grade)
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.What, s.Result, strings.ReplaceAll(strings.Join(s.details(), "; "), "|", `\|`))
	}
	if r.Certificate != "" {
		fmt.Fprintf(&b, "\nVerifier key: `%s`\n\n```\n%s```\n", r.Verifier, r.Certificate)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// add counts a step in and tells of it.
func (d *drill) add(s Step) {
	d.report.Steps = append(d.report.Steps, s)
	if s.Tally != nil && s.Result != Limit {
		d.report.Files += s.Files
		d.report.Bytes += s.Bytes
		d.report.Hits += s.Hits
	}
	if d.opts.Progress != nil {
		d.opts.Progress(s)
	}
}

// check adds a step that passes unless there is an error.
func (d *drill) check(id, what, detail string, err error) {
	s := Step{ID: id, What: what, Result: Pass, Detail: detail}
	if err != nil {
		s.Result, s.Detail = Fail, err.Error()
	}
	d.add(s)
}

// searched adds a step of a search: no hit, and the control was found.
func (d *drill) searched(id, what string, t *Tally, err error) {
	s := Step{ID: id, What: what, Result: Pass, Tally: t}
	switch {
	case err != nil:
		s.Result, s.Detail = Fail, err.Error()
	case t.Hits > 0:
		s.Result, s.Detail = Fail, "something of the erased owner is there"
	case t.Control == 0:
		s.Result, s.Detail = Fail, "the search is blind: it did not find what must be there either"
	}
	d.add(s)
}
