package mqtt

import (
	"crypto/tls"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast-iot/holdfast"
)

// script is what a client does and what it must see, for the numbered statements
// of MQTT 3.1.1 and 5 that it holds. It runs for the versions that have some.
type script struct {
	three, five string // numbers, as in "3.1.0-1 3.2.0-1"
	what        string
	play        func(s *stage)
}

// scripts are all of them; docs/mqtt-conformance.md names them TestConformance.
func scripts() []script { return append(scriptsAnywhere(), scriptsInBubble()...) }

func scriptsAnywhere() []script {
	return slices.Concat(scriptsOfStrings(), scriptsOfConnect(), scriptsOfPublish(), scriptsOfDelivery(), scriptsOfSubscriptions(), scriptsOfSubscribers(), scriptsOfTheEnd())
}

// scriptsInBubble let time pass, or look at what the server has done when it is still.
func scriptsInBubble() []script {
	return slices.Concat(scriptsOfSessions(), scriptsOfWills(), scriptsInTime(), scriptsOfWaiting())
}

// stage is a server on which a script is played.
type stage struct {
	t    *testing.T
	v    byte
	h    *hub
	dial func(holdfast.DeviceID) *client
	real bool // over TLS; else in a bubble, where time costs nothing
}

// TestConformance plays the scripts where a connection has a goroutine.
func TestConformance(t *testing.T) {
	for _, x := range scripts() {
		x.run(t, func(t *testing.T, v byte) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				x.play(&stage{t: t, v: v, h: h, dial: newPipes(t, h, Options{}).dial})
			})
		})
	}
}

// TestConformanceOverTLS plays those that don't wait for time to pass once more where
// the hub serves: over TLS, on connections that are polled.
func TestConformanceOverTLS(t *testing.T) {
	a := newAuthority(t)
	config := a.client(holdfast.DeviceID{1})
	for _, x := range scriptsAnywhere() {
		x.run(t, func(t *testing.T, v byte) {
			h := newHub()
			_, where := serving(t, a, h, Options{})
			x.play(&stage{t: t, v: v, h: h, real: true, dial: func(holdfast.DeviceID) *client {
				nc, err := tls.Dial("tcp", where, config)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { nc.Close() })
				return newClient(t, nc)
			}})
		})
	}
}

func (x script) run(t *testing.T, play func(*testing.T, byte)) {
	for v, numbers := range map[byte]string{v311: x.three, v5: x.five} {
		if numbers != "" {
			t.Run(fmt.Sprintf("v%d %s %s", v, numbers, x.what), func(t *testing.T) { play(t, v) })
		}
	}
}

// client is a client that is connected.
func (s *stage) client() *client { return s.as(hello{id: "a", clean: true}) }

func (s *stage) as(h hello) *client {
	s.t.Helper()
	c := s.dial(holdfast.DeviceID{1})
	h.version = s.v
	c.connect(h)
	return c
}

// again connects to a session that lives for an hour and says whether there was one.
func (s *stage) again(h hello) (c *client, present bool) {
	s.t.Helper()
	c = s.dial(holdfast.DeviceID{1})
	h.id, h.version, h.props = "a", s.v, append(h.props, propSessionExpiry, 0, 0, 14, 16)
	present, _ = c.connect(h)
	return c, present
}

// breaks sends raw on a connection, which must end with code and leave nothing.
func (s *stage) breaks(code reason, raw ...[]byte) {
	s.t.Helper()
	for _, raw := range raw {
		c := s.client()
		c.write(raw)
		c.expectEnd(code)
	}
}

// refuses sends CONNECT packets that are answered with the code of this version; 0:
// closed without an answer.
func (s *stage) refuses(three byte, five reason, raw ...[]byte) {
	s.t.Helper()
	if !s.real {
		synctest.Wait()
	}
	s.h.mu.Lock()
	before := len(s.h.sessions)
	s.h.mu.Unlock()
	for _, raw := range raw {
		c := s.dial(holdfast.DeviceID{1})
		c.version = s.v
		c.write(raw)
		code := three
		if s.v == v5 {
			code = byte(five)
		}
		if code != 0 {
			if p := c.next(); p.kind != typeConnack || p.body[0] != 0 || p.body[1] != code {
				s.t.Fatalf("%x: received %v, want CONNACK with 0x%02X", raw, p, code)
			}
		}
		c.expectClosed()
	}
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	if len(s.h.sessions) > before {
		s.t.Errorf("a session was opened")
	}
}

// hello is the CONNECT of h, changed by edit, which sees all behind the length.
func (s *stage) hello(h hello, edit func(b []byte) []byte) []byte {
	h.version = s.v
	return framed(typeConnect<<4, edit(h.bytes()[2:]))
}

// filters is a SUBSCRIBE or UNSUBSCRIBE; options has one byte for each filter, none
// for UNSUBSCRIBE.
func (s *stage) filters(id uint16, options []byte, filters ...string) []byte {
	h, b := byte(typeUnsubscribe<<4|2), []byte{byte(id >> 8), byte(id)}
	if s.v == v5 {
		b = append(b, 0)
	}
	for i, f := range filters {
		b = appendText(b, f)
		if options != nil {
			h, b = typeSubscribe<<4|2, append(b, options[i])
		}
	}
	return framed(h, b)
}

// only returns those of the versions where they have a meaning.
func (s *stage) only(v byte, raw ...[]byte) [][]byte {
	if s.v == v {
		return raw
	}
	return nil
}

// property is a PUBLISH with properties of MQTT 5.
func property(props ...byte) []byte {
	return pub{topic: "data/x", payload: "1", props: props}.bytes(v5)
}

