package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func TestDeviceGetsItsCertificateForItsCode(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	c := d.cert
	if c.Subject.String() != "CN="+d.id.String() || len(c.URIs) != 1 || c.URIs[0].String() != "urn:holdfast:device:"+d.id.String() {
		t.Errorf("certificate for %s, %v", c.Subject, c.URIs)
	}
	if life := c.NotAfter.Sub(h.time()); life > deviceLife || life < deviceLife-time.Second {
		t.Errorf("it lives %s", life)
	}
	if c.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || c.IsCA {
		t.Errorf("usage %v %v, CA %v", c.KeyUsage, c.ExtKeyUsage, c.IsCA)
	}
	want := Peer{Device: d.id, Assignment: d.assignment, Fingerprint: fingerprintOf(c), NotAfter: c.NotAfter}
	if diff := cmp.Diff(want, d.mustPeer()); diff != "" {
		t.Error(diff)
	}
	h.restart()
	if diff := cmp.Diff(want, d.mustPeer()); diff != "" {
		t.Error("after a restart:", diff)
	}
	kinds, data := d.record()
	if diff := cmp.Diff([]string{"enrolment code made", "certificate issued"}, kinds); diff != "" {
		t.Error(diff)
	}
	var issued CertificateIssued
	if err := json.Unmarshal(data[1], &issued); err != nil || issued.Fingerprint != fmt.Sprintf("%x", fingerprintOf(c)) || issued.Renewal {
		t.Errorf("the ledger says %s, %v", data[1], err)
	}
	if _, err := h.ledger.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOnlyTheKeyIsTakenFromARequest(t *testing.T) {
	h := build(t)
	d, victim := h.device(), h.device()
	uri, _ := url.Parse("urn:holdfast:device:" + victim.id.String())
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: victim.id.String(), Organization: []string{"planted"}},
		URIs:        []*url.URL{uri},
		DNSNames:    []string{"hub.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtraExtensions: []pkix.Extension{
			{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}, // CA: true
		},
	}, d.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Enrol(t.Context(), d.id.String(), d.code.SecretText(), der, "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	if c.IsCA || len(c.DNSNames)+len(c.IPAddresses) > 0 || len(c.URIs) != 1 || strings.Contains(c.Subject.String()+c.URIs[0].String(), victim.id.String()) {
		t.Errorf("certificate for %s, %v, %v", c.Subject, c.URIs, c.DNSNames)
	}
}

