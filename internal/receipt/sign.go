package receipt

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
)

// Signer is the hub's ledger: it signs a text that ends in a newline.
type Signer interface {
	Sign(text string) ([]byte, error)
	VerifierKey() string
}

// The first lines of what is signed.
const (
	receiptHeader = "holdfast receipt 1"
	reportHeader  = "holdfast report 1"
)

const (
	signatureTerm = "hf:signature"
	verifierTerm  = "hf:verifier"
)

// statement is the text that a signature is over.
func statement(header string, content []byte) string {
	sum := sha256.Sum256(content)
	return header + "\nsha256 " + hex.EncodeToString(sum[:]) + "\n"
}

// encode writes a document in the one form that is signed: keys in byte order, two
// spaces, a newline at the end.
func encode(doc object) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(doc); err != nil {
		return nil, fmt.Errorf("write document: %w", err)
	}
	return out.Bytes(), nil
}

// Sign returns a document as a file, with the hub's signature in it.
func Sign(doc object, by Signer) ([]byte, error) {
	doc[verifierTerm] = by.VerifierKey()
	delete(doc, signatureTerm)
	content, err := encode(doc)
	if err != nil {
		return nil, err
	}
	signed, err := by.Sign(statement(receiptHeader, content))
	if err != nil {
		return nil, fmt.Errorf("sign receipt: %w", err)
	}
	doc[signatureTerm] = string(signed)
	return encode(doc)
}

// IsReceipt reports whether b looks like a receipt.
func IsReceipt(b []byte) bool {
	return bytes.HasPrefix(b, []byte("{")) && bytes.Contains(b, []byte(`"dpv:ConsentReceipt"`))
}

// Checked is a receipt that verified.
type Checked struct {
	Receipt   string `json:"receipt"`
	Hub       string `json:"hub"`
	Verifier  string `json:"verifier"`
	Created   string `json:"created"`
	State     string `json:"state"`
	Purpose   string `json:"purpose"`
	Recipient string `json:"recipient"`
	Until     string `json:"until"`
}

// Verify checks a receipt without a hub: every byte of it is the hub's. trusted is
// the hub's verifier key as the reader got it elsewhere; without it the receipt is
// only shown to agree with itself.
func Verify(file []byte, trusted string) (Checked, error) {
	var doc object
	d := json.NewDecoder(bytes.NewReader(file))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return Checked{}, holdfast.Errorf(holdfast.Invalid, "not a receipt: it is no JSON")
	}
	signed, _ := doc[signatureTerm].(string)
	key, _ := doc[verifierTerm].(string)
	// What reads as the same could differ in its bytes (a key given twice, spaces):
	// there is one form, and it is the signed one.
	again, err := encode(doc)
	if err != nil || signed == "" || !bytes.Equal(again, file) {
		return Checked{}, holdfast.Errorf(holdfast.Invalid, "the receipt was altered: it is not in the form in which it was signed")
	}
	delete(doc, signatureTerm)
	content, err := encode(doc)
	if err != nil {
		return Checked{}, holdfast.Errorf(holdfast.Invalid, "not a receipt")
	}
	hub, err := checkNote(signed, statement(receiptHeader, content), key, trusted, "receipt")
	if err != nil {
		return Checked{}, err
	}
	return checked(doc, hub, key)
}

// checkNote returns who signed a statement.
func checkNote(signed, said, key, trusted, what string) (string, error) {
	if trusted == "" {
		trusted = key
	}
	v, err := note.NewVerifier(trusted)
	if err != nil {
		return "", holdfast.Errorf(holdfast.Invalid, "not a verifier key")
	}
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		return "", holdfast.Errorf(holdfast.Invalid, "the %s's signature does not verify: it was altered, or is another hub's", what)
	}
	// Base64 has several texts for the same bytes: there is one that counts.
	sig := n.Sigs[0]
	_, err = base64.StdEncoding.Strict().DecodeString(sig.Base64)
	if n.Text != said || err != nil || signed != said+"\n— "+sig.Name+" "+sig.Base64+"\n" {
		return "", holdfast.Errorf(holdfast.Invalid, "the %s was altered: its signature is over something else", what)
	}
	if key != trusted {
		return "", holdfast.Errorf(holdfast.Invalid, "the %s names another key than the one that signed it", what)
	}
	return v.Name(), nil
}

// checked takes the words out of a verified receipt. A hub's name is in its ids: it
// can't sign in another's.
func checked(doc object, hub, key string) (Checked, error) {
	c := Checked{Hub: hub, Verifier: key}
	c.Receipt, _ = doc["@id"].(string)
	c.Created, _ = doc["dct:created"].(string)
	id, _ := doc["dct:identifier"].(string)
	_, c.State, _ = strings.Cut(id, "/")
	if doc["@type"] != "dpv:ConsentReceipt" || !strings.HasPrefix(c.Receipt, hubIRI(hub)+"receipts/") {
		return c, holdfast.Errorf(holdfast.Invalid, "the receipt was signed by %s, not by its hub", hub)
	}
	record, _ := doc["dpv:hasRecordOfActivity"].(object)
	processes, _ := record["dpv:hasProcess"].([]any)
	if len(processes) != 1 {
		return c, holdfast.Errorf(holdfast.Invalid, "not a receipt")
	}
	process, _ := processes[0].(object)
	purpose, _ := process["dpv:hasPurpose"].(object)
	c.Purpose, _ = purpose["skos:prefLabel"].(string)
	duration, _ := process["dpv:hasDuration"].(object)
	c.Until, _ = duration["rdf:value"].(string)
	c.Recipient, _ = process["dpv:hasRecipient"].(string)
	entities, _ := record["dpv:hasEntity"].([]any)
	for _, e := range entities {
		if e, _ := e.(object); e["@id"] == c.Recipient {
			if name, ok := e["dpv:hasName"].(string); ok {
				c.Recipient = name
			}
		}
	}
	return c, nil
}
