package receipt

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Report is everything that the hub answers about one person, for him to read and
// keep. Texts are shown as they are, whatever is in them.
type Report struct {
	Hub      string    `json:"hub"`
	Verifier string    `json:"verifier"`
	Person   string    `json:"person"`
	PersonID string    `json:"person_id"`
	Keeper   string    `json:"keeper"` // the organisation that runs the hub
	Made     time.Time `json:"made"`

	Notices     []ReportNotice     `json:"notices"`
	Recipients  []ReportUse        `json:"recipients"`
	Purposes    []ReportPurpose    `json:"purposes"`
	Holds       []ReportHold       `json:"holds"`
	Permissions []ReportPermission `json:"permissions"`
	Devices     []ReportDevice     `json:"devices"`
	Disclosures []ReportDisclosure `json:"disclosures"`
	More        bool               `json:"more"` // disclosures that are older than these
}

// ReportNotice is what the person is to know at once.
type ReportNotice struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// ReportUse is what somebody read for a purpose, or may read and never did.
type ReportUse struct {
	Who     string     `json:"who"`
	Purpose string     `json:"purpose"`
	Streams []string   `json:"streams"`
	Under   string     `json:"under"` // which grant or permission, and what became of it
	Reads   uint64     `json:"reads"`
	Rows    uint64     `json:"rows"`
	AtLeast bool       `json:"at_least,omitempty"` // the amount of some of them is not final
	First   *time.Time `json:"first,omitempty"`
	Last    *time.Time `json:"last,omitempty"`
	Duties  []string   `json:"duties,omitempty"`
}

// ReportPurpose is what data are used for.
type ReportPurpose struct {
	Name       string   `json:"name"`
	Text       string   `json:"text"`
	IRI        string   `json:"iri"`
	Basis      string   `json:"basis"`
	Controller string   `json:"controller"`
	Kept       string   `json:"kept"`
	Streams    []string `json:"streams"`
	Grants     []string `json:"grants,omitempty"`  // to whom, until when
	Stopped    []string `json:"stopped,omitempty"` // objections and restrictions
}

// ReportHold keeps data as they are, or keeps them from being used or collected.
type ReportHold struct {
	Does   string     `json:"does"` // in words
	On     string     `json:"on"`
	By     string     `json:"by"`
	Since  time.Time  `json:"since"`
	Lifts  *time.Time `json:"lifts,omitempty"`
	Reason string     `json:"reason,omitempty"`
}

// ReportPermission is what the hub's own people asked to read.
type ReportPermission struct {
	Asked   time.Time `json:"asked"`
	Purpose string    `json:"purpose"`
	Reason  string    `json:"reason"`
	On      string    `json:"on"`
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	State   string    `json:"state"` // what became of it, and by whose word
}

// ReportDevice is what there is of a device.
type ReportDevice struct {
	Name    string         `json:"name"`
	State   string         `json:"state"`
	Held    []string       `json:"held,omitempty"` // on what ground and when it is or was one's own
	Streams []ReportStream `json:"streams"`
}

// ReportStream is what there is of a stream.
type ReportStream struct {
	Name     string     `json:"name"`
	Category string     `json:"category"`
	Readings uint64     `json:"readings"`
	First    *time.Time `json:"first,omitempty"`
	Last     *time.Time `json:"last,omitempty"`
	Unit     string     `json:"unit,omitempty"`
	Kept     string     `json:"kept"`
	Until    *time.Time `json:"until,omitempty"` // when the latest of them are gone
}

// ReportDisclosure is one time that readings left.
type ReportDisclosure struct {
	Opened   time.Time `json:"opened"`
	Who      string    `json:"who"`
	Purpose  string    `json:"purpose"`
	Streams  []string  `json:"streams"`
	Reads    uint64    `json:"reads"`
	Rows     uint64    `json:"rows"`
	Complete bool      `json:"complete"`
	Why      string    `json:"why"`
}

//go:embed report.html
var reportText string

//go:embed report.css
var reportStyle string

// StylePolicy is the Content-Security-Policy under which a report shows as it
// should: its own style, and nothing else.
func StylePolicy() string {
	sum := sha256.Sum256([]byte(reportStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
}

// The signature is the last thing in the file, between these two: everything
// before it is signed.
const (
	signatureBegins = "<script type=\"text/plain\" id=\"holdfast-signature\">\n"
	signatureEnds   = "</script>\n</body>\n</html>\n"
	dataBegins      = "<script type=\"application/json\" id=\"holdfast-report\">"
)

// WriteReport returns a report as a page of HTML that needs nothing else, signed.
func WriteReport(r Report, by Signer) ([]byte, error) {
	r.Verifier = by.VerifierKey()
	data, err := json.Marshal(r) // < > & are escaped in it: it can't end its element
	if err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	page, err := template.New("report").Funcs(template.FuncMap{"when": showTime, "times": showTimes, "list": showList}).Parse(reportText)
	if err != nil {
		return nil, fmt.Errorf("read report's template: %w", err)
	}
	var out bytes.Buffer
	err = page.Execute(&out, struct {
		Report
		Style  template.CSS
		Policy string
	}{r, template.CSS(reportStyle), StylePolicy()})
	if err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	out.WriteString(dataBegins)
	out.Write(data)
	out.WriteString("</script>\n")
	signed, err := by.Sign(statement(reportHeader, out.Bytes()))
	if err != nil {
		return nil, fmt.Errorf("sign report: %w", err)
	}
	if bytes.Contains(signed, []byte("<")) { // the name of a hub
		return nil, holdfast.Errorf(holdfast.Internal, "the hub's name does not fit in a page")
	}
	out.WriteString(signatureBegins)
	out.Write(signed)
	out.WriteString(signatureEnds)
	return out.Bytes(), nil
}

func showTime(t any) string {
	switch t := t.(type) {
	case time.Time:
		return t.UTC().Format("2006-01-02 15:04 UTC")
	case *time.Time:
		if t != nil {
			return t.UTC().Format("2006-01-02 15:04 UTC")
		}
	}
	return "–"
}

func showTimes(n uint64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func showList(all []string) string {
	if len(all) == 0 {
		return "–"
	}
	return strings.Join(all, ", ")
}

// IsReport reports whether b looks like a report.
func IsReport(b []byte) bool {
	return bytes.HasPrefix(b, []byte("<!DOCTYPE html>")) && bytes.Contains(b, []byte(dataBegins))
}

// VerifyReport checks a report without a hub, as Verify does a receipt, and returns
// what it says.
func VerifyReport(file []byte, trusted string) (Report, error) {
	altered := holdfast.Errorf(holdfast.Invalid, "the report was altered: its end is not as it was signed")
	i := bytes.LastIndex(file, []byte(signatureBegins))
	if i < 0 {
		return Report{}, altered
	}
	content, rest := file[:i], string(file[i+len(signatureBegins):])
	signed, ok := strings.CutSuffix(rest, signatureEnds)
	j := bytes.LastIndex(content, []byte(dataBegins))
	if !ok || j < 0 {
		return Report{}, altered
	}
	var r Report
	data, ok := bytes.CutSuffix(content[j+len(dataBegins):], []byte("</script>\n"))
	if !ok || json.Unmarshal(data, &r) != nil {
		return Report{}, altered
	}
	hub, err := checkNote(signed, statement(reportHeader, content), r.Verifier, trusted, "report")
	if err != nil {
		return Report{}, err
	}
	if hub != r.Hub {
		return Report{}, holdfast.Errorf(holdfast.Invalid, "the report was signed by %s, not by its hub", hub)
	}
	return r, nil
}
