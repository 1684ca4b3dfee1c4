package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value string `asn1:"utf8"`
}

type attributeSET []attribute // encoding/asn1 goes by the name

func utf8Subject(t *testing.T, commonName string) []byte {
	t.Helper()
	der, err := asn1.Marshal([]attributeSET{{{asn1.ObjectIdentifier{2, 5, 4, 3}, commonName}}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestStrangersAreNobody(t *testing.T) {
	h, other := build(t), build(t)
	ours, theirs := h.enrolled(), other.enrolled()
	refused := func(what string, cs tls.ConnectionState) {
		t.Helper()
		_, err := h.Peer(t.Context(), cs)
		wantKind(t, what, err, holdfast.Denied)
	}
	refused("no certificate", tls.ConnectionState{Version: tls.VersionTLS13})
	refused("another hub's device", theirs.state())
	refused("the authority itself", stateOf(h.CA()))

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	fake, err := selfSign(key, h.time())
	if err != nil {
		t.Fatal(err)
	}
	forger := &authority{root: fake, key: key}
	forged, err := forger.client(ours.key.Public(), deviceURN, ours.id.String(), h.time(), deviceLife)
	if err != nil {
		t.Fatal(err)
	}
	refused("signed by another key", stateOf(forged))

	server, err := h.ServerCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	refused("our own server's certificate", stateOf(server.Leaf))

	der, _, _, err := h.SignCredential(t.Context(), holdfast.NewID[holdfast.CredentialID](), csrOf(t, newKey(t), ""), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	person, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	refused("a person's certificate", stateOf(person))

	for name, uri := range map[string]string{"a zero id": strings.Repeat("a", 26), "no id": "", "a long id": ours.id.String() + "a"} {
		c, err := h.authority.client(newKey(t).Public(), deviceURN, uri, h.time(), deviceLife)
		if err != nil {
			t.Fatal(err)
		}
		refused(name, stateOf(c))
	}
	unknown, err := h.authority.client(newKey(t).Public(), deviceURN, holdfast.NewID[holdfast.DeviceID]().String(), h.time(), deviceLife)
	if err != nil {
		t.Fatal(err)
	}
	refused("a device without a row", stateOf(unknown))
	ours.mustPeer()
}

func TestPeerNotesTLS12(t *testing.T) {
	d := build(t).enrolled()
	cs := d.state()
	cs.Version = tls.VersionTLS12
	if p, err := d.h.Peer(t.Context(), cs); err != nil || !p.TLS12 {
		t.Errorf("%v, %v", p.TLS12, err)
	}
	if d.mustPeer().TLS12 {
		t.Error("TLS 1.3 was taken for 1.2")
	}
}

// An ECDSA signature (r, s) has the valid twin (r, n-s), which anybody can make:
// it must not give a revoked certificate a second life.
func TestRevokedCertificateWithATwinSignatureIsRefused(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	d.mustPeer()
	var c struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(d.cert.Raw, &c); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(c.Signature.Bytes, &sig); err != nil {
		t.Fatal(err)
	}
	sig.S.Sub(elliptic.P256().Params().N, sig.S)
	var err error
	if c.Signature.Bytes, err = asn1.Marshal(sig); err != nil {
		t.Fatal(err)
	}
	c.Signature.BitLength = 8 * len(c.Signature.Bytes)
	der, err := asn1.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	twin := *d
	if twin.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if string(twin.cert.Raw) == string(d.cert.Raw) || twin.mustPeer() != d.mustPeer() {
		t.Fatal("the twin is not one")
	}
	if err := h.Revoke(t.Context(), d.id, "stolen"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := twin.peer()
		wantKind(t, "the twin", err, holdfast.Denied)
		_, err = h.Renew(t.Context(), twin.state(), csrOf(t, newKey(t), ""))
		wantKind(t, "the twin's renewal", err, holdfast.Denied)
		h.restart()
	}
}

func TestClockSetBackLocksNoDeviceOut(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	h.advance(-400 * 24 * time.Hour) // before the authority was made
	d.mustPeer()
	d.renewed().mustPeer()
	h.enrolled().mustPeer()
}

// forget takes rows out of the catalog, as if it were an older one.
func (h *house) forget(query string, args ...any) {
	h.t.Helper()
	err := h.db.Write(h.t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(h.t.Context(), query, args...)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.restart()
}

func TestCertificatesIssuedAfterTheRestoredBackupAreAdopted(t *testing.T) {
	h := build(t)
	old := h.enrolled()
	old.mustPeer()
	h.advance(20 * 24 * time.Hour)
	next := old.renewed()
	next.mustPeer()
	f := fingerprintOf(next.cert)
	h.forget(`DELETE FROM device_certificate WHERE fingerprint = $1`, f[:])
	h.forget(`UPDATE device_certificate SET state = $1 WHERE device = $2`, stateUsed, old.id)
	if p := next.mustPeer(); p.Assignment != old.assignment {
		t.Errorf("adopted for %s", p.Assignment)
	}
	_, err := old.peer()
	wantKind(t, "what it had superseded", err, holdfast.Denied)
	if !strings.Contains(h.log.String(), "adopted") {
		t.Error("the log says nothing of it")
	}
}

func TestNothingOlderThanARevocationIsAdopted(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	d.mustPeer()
	if err := h.Revoke(t.Context(), d.id, "stolen"); err != nil {
		t.Fatal(err)
	}
	h.forget(`DELETE FROM device_certificate WHERE device = $1`, d.id)
	_, err := d.peer()
	wantKind(t, "from before the revocation", err, holdfast.Denied)
}

func TestNothingOlderThanAKnownCertificateIsAdopted(t *testing.T) {
	h := build(t)
	old := h.enrolled()
	old.mustPeer()
	h.advance(20 * 24 * time.Hour)
	old.renewed().mustPeer()
	f := fingerprintOf(old.cert)
	h.forget(`DELETE FROM device_certificate WHERE fingerprint = $1`, f[:])
	_, err := old.peer()
	wantKind(t, "older than a known one", err, holdfast.Denied)
}

func TestEachHubHasOneAuthorityOfItsOwn(t *testing.T) {
	h, other := build(t), build(t)
	if h.CA().Subject.String() == other.CA().Subject.String() || h.CAPin() == other.CAPin() {
		t.Error("two hubs' authorities have one name or key")
	}
	if c := h.CA(); !c.IsCA || !c.MaxPathLenZero || c.NotAfter.Sub(h.time()) > rootLife {
		t.Errorf("root %s until %s", c.Subject, c.NotAfter)
	}
	_, err := Create(t.Context(), h.deps(), testHosts, h.options())
	wantKind(t, "a second authority", err, holdfast.Conflict)
	scalar, err := h.authority.key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	h.mustNotFind(string(scalar), "hub.example\"")
}

func TestHubWithoutAuthoritySaysSo(t *testing.T) {
	h := build(t)
	h.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`DELETE FROM hub_authority`)
		return err
	})
	_, err := Open(t.Context(), h.deps(), h.options())
	wantKind(t, "open", err, holdfast.NotFound)
	for _, hosts := range [][]string{nil, {""}, {"hub example"}, {"hüb"}, {"fe80::1%eth0"}, {"*.example"}} {
		_, err := Create(t.Context(), h.deps(), hosts, h.options())
		wantKind(t, strings.Join(hosts, ","), err, holdfast.Invalid)
	}
}
