package main

import (
	"context"
	"crypto/x509"
	"net/netip"
	"os"

	"github.com/holdfast-iot/holdfast/internal/outbox"
)

// messageFlags say how messages leave the hub.
type messageFlags struct {
	WebhookAllow []string `help:"A network that webhooks may be in though it is not public, as 10.1.0.0/16; repeated, or with commas." placeholder:"CIDR"`
	WebhookCA    string   `name:"webhook-ca" help:"Trust the authorities in this PEM file for webhooks, in place of the system's." placeholder:"FILE" type:"path"`
	MailServer   string   `help:"The server that mail goes through: smtp://HOST:587, which turns to TLS by STARTTLS, or smtps://HOST:465." placeholder:"URL"`
	MailFrom     string   `help:"The address that mail is sent from." placeholder:"ADDRESS"`
	MailUser     string   `help:"The user at the mail server." placeholder:"NAME"`
	MailPassword string   `name:"mail-password-file" help:"A file whose first line is the user's password." placeholder:"FILE" type:"path"`
	MailCA       string   `name:"mail-ca" help:"Trust the authorities in this PEM file for the mail server, in place of the system's." placeholder:"FILE" type:"path"`
}

func (f *messageFlags) networks() (all []netip.Prefix, err error) {
	for _, text := range f.WebhookAllow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, usagef("--webhook-allow is a network like 10.1.0.0/16 or fd00::/8")
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

func (f *messageFlags) mail(ctx context.Context) (*outbox.Mail, error) {
	if f.MailServer == "" {
		if f.MailFrom != "" || f.MailUser != "" || f.MailPassword != "" {
			return nil, usagef("mail goes through a server: name it with --mail-server")
		}
		return nil, nil
	}
	password, err := readPassphrase(ctx, f.MailPassword)
	if err != nil {
		return nil, err
	}
	m, err := outbox.ParseMail(f.MailServer, f.MailFrom, f.MailUser, string(password))
	if err != nil {
		return nil, usageError{err}
	}
	m.Roots, err = authorities(f.MailCA)
	return m, err
}

// authorities reads certificates; nil without a file.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fileError("certificate", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, usagef("%s has no certificate in PEM", path)
	}
	return pool, nil
}
