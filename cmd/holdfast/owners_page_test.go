package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every command of docs/for-owners.md does what it says as it stands there, with the
// flags that the page asks for behind it: an owner types it, who has read nothing else.
func TestTheOwnersPageRuns(t *testing.T) {
	page, err := os.ReadFile("../../docs/for-owners.md")
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, dir: t.TempDir()}
	api := freePort(t)
	data := p.file("data")
	p.must("init", data, "--organisation", "Acme", "--host", "localhost", "--root-key", p.file("root.key"))
	p.hubArgs = []string{"serve", "--data", data, "--listen-api", "127.0.0.1:" + api, "--listen-device", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0"}
	p.startHub()
	defer func() {
		p.hub.Process.Kill()
		p.hub.Wait()
	}()
	p.must("party", "add", "Ada Lovelace", "--kind", "person", "--data", data)
	p.must("party", "add", "Clinic", "--kind", "organisation", "--data", data)
	p.must("purpose", "add", "care", "--iri", "dpv:ServiceProvision", "--basis", "consent", "--data", data)
	p.must("enrol", wordOf(t, p.must("device", "add", "watch", "--owner", "Ada Lovelace", "--data", data), "hf1:"), "--out", p.file("watch"))
	p.must("send", "--identity", p.file("watch"), "pulse=61")
	link := wordOf(t, p.must("party", "invite", "Ada Lovelace", "--data", data), "https://localhost:"+api)
	known := map[string]string{"LINK": link, "YOUR NAME": "Ada Lovelace", "DEVICE": "watch", "DEVICE/STREAM": "watch/pulse", "REASON": "care"}

	var lines []string
	for _, m := range regexp.MustCompile("`(holdfast [^`]+)`").FindAllStringSubmatch(string(page), -1) {
		if line := m[1]; line != "holdfast verify" && !slices.Contains(lines, line) { // which is spoken of
			lines = append(lines, line)
		}
	}
	last := func(line string) bool {
		return strings.Contains(line, "'YOUR NAME' --certificate") || strings.Contains(line, "holdfast verify")
	}
	lines = slices.Concat(slices.DeleteFunc(slices.Clone(lines), last), slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !last(l) }))
	if len(lines) < 18 {
		t.Fatalf("only %d commands were found: %q", len(lines), lines)
	}
	for i, line := range lines {
		words := shellWords(line)[1:]
		for j, w := range words {
			if value, ok := known[w]; ok {
				words[j] = value
			}
		}
		switch verb := words[0]; {
		case verb == "erase" && !slices.Contains(words, "--preview"):
			words = append(words, "--yes") // nobody is here to ask
		case verb == "grant" && words[1] == "list":
			p.must("grant", "add", "--to", "Clinic", "--purpose", "care", "--until", "+30d", "--token", p.file("my.token"), "--hub", "https://localhost:"+api)
		}
		if i > 0 && words[0] != "verify" {
			words = append(words, "--token", "my.token", "--hub", "https://localhost:"+api)
		}
		cmd := p.holdfast(words...)
		cmd.Dir = p.dir
		b, err := cmd.CombinedOutput()
		out := string(b)
		if err != nil {
			t.Fatalf("%s (%q): %v\n%s", line, words, err, out)
		}
		rows := strings.Split(out, "\n")
		switch {
		case i == 0:
			if !strings.Contains(out, "Here you are called 'Ada Lovelace'") {
				t.Errorf("the invitation does not say by which name the owner is known: %s", out)
			}
		case strings.HasPrefix(line, "holdfast grant list"):
			known["GRANT"] = strings.Fields(rows[1])[0]
		case strings.HasPrefix(line, "holdfast hold list"):
			known["HOLD"] = strings.Fields(rows[1])[0]
		case strings.HasPrefix(line, "holdfast ledger show"):
			known["KEY"] = regexp.MustCompile(`(?m)^key +(\S+)$`).FindStringSubmatch(out)[1]
		case strings.Contains(line, "--undo"):
			known["ERASURE"] = regexp.MustCompile(`erasure undo (\w+)`).FindStringSubmatch(out)[1]
		}
	}
}
