package receipt

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/holdfast-iot/holdfast"
)

func full() Report {
	return Report{
		Hub: "hub.example/log", Person: "Ada " + hostile, PersonID: "pada", Keeper: "Acme " + hostile, Made: noon,
		Notices:     []ReportNotice{{Time: noon, Text: "asked " + hostile}},
		Recipients:  []ReportUse{{Who: hostile, Purpose: hostile, Streams: []string{hostile}, Under: "grant", Reads: 1, Rows: 2, AtLeast: true, First: &noon, Last: &noon, Duties: []string{hostile}}, {Who: "never"}},
		Purposes:    []ReportPurpose{{Name: hostile, Text: hostile, Basis: "consent", Controller: "Acme", Kept: "30 days", Streams: []string{hostile}, Grants: []string{hostile, "another"}, Stopped: []string{hostile}}},
		Holds:       []ReportHold{{Does: "Restricted", On: hostile, By: "you", Since: noon, Lifts: &noon, Reason: hostile}, {Does: "Kept by law", Since: noon}},
		Permissions: []ReportPermission{{Asked: noon, Purpose: hostile, Reason: hostile, On: hostile, From: noon, Until: noon, State: "approved, decided by you"}},
		Devices:     []ReportDevice{{Name: hostile, State: "active", Held: []string{hostile}, Streams: []ReportStream{{Name: "pulse", Category: hostile, Unit: hostile, Readings: 3, First: &noon, Kept: "30 days", Until: &noon}}}, {Name: "empty"}},
		Disclosures: []ReportDisclosure{{Opened: noon, Who: hostile, Purpose: "study", Streams: []string{hostile}, Reads: 1, Rows: 2, Why: hostile}},
		More:        true,
	}
}

func TestReportsVerifyOffline(t *testing.T) {
	h, other := newHub(t, "hub.example/log"), newHub(t, "hub.example/log")
	want := full()
	file, err := WriteReport(want, h)
	if err != nil {
		t.Fatal(err)
	}
	want.Verifier = h.public
	if !IsReport(file) || IsReceipt(file) {
		t.Error("a report does not look like one")
	}
	for _, key := range []string{"", h.public} {
		got, err := VerifyReport(file, key)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := VerifyReport(file, other.public); holdfast.KindOf(err) != holdfast.Invalid {
		t.Error("another hub's key:", err)
	}
	for i := 0; i < len(file); i += 7 {
		changed := slices.Clone(file)
		changed[i] ^= 1
		if _, err := VerifyReport(changed, h.public); err == nil {
			t.Fatalf("byte %d can change", i)
		}
	}
	for what, changed := range map[string][]byte{
		"more at the end":   append(slices.Clone(file), "<p>more"...),
		"cut":               file[:len(file)-1],
		"two signatures":    bytes.Replace(file, []byte(signatureBegins), []byte(signatureBegins+signatureEnds+signatureBegins), 1),
		"nothing":           nil,
		"of another's name": must(WriteReport(full(), newHub(t, "evil.example"))),
	} {
		if _, err := VerifyReport(changed, ""); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestReportIsForPeople: what a screen reader, a printer and a browser without a
// network need is there, and no name can be anything but text.
func TestReportIsForPeople(t *testing.T) {
	file, err := WriteReport(full(), newHub(t, "hub.example/log"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := html.Parse(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	count, ids, hostileTexts := map[string]int{}, map[string]bool{}, 0
	var labels, links []string
	level := 0
	var walk func(n *html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.TextNode && strings.Contains(n.Data, hostile) {
			hostileTexts++
		}
		if n.Type == html.ElementNode {
			count[n.Data]++
			for _, a := range n.Attr {
				switch {
				case a.Key == "id" && ids[a.Val]:
					t.Errorf("the id %s stands twice", a.Val)
				case a.Key == "id":
					ids[a.Val] = true
				case a.Key == "aria-labelledby":
					labels = append(labels, a.Val)
				case a.Key == "href":
					links = append(links, a.Val)
				case n.Data == "meta" && a.Key == "content" && strings.Contains(a.Val, "-src") && a.Val != StylePolicy():
					t.Error("another policy:", a.Val)
				case a.Key == "src", strings.HasPrefix(a.Key, "on"), a.Key == "style":
					t.Errorf("%s has %s", n.Data, a.Key)
				}
			}
			checkElement(t, n)
			if strings.HasPrefix(n.Data, "h") && len(n.Data) == 2 && n.Data[1] >= '1' && n.Data[1] <= '6' {
				if l := int(n.Data[1] - '0'); l > level+1 {
					t.Errorf("a heading of level %d follows one of %d", l, level)
				} else {
					level = l
				}
			}
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(doc)
	for _, one := range []string{"main", "h1", "title", "nav", "header", "footer"} {
		if count[one] != 1 {
			t.Errorf("%d %s", count[one], one)
		}
	}
	if count["script"] != 2 || count["table"] != 6 || count["caption"] != 6 || hostileTexts < 22 {
		t.Errorf("%v, %d hostile texts", count, hostileTexts)
	}
	for _, none := range []string{"img", "link", "iframe", "form", "object", "svg"} {
		if count[none] != 0 {
			t.Errorf("there is a %s", none)
		}
	}
	for _, l := range labels {
		if !ids[l] {
			t.Errorf("nothing is called %s", l)
		}
	}
	for _, l := range links {
		if !ids[strings.TrimPrefix(l, "#")] || !strings.HasPrefix(l, "#") {
			t.Errorf("a link leads to %s", l)
		}
	}
	if !bytes.Contains(file, []byte(`<html lang="en">`)) || !bytes.Contains(file, []byte("<style>"+reportStyle+"</style>")) {
		t.Error("the language is missing, or the style is not the one that the policy allows")
	}
}

// checkElement looks at what must hold of an element by itself.
func checkElement(t *testing.T, n *html.Node) {
	t.Helper()
	attr := map[string]string{}
	for _, a := range n.Attr {
		attr[a.Key] = a.Val
	}
	switch {
	case n.Data == "th" && attr["scope"] == "":
		t.Error("a header without a scope")
	case n.Data == "section" && attr["aria-labelledby"] == "":
		t.Error("a section without a name")
	case n.Data == "script" && attr["type"] != "application/json" && attr["type"] != "text/plain":
		t.Error("a script that runs")
	case n.Data == "div" && attr["class"] == "wide" && (attr["tabindex"] != "0" || attr["aria-label"] == ""):
		t.Error("a scrolled table that a keyboard can't reach")
	}
}

func TestEmptyReport(t *testing.T) {
	h := newHub(t, "hub.example/log")
	file, err := WriteReport(Report{Hub: "hub.example/log", Person: "Ada", Made: time.Unix(0, 0)}, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, none := range []string{"id=\"notices\"", "id=\"holds\"", "id=\"permissions\"", "#holds", "#permissions"} {
		if bytes.Contains(file, []byte(none)) {
			t.Errorf("it has %s without anything in it", none)
		}
	}
	for _, words := range []string{"Nobody has read your data", "used for nothing", "no device of yours", "Nothing has left"} {
		if !bytes.Contains(file, []byte(words)) {
			t.Errorf("it does not say %q", words)
		}
	}
	if _, err := VerifyReport(file, h.public); err != nil {
		t.Error(err)
	}
}
