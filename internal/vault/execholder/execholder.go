// Package execholder is a holder of the root key that is another program: an HSM,
// a key management service, or anything else that speaks a few lines of JSON
// (docs/holders.md). Each question is one run of the program: one JSON object on
// its standard input, one on its standard output.
//
// The root key crosses in the pipes alone: never in arguments, in the environment
// or in a file. The program runs in a process group of its own, with an
// environment of two variables, and is killed with all that it started when the
// context ends. Nothing that it says is believed that the vault can try itself.
package execholder

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// protocol is the version that is spoken.
const protocol = "1"

// Bounds of what a program may answer.
const (
	maxAnswer      = 256 << 10
	maxGenerations = 1024
	maxEvidence    = 64 << 10
	maxAbout       = 200
)

// Holder is a program that holds the root key of one keyring.
type Holder struct {
	program string
	args    []string
	keyring string
	about   string
}

// Open looks at the program and asks it what it is. keyring tells the keys of one
// hub from those of others that the program may hold.
func Open(ctx context.Context, program string, args []string, keyring string) (*Holder, error) {
	if err := look(program); err != nil {
		return nil, err
	}
	h := &Holder{program: program, args: args, keyring: keyring}
	a, err := h.ask(ctx, question{Do: "describe"})
	if err != nil {
		return nil, err
	}
	if !slices.Contains(a.Protocols, protocol) {
		return nil, h.says(holdfast.Conflict, "describe", "it speaks the protocols %q, this program %q", a.Protocols, protocol)
	}
	if h.about = tidy(a.About, maxAbout); h.about == "" {
		return nil, h.says(holdfast.Invalid, "describe", "it does not say what it is (about)")
	}
	return h, nil
}

// look refuses a program that others may replace: it is given the root key.
func look(program string) error {
	if !filepath.IsAbs(program) {
		return holdfast.Errorf(holdfast.Invalid, "the program %s of the holder is not named by its absolute path", program)
	}
	info, err := os.Stat(program)
	switch {
	case err != nil:
		return holdfast.Errorf(holdfast.Unavailable, "the program of the holder: %w", err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return holdfast.Errorf(holdfast.Invalid, "%s is no program: it is not a regular file that may be executed", program)
	case info.Mode().Perm()&0o022 != 0:
		return holdfast.Errorf(holdfast.Denied, "others may replace the program %s, which is given the root key (mode %04o): chmod go-w it", program, info.Mode().Perm())
	}
	dir, err := os.Stat(filepath.Dir(program))
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "the folder of the holder's program: %w", err)
	}
	if dir.Mode().Perm()&0o022 != 0 && dir.Mode()&fs.ModeSticky == 0 {
		return holdfast.Errorf(holdfast.Denied, "others may replace the program %s, which is given the root key (mode %04o of its folder): chmod go-w the folder", program, dir.Mode().Perm())
	}
	return nil
}

func (h *Holder) Name() string       { return "exec" }
func (h *Holder) Kind() string       { return "exec" }
func (h *Holder) Grade() vault.Grade { return vault.Clear }

// About is what the program says that it is.
func (h *Holder) About() string { return h.about }

// question is what a program is asked, without the key.
type question struct {
	Protocol   string `json:"holdfast-holder"`
	Do         string `json:"do"`
	Keyring    string `json:"keyring"`
	Generation uint64 `json:"generation,omitempty"`
	Below      uint64 `json:"below,omitempty"`
	Box        []byte `json:"box,omitempty"`
}

// answer is what it says.
type answer struct {
	Protocol    string   `json:"holdfast-holder"`
	Error       string   `json:"error"`
	Why         string   `json:"why"`
	Protocols   []string `json:"protocols"`
	About       string   `json:"about"`
	Generations []uint64 `json:"generations"`
	Box         []byte   `json:"box"`
	Key         []byte   `json:"key"`
	Evidence    []byte   `json:"evidence"`
}

// The errors that a program can name.
const (
	gone        = "gone"        // it does not hold that generation
	denied      = "denied"      // the box is not its own, or was altered
	unavailable = "unavailable" // not now
)

func (h *Holder) Generations(ctx context.Context) ([]uint64, error) {
	a, err := h.ask(ctx, question{Do: "evidence"})
	if err != nil {
		return nil, err
	}
	if a.Generations == nil {
		return nil, h.says(holdfast.Invalid, "evidence", "there are no generations in its answer; none are []")
	}
	if len(a.Generations) > maxGenerations || !slices.IsSorted(a.Generations) || len(slices.Compact(slices.Clone(a.Generations))) != len(a.Generations) || slices.Contains(a.Generations, 0) {
		return nil, h.says(holdfast.Invalid, "evidence", "its generations are not ascending numbers from 1 on, %d at most", maxGenerations)
	}
	return a.Generations, nil
}