func TestWhatKeysAreAccepted(t *testing.T) {
	h := build(t)
	curve := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modulus := func(bits int) crypto.Signer {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for _, key := range map[string]crypto.Signer{
		"P-256": curve(elliptic.P256()), "P-384": curve(elliptic.P384()), "Ed25519": edwards, "RSA 2048": modulus(2048),
	} {
		d := h.device()
		d.key = key
		d.mustEnrol()
		d.mustPeer()
	}
	for name, key := range map[string]crypto.Signer{"P-521": curve(elliptic.P521()), "P-224": curve(elliptic.P224()), "RSA 1536": modulus(1536)} {
		_, err := h.device().enrol(key)
		wantKind(t, name, err, holdfast.Invalid)
	}
	d := h.device()
	for name, der := range map[string][]byte{
		"nothing":       nil,
		"not a request": []byte("0\x03\x02\x01\x01"),
		"signature":     flip(csrOf(t, newKey(t), ""), -3),
	} {
		_, err := h.Enrol(t.Context(), d.id.String(), d.code.SecretText(), der, "192.0.2.1")
		wantKind(t, name, err, holdfast.Invalid)
	}
	d.mustEnrol() // a bad request does not use the code up
}

func flip(b []byte, at int) []byte {
	b[len(b)+at] ^= 1
	return b
}

func TestLostAnswerDoesNotStrandADevice(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	first := d.cert
	d.mustEnrol()
	if fingerprintOf(first) == fingerprintOf(d.cert) {
		t.Error("the same certificate: nothing was tried")
	}
	d.mustPeer()
	d.cert = first
	d.mustPeer() // same key: neither ends the other

	_, err := d.enrol(newKey(t))
	wantKind(t, "another key", err, holdfast.Denied)
	h.advance(codeLife + time.Second)
	_, err = d.enrol(d.key)
	wantKind(t, "after the code's end", err, holdfast.Denied)
}

func TestRefusalsDoNotTellWhatWasWrong(t *testing.T) {
	h := build(t)
	used, expired, replaced, revoked := h.enrolled(), h.device(), h.device(), h.enrolled()
	old := replaced.code
	replaced.newCode()
	if err := h.Revoke(t.Context(), revoked.id, "stolen"); err != nil {
		t.Fatal(err)
	}
	short, _, err := h.MakeCode(t.Context(), expired.id, expired.assignment, CodeOptions{Life: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	h.advance(2 * time.Minute)
	tries := map[string][2]string{
		"no device":         {"", used.code.SecretText()},
		"not an id":         {"robert", used.code.SecretText()},
		"unknown device":    {holdfast.NewID[holdfast.DeviceID]().String(), used.code.SecretText()},
		"no secret":         {replaced.id.String(), ""},
		"wrong secret":      {replaced.id.String(), used.code.SecretText()},
		"another's secret":  {used.id.String(), replaced.code.SecretText()},
		"used, another key": {used.id.String(), used.code.SecretText()},
		"expired":           {expired.id.String(), short.SecretText()},
		"replaced":          {replaced.id.String(), old.SecretText()},
		"revoked":           {revoked.id.String(), revoked.code.SecretText()},
	}
	n := 0
	for name, try := range tries {
		n++
		_, err := h.Enrol(t.Context(), try[0], try[1], csrOf(t, newKey(t), ""), fmt.Sprintf("192.0.2.%d", n))
		if err == nil || err.Error() != errRefused().Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, try := range tries {
		if try[1] != "" && strings.Contains(h.log.String(), try[1]) {
			t.Error("the log holds a secret")
		}
	}
}

func TestFailedEnrolmentsAreLimited(t *testing.T) {
	h := build(t)
	d := h.device()
	try := func(secret, from string) error {
		_, err := h.Enrol(t.Context(), d.id.String(), secret, csrOf(t, d.key, ""), from)
		return err
	}
	for range 10 {
		wantKind(t, "wrong", try("wrong", "192.0.2.9"), holdfast.Denied)
	}
	wantKind(t, "that address, another device", func() error {
		_, err := h.Enrol(t.Context(), h.device().id.String(), "wrong", csrOf(t, d.key, ""), "192.0.2.9")
		return err
	}(), holdfast.Unavailable)
	wantKind(t, "that device from elsewhere", try("wrong", "198.51.100.1"), holdfast.Unavailable)
	for _, from := range []string{"192.0.2.9", "198.51.100.1"} {
		if err := try(d.code.SecretText(), from); err != nil {
			t.Errorf("who is right is locked out by who tried before: %v", err)
		}
	}
	h.advance(2 * time.Minute)
	wantKind(t, "two minutes later", try("wrong", "192.0.2.9"), holdfast.Denied)
}

func TestCertificatesOfADeviceAreLimited(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	for range 9 {
		d.mustEnrol()
	}
	_, err := d.enrol(d.key)
	wantKind(t, "the eleventh", err, holdfast.Unavailable)
	h.advance(time.Hour)
	d.mustEnrol()
}

func TestOneKeyIsOneDevices(t *testing.T) {
	h := build(t)
	a, b := h.enrolled(), h.device()
	_, err := b.enrol(a.key)
	wantKind(t, "another device's key", err, holdfast.Conflict)
	b.mustEnrol() // with its own, by the same code
	b.mustPeer()
}

func TestUnclaimedDeviceIsKnownButNobodys(t *testing.T) {
	h := build(t)
	d := h.device()
	d.id, d.assignment = holdfast.NewID[holdfast.DeviceID](), holdfast.AssignmentID{}
	d.newCode()
	d.mustEnrol()
	if p := d.mustPeer(); p.Device != d.id || !p.Assignment.IsZero() {
		t.Errorf("peer %s of %s", p.Device, p.Assignment)
	}
	claimed := holdfast.NewID[holdfast.AssignmentID]()
	if err := h.Bind(t.Context(), d.id, claimed); err != nil {
		t.Fatal(err)
	}
	if p := d.mustPeer(); p.Assignment != claimed {
		t.Errorf("after the claim it is %s's", p.Assignment)
	}
}

func TestRenewalEndsTheOldKeyWhenTheNewOneIsUsed(t *testing.T) {
	h := build(t)
	old := h.enrolled()
	old.mustPeer()
	h.advance(20 * 24 * time.Hour)
	next := old.renewed()
	old.mustPeer() // the answer may still be under way
	next.mustPeer()
	_, err := old.peer()
	wantKind(t, "superseded", err, holdfast.Denied)
	if !strings.Contains(err.Error(), "superseded") {
		t.Error(err)
	}
	_, err = h.Renew(t.Context(), old.state(), csrOf(t, newKey(t), ""))
	wantKind(t, "renewal of a superseded one", err, holdfast.Denied)
	h.restart()
	_, err = old.peer()
	wantKind(t, "superseded, after a restart", err, holdfast.Denied)
	next.mustPeer()

	cs, err := h.Certificates(t.Context(), old.id)
	if err != nil || len(cs) != 2 || cs[0].State != "superseded" || cs[1].State != "used" {
		t.Errorf("listed %v, %v", cs, err)
	}
	if kinds, _ := old.record(); !slices.Equal(kinds, []string{"enrolment code made", "certificate issued", "certificate issued"}) {
		t.Errorf("on record: %v", kinds)
	}
}

func TestRenewalWithTheSameKeyKeepsBoth(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	first := d.cert
	c, err := h.Renew(t.Context(), d.state(), csrOf(t, d.key, d.id.String()))
	if err != nil {
		t.Fatal(err)
	}
	d.cert = c
	d.mustPeer()
	d.cert = first
	d.mustPeer()
}

func TestRenewalComparesSubjectsAsParsed(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	_, err := h.Renew(t.Context(), d.state(), csrOf(t, newKey(t), "another"))
	wantKind(t, "another subject", err, holdfast.Invalid)
	// The name as a UTF8String, where our certificate has a PrintableString.
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: utf8Subject(t, d.id.String())}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Renew(t.Context(), d.state(), der); err != nil {
		t.Errorf("the same name in another encoding: %v", err)
	}
}

func TestCodeEndsWithTheFirstRenewal(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	d.renewed()
	_, err := d.enrol(d.key)
	wantKind(t, "the code", err, holdfast.Denied)
}

func TestExpiredDeviceRenewsWithinGrace(t *testing.T) {
	h := build(t)
	d, late := h.enrolled(), h.enrolled()
	d.mustPeer()
	h.advance(deviceLife + 100*24*time.Hour)
	_, err := d.peer()
	wantKind(t, "expired", err, holdfast.Denied)
	if !strings.Contains(err.Error(), "expired") {
		t.Error(err)
	}
	next := d.renewed()
	next.mustPeer()
	_, err = h.Renew(t.Context(), d.state(), csrOf(t, newKey(t), ""))
	wantKind(t, "expired and superseded", err, holdfast.Denied)

	h.advance(81 * 24 * time.Hour)
	_, err = h.Renew(t.Context(), late.state(), csrOf(t, newKey(t), ""))
	wantKind(t, "181 days after the end", err, holdfast.Denied)
	late.newCode()
	late.mustEnrol()
	late.mustPeer()
	if cs, err := h.Certificates(t.Context(), late.id); err != nil || len(cs) != 1 {
		t.Errorf("certificates from before the grace are still there: %v, %v", cs, err)
	}
}

func TestNewCodeReplacesALostDevicesKey(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	d.mustPeer()
	again := *d
	again.newCode()
	again.key = newKey(t)
	again.mustEnrol()
	d.mustPeer()
	again.mustPeer()
	_, err := d.peer()
	wantKind(t, "the lost key", err, holdfast.Denied)
}

func TestLedgerFailureIssuesNothing(t *testing.T) {
	h := build(t)
	d := h.device()
	d.id, d.assignment = holdfast.NewID[holdfast.DeviceID](), holdfast.NewID[holdfast.AssignmentID]() // whose key was never made
	if h.vault.HasOwner(vault.OfAssignment(d.assignment)) {
		t.Fatal("it has a key")
	}
	if _, _, err := h.MakeCode(t.Context(), d.id, d.assignment, CodeOptions{}); err == nil {
		t.Fatal("a code without an entry in the ledger")
	}
	if _, err := h.Enrol(t.Context(), d.id.String(), d.code.SecretText(), csrOf(t, d.key, ""), "192.0.2.1"); err == nil {
		t.Error("a certificate for a code that was never made")
	}
}
