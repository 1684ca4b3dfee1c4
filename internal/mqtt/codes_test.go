package mqtt

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// codesOf is what each packet of a server may say in MQTT 5: the tables of sections
// 3.2.2.2, 3.4.2.1, 3.5.2.1, 3.7.2.1, 3.9.3, 3.11.3 and 3.14.2.1.
var codesOf = map[byte][]reason{
	typeConnack:  {0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f},
	typePuback:   {0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
	typePubrec:   {0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
	typePubcomp:  {0, 0x92},
	typeSuback:   {0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2},
	typeUnsuback: {0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91},
	typeDisconnect: {0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
		0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2},
}

// check says what is wrong with a packet of the server, whatever it answers: the
// test's clients check all that they receive.
func (p packet) check(version byte) error {
	var codes []byte
	switch b := p.body; {
	case p.kind == typePingresp:
		if len(b) > 0 {
			return fmt.Errorf("%v has a body", p)
		}
	case p.kind == typeConnack && len(b) >= 2 && b[0] <= 1:
		if codes = b[1:2]; version != v5 && (b[1] > 5 || len(b) != 2) || b[1] != 0 && b[0] != 0 {
			return fmt.Errorf("%v is malformed", p)
		} else if version != v5 {
			codes = nil
		}
	case version == v5 && (p.kind == typeSuback || p.kind == typeUnsuback) && len(b) > 3 && b[2] == 0:
		codes = b[3:]
	case version == v5 && (p.kind == typePuback || p.kind == typePubrec || p.kind == typePubcomp) && len(b) >= 2:
		codes = b[2:min(len(b), 3)]
	case version == v5 && p.kind == typeDisconnect && len(b) > 0:
		codes = b[:1]
	case p.kind == typePublish:
		if _, ok := p.message(version); !ok {
			return fmt.Errorf("%v is malformed", p)
		}
	case version == v311 && p.kind == typeSuback && len(b) > 2:
		if slices.ContainsFunc(b[2:], func(c byte) bool { return c > 2 && c != 0x80 }) {
			return fmt.Errorf("%v has other codes than 0, 1, 2 and 0x80", p)
		}
	case version == v311 && len(b) == 2 && (p.kind == typePuback || p.kind == typePubrec || p.kind == typePubcomp || p.kind == typeUnsuback):
	default:
		return fmt.Errorf("%v is no packet of a server", p)
	}
	for _, c := range codes {
		if !slices.Contains(codesOf[p.kind], reason(c)) {
			return fmt.Errorf("%v has the code 0x%02X, which its kind has not", p, c)
		}
	}
	return nil
}

// TestCodesOfEachPacket: whatever is said, it is said in a packet that has the code.
func TestCodesOfEachPacket(t *testing.T) {
	all := []byte{typeConnack, typePuback, typePubrec, typePubcomp, typeSuback, typeUnsuback, typeDisconnect}
	want := func(where string, code reason, packets ...byte) {
		t.Helper()
		for _, p := range packets {
			if !slices.Contains(codesOf[p], code) {
				t.Errorf("%s says 0x%02X, which %s doesn't have", where, byte(code), packetNames[p])
			}
		}
	}
	want("an answer", success, all...)
	want("PUBREL of nothing", packetIDUnknown, typePubcomp)
	want("UNSUBSCRIBE", noSubscription, typeUnsuback)
	want("UNSUBSCRIBE", unspecified, typeUnsuback)
	for _, kind := range []holdfast.Kind{holdfast.Invalid, holdfast.Denied, holdfast.NotFound, holdfast.Conflict, holdfast.TooLarge, holdfast.Unavailable, holdfast.Internal} {
		publish, end := reasonsOf(holdfast.Errorf(kind, "x"))
		want("a failure", publish, typePuback, typePubrec)
		want("a failure", end, typeDisconnect)
		want("SUBSCRIBE", codeOfFilter(holdfast.Errorf(kind, "x")), typeSuback)
		want("a subscription", endOfStream(holdfast.Errorf(kind, "x")), typeDisconnect)
	}
	// Faults end a connection, before CONNACK or after it, by the file they stand in;
	// those of topics refuse publishes, too.
	packets := map[string][]byte{
		"connect.go": {typeConnack}, "admit.go": {typeConnack}, "registry.go": {typeConnack},
		"wire.go": {typeConnack, typeDisconnect}, "publish.go": {typeConnack, typeDisconnect},
		"topic.go": {typeConnack, typeDisconnect, typePuback, typePubrec},
	}
	codes := constants(t)
	n := 0
	for name, f := range sources(t) {
		ast.Inspect(f, func(node ast.Node) bool {
			x, ok := node.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if id, ok := x.Type.(*ast.Ident); !ok || id.Name != "fault" {
				return true
			}
			id, ok := x.Elts[0].(*ast.Ident)
			if code, known := codes[id.Name]; ok && known {
				to := packets[name]
				if to == nil {
					to = []byte{typeDisconnect}
				}
				n++
				want(name, code, to...)
			}
			return true
		})
	}
	if n < 60 {
		t.Errorf("only %d faults were found", n)
	}
}

// sources are the package's files by name.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			if files[name], err = parser.ParseFile(token.NewFileSet(), name, nil, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	return files
}

// constants are the reason codes by their names here.
func constants(t *testing.T) map[string]reason {
	t.Helper()
	codes := map[string]reason{}
	ast.Inspect(sources(t)["reason.go"], func(node ast.Node) bool {
		if v, ok := node.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok {
				var n int
				fmt.Sscanf(lit.Value, "0x%X", &n)
				codes[v.Names[0].Name] = reason(n)
			}
		}
		return true
	})
	return codes
}