// TestConformanceTable holds docs/mqtt-conformance.md to the standards' lists of
// statements and to the tests: none is missing, and the tests are there and run.
func TestConformanceTable(t *testing.T) {
	held := map[string]map[string]bool{"MQTT 3.1.1": {}, "MQTT 5": {}}
	for _, x := range scripts() {
		for _, n := range strings.Fields(x.three) {
			held["MQTT 3.1.1"][n] = true
		}
		for _, n := range strings.Fields(x.five) {
			held["MQTT 5"][n] = true
		}
	}
	text, err := os.ReadFile("../../docs/mqtt-conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	tests, rows, section := newTests(t), map[string][]string{}, ""
	var byTest, others int
	for line := range strings.Lines(string(text)) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(h)
		}
		cells := strings.Split(strings.TrimSpace(line), " | ")
		number := strings.TrimPrefix(cells[0], "| ")
		if len(cells) != 3 || held[section] == nil || number == "statement" {
			continue
		}
		rows[section] = append(rows[section], number)
		by := strings.TrimSuffix(cells[2], " |")
		names := quoted(by)
		for _, name := range names {
			tests.check(number, name)
			if name == "TestConformance" && !held[section][number] {
				t.Errorf("%s %s: no script of TestConformance holds it", section, number)
			}
		}
		if held[section][number] && !slices.Contains(names, "TestConformance") {
			t.Errorf("%s %s: a script of TestConformance holds it, and the table does not say so", section, number)
		}
		delete(held[section], number)
		switch word, _, _ := strings.Cut(by, ":"); {
		case word == "client", word == "not served", word == "deviates", word == "free":
			others++
		case len(names) == 0:
			t.Errorf("%s %s: neither a test nor a reason", section, number)
		default:
			byTest++
		}
	}
	for section, statements := range standards {
		if got, want := rows[section], statements(); !slices.Equal(got, want) {
			t.Errorf("%s: the table has\n%v\nthe standard has\n%v", section, got, want)
		}
		for number := range held[section] {
			t.Errorf("%s %s: a script holds it, but it is no statement", section, number)
		}
	}
	t.Logf("%d statements by tests, %d bind others, are not served or deviate", byTest, others)
}

// quoted returns what stands in backticks.
func quoted(s string) (names []string) {
	for i, part := range strings.Split(s, "`") {
		if i%2 == 1 {
			names = append(names, part)
		}
	}
	return names
}

// standards lists the statements' numbers, in the order of the appendix B of each:
// a section with how many it has.
var standards = map[string]func() []string{
	"MQTT 3.1.1": func() []string {
		return numbers(`1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3 3.3.4:1 3.3.5:2
			3.6.1:1 3.8.1:1 3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1 3.14.1:1 3.14.4:3 4.1.0:2 4.3.1:1 4.3.2:2 4.3.3:2
			4.4.0:1 4.5.0:2 4.6.0:6 4.7.1:3 4.7.2:1 4.7.3:4 4.8.0:2 6.0.0:4 7.0.0:2 7.1.1:1 7.1.2:1`)
	},
	"MQTT 5": func() []string {
		return numbers(`1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 3.2.2:22 3.3.1:13
			3.3.2:20 3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6
			3.11.2:2 3.11.3:2 3.12.4:1 3.14.0:1 3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2 4.2.0:1 4.3.1:1 4.3.2:5 4.3.3:13
			4.4.0:2 4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 4.12.0:7 4.12.1:2 4.13.1:1 4.13.2:1 6.0.0:4`)
	},
}

func numbers(sections string) (all []string) {
	for _, s := range strings.Fields(sections) {
		section, n, _ := strings.Cut(s, ":")
		var last int
		fmt.Sscan(n, &last)
		for i := range last {
			if number := fmt.Sprint(section, "-", i+1); number != "2.2.1-1" { // MQTT 5 begins that section with 2
				all = append(all, number)
			}
		}
	}
	return all
}

// tests knows the functions of the test files that the table may name.
type tests struct {
	t     *testing.T
	funcs map[string]map[string]*ast.FuncDecl // by folder and name
}

func newTests(t *testing.T) tests {
	t.Helper()
	all := tests{t, map[string]map[string]*ast.FuncDecl{}}
	for _, dir := range []string{"mqtt", "deviceapi", "ingest"} {
		all.funcs[dir] = map[string]*ast.FuncDecl{}
		files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no tests in %s: %v", dir, err)
		}
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if f, ok := d.(*ast.FuncDecl); ok {
					all.funcs[dir][f.Name.Name] = f
				}
			}
		}
	}
	return all
}

// check wants a test that exists, and that nothing it calls may skip.
func (a tests) check(number, name string) {
	dir, f := "mqtt", name
	if before, after, ok := strings.Cut(name, "."); ok {
		dir, f = before, after
	}
	if a.funcs[dir][f] == nil || !strings.HasPrefix(f, "Test") {
		a.t.Errorf("%s: the test %s does not exist", number, name)
		return
	}
	seen := map[string]bool{}
	var look func(f string)
	look = func(f string) {
		d := a.funcs[dir][f]
		if d == nil || seen[f] {
			return
		}
		seen[f] = true
		ast.Inspect(d, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.SelectorExpr:
				if strings.HasPrefix(x.Sel.Name, "Skip") {
					a.t.Errorf("%s: the test %s may skip, in %s", number, name, f)
				}
				look(x.Sel.Name)
			case *ast.Ident:
				look(x.Name)
			}
			return true
		})
	}
	look(f)
}
