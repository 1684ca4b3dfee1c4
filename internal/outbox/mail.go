package outbox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/holdfast-iot/holdfast"
)

// Mail says through which server mail goes. There is no way to send it unencrypted.
type Mail struct {
	Host     string
	Port     int
	Implicit bool   // TLS from the first byte (smtps), not STARTTLS
	From     string // address
	User     string // "": the server asks for none
	Password string
	Roots    *x509.CertPool // who certifies the server; nil: whom the system trusts
}

// String tells no password.
func (m *Mail) String() string { return "mail by " + net.JoinHostPort(m.Host, strconv.Itoa(m.Port)) }

// ParseMail reads smtp://HOST[:587], with STARTTLS, or smtps://HOST[:465].
func ParseMail(server, from, user, password string) (*Mail, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return nil, holdfast.Errorf(holdfast.Invalid, "a mail server is smtp://HOST:587, which turns to TLS by STARTTLS, or smtps://HOST:465")
	}
	m := &Mail{Host: u.Hostname(), Port: 587, Implicit: u.Scheme == "smtps", From: from, User: user, Password: password}
	if m.Implicit {
		m.Port = 465
	}
	if p := u.Port(); p != "" {
		if m.Port, err = strconv.Atoi(p); err != nil || m.Port < 1 || m.Port > 65535 {
			return nil, holdfast.Errorf(holdfast.Invalid, "the port of the mail server is a number from 1 to 65535")
		}
	}
	if err := new(mail.Msg).From(from); err != nil || from == "" {
		return nil, holdfast.Errorf(holdfast.Invalid, "mail is sent from an address: give one like alarms@example.org")
	}
	if (user == "") != (password == "") {
		return nil, holdfast.Errorf(holdfast.Invalid, "the mail server is given a user and a password, or neither")
	}
	return m, nil
}

func (m *Mail) send(ctx context.Context, w *jobRow) error {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.From(m.From), msg.To(w.To)); err != nil {
		return &failure{why: "the mail address is refused", final: true, ours: true}
	}
	_, domain, _ := strings.Cut(m.From, "@")
	msg.SetMessageIDWithValue(w.id.String() + "@" + strings.TrimRight(domain, ">"))
	msg.SetDateWithValue(holdfast.Instant(w.Made))
	msg.Subject(w.Subject)
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(mail.TypeTextPlain, string(w.Body))
	o := []mail.Option{mail.WithPort(m.Port), mail.WithTimeout(30 * time.Second), mail.WithTLSPolicy(mail.TLSMandatory),
		mail.WithTLSConfig(&tls.Config{ServerName: m.Host, RootCAs: m.Roots, MinVersion: tls.VersionTLS12})}
	if m.Implicit {
		o = append(o, mail.WithSSL())
	}
	if m.User != "" {
		o = append(o, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(m.User), mail.WithPassword(m.Password))
	}
	c, err := mail.NewClient(m.Host, o...)
	if err != nil {
		return &failure{why: "mail is not set up as it should be", ours: true}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return mailed(c.DialAndSendWithContext(ctx, msg))
}

// mailed says what became of a mail, without what the server said: it may quote the
// address.
func mailed(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*mail.SendError](err)
	if !ok {
		return &failure{why: "the mail server can't be talked to: " + unanswered(err)}
	}
	f := &failure{why: "the mail server does not take it"}
	if code := e.ErrorCode(); code > 0 {
		f.why += " (" + strconv.Itoa(code) + ")"
	}
	f.final = !e.IsTemp() && (e.Reason == mail.ErrSMTPRcptTo || e.Reason == mail.ErrSMTPData || e.Reason == mail.ErrSMTPDataClose)
	return f
}

// unanswered says in a few words why nobody answered.
func unanswered(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is not trusted"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "its name is not known"
	}
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), ok && timeout.Timeout():
		return "it took too long"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there"
	}
	return "the connection fails"
}
