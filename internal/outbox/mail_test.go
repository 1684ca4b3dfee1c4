package outbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// postOffice is a mail server: it takes mail over TLS from who has the password.
type postOffice struct {
	mu   sync.Mutex
	got  []string // to, then the mail
	says error    // to each RCPT
}

func (p *postOffice) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &postSession{office: p}, nil
}

type postSession struct {
	office *postOffice
	known  bool
	to     string
}

func (s *postSession) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *postSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "hub" || password != "correct horse" {
			return errors.New("who are you?")
		}
		s.known = true
		return nil
	}), nil
}
func (s *postSession) Mail(string, *smtp.MailOptions) error {
	if !s.known {
		return smtp.ErrAuthRequired
	}
	return nil
}
func (s *postSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	return s.office.says
}
func (s *postSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	s.office.mu.Lock()
	defer s.office.mu.Unlock()
	s.office.got = append(s.office.got, s.to, string(text))
	return err
}
func (s *postSession) Reset()        {}
func (s *postSession) Logout() error { return nil }

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// server listens; how is starttls, implicit or plain.
func (p *postOffice) server(t *testing.T, how string) (address string, roots *x509.CertPool) {
	t.Helper()
	pair, roots := certificate(t)
	s := smtp.NewServer(p)
	s.Domain = "localhost"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	scheme := "smtp"
	switch how {
	case "implicit":
		l, scheme = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}}), "smtps"
	case "starttls":
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
	case "plain":
		s.AllowInsecureAuth = true
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return scheme + "://localhost:" + port, roots
}

// TestMail: mail goes over TLS, with a password, or not at all.
func TestMail(t *testing.T) {
	for _, how := range []string{"starttls", "implicit", "plain"} {
		t.Run(how, func(t *testing.T) {
			p := &postOffice{}
			address, roots := p.server(t, how)
			f := open(t, func(o *Options) {
				m, err := ParseMail(address, "Alarms <alarms@hub.example>", "hub", "correct horse")
				if err != nil {
					t.Fatal(err)
				}
				m.Roots, o.Mail = roots, m
			})
			id, err := f.Outbox.Send(t.Context(), Message{Party: f.anna.Party, To: "anna@example.org", Subject: "Cold room is zu warm: 9 °C", Body: []byte("It is 9 °C.\r\n.\r\nMore.\n")})
			if err != nil {
				t.Fatal(err)
			}
			f.step()
			d := f.delivery(id)
			if how == "plain" {
				if len(p.got) != 0 || d.State != Waiting {
					t.Fatalf("mail went unencrypted: %+v", d)
				}
				return
			}
			if d.State != Delivered || len(p.got) != 2 || p.got[0] != "anna@example.org" {
				t.Fatalf("%+v %q %s", d, p.got, f.log.String())
			}
			m, err := mail.ReadMessage(strings.NewReader(p.got[1]))
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Header.Get("Message-Id"); got != "<"+id.String()+"@hub.example>" {
				t.Error(got)
			}
			if m.Header.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(m.Header.Get("From"), "alarms@hub.example") {
				t.Error(m.Header)
			}
		})
	}
}

// TestMailRefused: what the server will never take is given up; a wrong password and
// a server that nobody certifies are tried again. Neither the password nor the
// address stands in what is said of it.
func TestMailRefused(t *testing.T) {
	p := &postOffice{says: &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no anna@example.org here"}}
	address, roots := p.server(t, "starttls")
	f := open(t, nil)
	for _, c := range []struct {
		password string
		roots    *x509.CertPool
		want     State
		says     string
	}{
		{"correct horse", roots, Dead, "550"},
		{"wrong horse", roots, Waiting, "mail server"},
		{"correct horse", x509.NewCertPool(), Waiting, "not trusted"},
	} {
		m, err := ParseMail(address, "alarms@hub.example", "hub", c.password)
		if err != nil {
			t.Fatal(err)
		}
		m.Roots, f.Outbox.mail = c.roots, m
		id, err := f.Outbox.Send(t.Context(), Message{Party: f.anna.Party, To: "anna@example.org", Subject: "x", Body: []byte("y")})
		if err != nil {
			t.Fatal(err)
		}
		f.step()
		d := f.delivery(id)
		if d.State != c.want || !strings.Contains(d.Last, c.says) {
			t.Errorf("%+v", d)
		}
		if all := d.Last + f.log.String(); strings.Contains(all, "horse") || strings.Contains(all, "anna@") {
			t.Error(all)
		}
	}
	for _, bad := range []string{"", "anna", "Anna <anna@example.org>", "a@b\r\nBcc: c@d", "a@b, c@d"} {
		if f.CheckMail(bad) == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
	for _, bad := range [][4]string{{"mail.example.org", "a@b"}, {"smtp://u:p@h", "a@b"}, {"smtp://h", ""}, {"http://h", "a@b"}, {"smtp://h:0", "a@b"}, {"smtp://h", "a@b", "u", ""}} {
		if _, err := ParseMail(bad[0], bad[1], bad[2], bad[3]); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