func (h *Holder) Prepare(ctx context.Context, n uint64) error {
	if _, err := h.ask(ctx, question{Do: "prepare", Generation: n}); err != nil {
		return err
	}
	gens, err := h.Generations(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(gens, n) {
		return h.says(holdfast.Internal, "prepare", "it lies: generation %d is not among those that it then says it holds (%v)", n, gens)
	}
	return nil
}

func (h *Holder) Seal(ctx context.Context, n uint64, root seal.Key) ([]byte, error) {
	a, err := h.askWith(ctx, question{Do: "wrap", Generation: n}, root[:])
	if err != nil {
		return nil, err
	}
	if len(a.Box) == 0 {
		return nil, h.says(holdfast.Invalid, "wrap", "there is no box in its answer")
	}
	if containsKey(a.Box, root[:]) {
		return nil, h.says(holdfast.Internal, "wrap", "it lies: its box has the root key in clear")
	}
	return a.Box, nil
}

func (h *Holder) Open(ctx context.Context, n uint64, box []byte) (k seal.Key, err error) {
	a, err := h.ask(ctx, question{Do: "unwrap", Generation: n, Box: box})
	if err != nil {
		return k, err
	}
	defer clear(a.Key)
	if len(a.Key) != len(k) {
		return k, h.says(holdfast.Invalid, "unwrap", "the key in its answer has %d bytes, not %d", len(a.Key), len(k))
	}
	copy(k[:], a.Key)
	return k, nil
}

func (h *Holder) Destroy(ctx context.Context, below uint64) ([]byte, error) {
	if _, err := h.ask(ctx, question{Do: "destroy", Below: below}); err != nil {
		return nil, err
	}
	a, err := h.ask(ctx, question{Do: "evidence", Below: below})
	if err != nil {
		return nil, err
	}
	if len(a.Evidence) > maxEvidence {
		return nil, h.says(holdfast.TooLarge, "evidence", "its evidence has %d bytes, %d are possible", len(a.Evidence), maxEvidence)
	}
	for _, n := range a.Generations {
		if n < below {
			return nil, h.says(holdfast.Internal, "destroy", "it lies: it says that what is before %d is destroyed, and that it holds %v", below, a.Generations)
		}
	}
	return a.Evidence, nil
}

// ask runs the program for a question without a key.
func (h *Holder) ask(ctx context.Context, q question) (answer, error) { return h.askWith(ctx, q, nil) }

func (h *Holder) askWith(ctx context.Context, q question, key []byte) (a answer, err error) {
	q.Protocol, q.Keyring = protocol, h.keyring
	in, err := q.encode(key)
	if err != nil {
		return a, err
	}
	defer clear(in)
	out, err := h.run(ctx, q.Do, in, key)
	defer clear(out)
	if err != nil {
		return a, err
	}
	if len(out) == 0 {
		return a, h.says(holdfast.Unavailable, q.Do, "it answers nothing")
	}
	if err := json.Unmarshal(out, &a); err != nil {
		return answer{}, h.says(holdfast.Unavailable, q.Do, "its answer (%d bytes) is not one whole JSON object as docs/holders.md has it", len(out))
	}
	if a.Protocol != protocol {
		return answer{}, h.says(holdfast.Conflict, q.Do, "its answer is of protocol %q, not %q (holdfast-holder)", tidy(a.Protocol, 20), protocol)
	}
	why := ""
	if a.Why != "" {
		why = ": " + tidy(hideKey([]byte(a.Why), key), maxAbout)
	}
	switch a.Error {
	case "":
		return a, nil
	case gone:
		return answer{}, h.says(holdfast.NotFound, q.Do, "it does not hold that generation%s", why)
	case denied:
		return answer{}, h.says(holdfast.Denied, q.Do, "the box is not its own, or was altered%s", why)
	case unavailable:
		return answer{}, h.says(holdfast.Unavailable, q.Do, "it can't now%s", why)
	}
	return answer{}, h.says(holdfast.Invalid, q.Do, "it names an error %q; possible are %s, %s and %s", tidy(a.Error, 20), gone, denied, unavailable)
}

// encode is the question with the key, in one buffer that the caller overwrites:
// the JSON package keeps its buffers.
func (q question) encode(key []byte) ([]byte, error) {
	b, err := json.Marshal(q)
	if err != nil || key == nil {
		return append(b, '\n'), err
	}
	out := make([]byte, 0, len(b)+len(`,"key":""`)+base64.StdEncoding.EncodedLen(len(key))+1)
	out = append(out, b[:len(b)-1]...)
	out = append(out, `,"key":"`...)
	out = base64.StdEncoding.AppendEncode(out, key)
	return append(out, "\"}\n"...), nil
}

// says is an error that names the program and what it was asked.
func (h *Holder) says(kind holdfast.Kind, do, format string, args ...any) error {
	return holdfast.Errorf(kind, "program %s, asked to %s: %s", filepath.Base(h.program), do, fmt.Sprintf(format, args...))
}

// tidy makes what a program wrote fit for an error: one line, printable, not long.
func tidy(s string, most int) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' || r > 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}
