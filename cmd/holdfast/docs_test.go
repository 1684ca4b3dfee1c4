package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// verbs is what run parses with.
func verbs(t *testing.T) *kong.Kong {
	t.Helper()
	p, err := parser()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// node finds a verb.
func node(t *testing.T, p *kong.Kong, verb string) *kong.Node {
	t.Helper()
	i := slices.IndexFunc(p.Model.Children, func(n *kong.Node) bool { return n.Name == verb })
	if i < 0 {
		t.Fatalf("there is no verb %s", verb)
	}
	return p.Model.Children[i]
}

// docs/config.md has each flag of init, serve and what talks to a hub, with its
// variable and its default, and no other.
func TestConfigIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	p := verbs(t)
	row := regexp.MustCompile("(?m)^\\| `(?:-\\w, )?-{1,2}([a-zA-Z0-9-]+)[^`]*` \\|([^|]*)\\|([^|]*)\\|")
	for section, verb := range map[string]string{"## init": "init", "## serve": "serve", "## Verbs that talk to a hub": "doctor"} {
		_, text, ok := strings.Cut(string(b), "\n"+section+"\n")
		if !ok {
			t.Fatalf("docs/config.md has no section %s", section)
		}
		text, _, _ = strings.Cut(text, "\n## ")
		documented := map[string][]string{}
		for _, m := range row.FindAllStringSubmatch(text, -1) {
			documented[m[1]] = m
		}
		for _, f := range node(t, p, verb).Flags {
			if f.Name == "help" || f.Hidden || verb == "doctor" && (f.Name == "strict" || f.Name == "root-key" || f.Name == "ready") {
				continue
			}
			m := documented[f.Name]
			if m == nil && f.Short != 0 {
				m = documented[string(f.Short)]
				delete(documented, string(f.Short))
			}
			delete(documented, f.Name)
			if m == nil {
				t.Errorf("docs/config.md has no --%s of %s", f.Name, verb)
				continue
			}
			variable := ""
			if len(f.Envs) > 0 && f.Envs[0] != "-" {
				variable = "`" + f.Envs[0] + "`"
			}
			if strings.TrimSpace(m[2]) != variable {
				t.Errorf("docs/config.md: the variable of --%s is %q, not %s", f.Name, variable, m[2])
			}
			if f.HasDefault && !strings.Contains(m[3], f.Default) {
				t.Errorf("docs/config.md: the default of --%s is %q, not %s", f.Name, f.Default, m[3])
			}
		}
		for name := range documented {
			t.Errorf("docs/config.md has --%s in %s, which %s does not know", name, section, verb)
		}
	}
}

// The words of a line as a shell takes them: quotes join, and what stands after a
// comment or an operator is not the command's.
func shellWords(line string) (words []string) {
	var word strings.Builder
	var quote rune
	begun := false
	for _, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ' || r == '\t':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		case strings.ContainsRune("|&;>#", r) && !begun || r == '|' || r == ';':
			return words
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}

// understood parses a command; a word in capitals stands for something of the right
// kind, and brackets for what may be left out.
func understood(t *testing.T, words []string) error {
	for i := range words {
		words[i] = strings.Trim(words[i], "[]")
	}
	p := verbs(t)
	_, err := p.Parse(withTimes(words))
	if err == nil {
		return nil
	}
	for i, w := range words {
		if regexp.MustCompile(`^[A-Z]+$`).MatchString(w) {
			words[i] = "1"
		}
	}
	if _, again := verbs(t).Parse(withTimes(words)); again == nil {
		return nil
	}
	return err
}

var block = regexp.MustCompile("(?ms)^ *```[a-z]*\n(.*?)^ *```")

// Every `holdfast ...` in a block of every document is a command that this program
// understands, flags and all.
func TestCommandsOfDocumentsParse(t *testing.T) {
	n := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"testdata", "node_modules", ".git", "format"}, d.Name()) { // of formats the blocks are files
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".md") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range block.FindAllStringSubmatch(string(b), -1) {
			for line := range strings.Lines(strings.ReplaceAll(m[1], "\\\n", " ")) {
				words := shellWords(strings.TrimSpace(line))
				for len(words) > 0 && (words[0] == "$" || words[0] == "sudo" || strings.HasPrefix(words[0], "HOLDFAST_")) {
					words = words[1:]
				}
				if len(words) < 2 || words[0] != "holdfast" || slices.Contains(words, "...") || slices.Contains(words, "--help") || words[1] == strings.ToUpper(words[1]) {
					continue
				}
				n++
				if err := understood(t, words[1:]); err != nil {
					t.Errorf("%s: %s: %v", strings.TrimPrefix(path, "../../"), strings.TrimSpace(line), err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 20 {
		t.Errorf("only %d commands were found", n)
	}
}
