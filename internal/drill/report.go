package drill

import (
	"fmt"
	"io"
	"slices"
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
	Planted     []Planted `json:"planted"`  // rows in the tables of the catalog
	Places      []string  `json:"places"`   // what the texts and secrets of each owner stood in
	Patterns    int       `json:"patterns"` // of the erased owner that were looked for, in each form
	Keys        int       `json:"keys"`     // destroyed ones that were looked for
	Files       int       `json:"files_searched"`
	Bytes       uint64    `json:"bytes_searched"`
	Hits        int       `json:"hits"`
	Searched    []Tally   `json:"searched"` // in sum, by where
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
	Where   string   `json:"where"` // files, backups, disk blocks, memory, answers
	Files   int      `json:"files"`
	Blocks  uint64   `json:"blocks,omitempty"` // of a disk
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
	return fmt.Sprintf("%s, %.1f MB: %d hits; control %d", t.many(), float64(t.Bytes)/1e6, t.Hits, t.Control)
}

// many counts what was looked through, in the words of its kind.
func (t *Tally) many() string {
	switch t.Where {
	case InBlocks:
		return fmt.Sprintf("%d blocks", t.Blocks)
	case InMemory:
		return "memory of the process"
	case InAnswers:
		return fmt.Sprintf("%d answers", t.Files)
	}
	return fmt.Sprintf("%d files", t.Files)
}

// The values of Tally.Where.
const (
	InFiles   = "files"
	InBackups = "files of backups"
	InBlocks  = "disk blocks"
	InMemory  = "memory"
	InAnswers = "answers"
)

// blockSize is that of the drill's disk.
const blockSize = 4096

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
	fmt.Fprintf(&b, "# Drill of erasure: %s\n\nholdfast %s, %s, %s, %.1f s. Two made-up owners, the canary and the control, %d readings; the canary was erased, grade %s. %d patterns of his and %d destroyed keys were looked for: %d hits.\n",
		passed, r.Version, r.At.Format(time.RFC3339), r.Machine, r.TookSeconds, r.Readings, r.Grade, r.Patterns, r.Keys, r.Hits)
	b.WriteString("\n## Searched\n\nControl: how often what is the other owner's, or lives, was found by the same search.\n\n| where | | MB | hits | control |\n|---|---:|---:|---:|---:|\n")
	for _, s := range r.Searched {
		fmt.Fprintf(&b, "| %s | %s | %.1f | %d | %d |\n", s.Where, s.many(), float64(s.Bytes)/1e6, s.Hits, s.Control)
	}
	b.WriteString("\n## Steps\n\n| step | result | |\n|---|---|---|\n")
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.What, s.Result, strings.ReplaceAll(strings.Join(s.details(), "; "), "|", `\|`))
	}
	fmt.Fprintf(&b, "\n## Planted\n\nPatterns stood in: %s; and in numbers.\n\nRows of each owner in the catalog's tables, and of the canary after his erasure.\n\n| table | canary | control | left of the canary |\n|---|---:|---:|---:|\n", strings.Join(r.Places, ", "))
	for _, p := range r.Planted {
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", p.Place, p.Canary, p.Control, p.Left)
	}
	if r.Certificate != "" {
		fmt.Fprintf(&b, "\n## Certificate\n\nVerifier key: `%s`\n\n```\n%s```\n", r.Verifier, r.Certificate)
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
		d.report.sum(s.Tally)
	}
	if d.opts.Progress != nil {
		d.opts.Progress(s)
	}
}

// sum adds what a search found to that of its kind.
func (r *Report) sum(t *Tally) {
	i := slices.IndexFunc(r.Searched, func(s Tally) bool { return s.Where == t.Where })
	if i < 0 {
		i, r.Searched = len(r.Searched), append(r.Searched, Tally{Where: t.Where})
	}
	s := &r.Searched[i]
	s.Blocks += t.Blocks
	s.Files, s.Bytes, s.Hits, s.Control = s.Files+t.Files, s.Bytes+t.Bytes, s.Hits+t.Hits, s.Control+t.Control
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
