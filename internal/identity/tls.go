package identity

import (
	"crypto/tls"

	"github.com/holdfast-iot/holdfast"
)

// DeviceTLS is for the devices' HTTPS listener. It asks for a client certificate
// but does not require one, for EST begins without; a certificate that is not
// ours, or was taken back, ends the handshake. One that has expired passes, for
// EST may renew it: the handler of everything else asks Peer, which refuses it.
// least is tls.VersionTLS13 or tls.VersionTLS12.
func (i *Identity) DeviceTLS(least uint16) *tls.Config {
	c := i.serverTLS(least)
	c.ClientAuth = tls.RequestClientCert
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		l, err := i.leafOf(cs)
		if err != nil {
			return err
		}
		return i.live.refusal(l.fingerprint)
	}
	return c
}

// MQTTTLS is for the MQTT listener: it requires a certificate of ours, of a device, a
// person or a program, and refuses in the handshake what it can without reading the
// catalog. The listener still asks Peer or package access, which decide.
func (i *Identity) MQTTTLS(least uint16) *tls.Config {
	c := i.serverTLS(least)
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		l, err := i.leafOf(cs)
		if err != nil {
			return err
		}
		if err := l.current(i.now()); err != nil {
			return err
		}
		return i.live.refusal(l.fingerprint)
	}
	return c
}

// PeopleTLS is for the listener of people and programs. It asks for a client
// certificate; whoever has none sends a bearer token. A foreign certificate does
// not end the handshake: its holder may have a token. The caller may replace
// GetCertificate by one from a public authority.
func (i *Identity) PeopleTLS() *tls.Config {
	c := i.serverTLS(tls.VersionTLS13)
	c.ClientAuth = tls.RequestClientCert
	return c
}

// serverTLS has no session tickets: a resumed session would skip part of the
// checks and, since a ticket carries the client's certificate, save no bytes.
func (i *Identity) serverTLS(least uint16) *tls.Config {
	return &tls.Config{
		MinVersion: max(least, tls.VersionTLS12),
		CipherSuites: []uint16{ // of TLS 1.2 only; our certificates are ECDSA
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		CurvePreferences: []tls.CurveID{
			tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384,
		},
		SessionTicketsDisabled: true,
		GetCertificate:         i.ServerCertificate,
		ClientCAs:              i.authority.pool, // the hint that lets a client choose
		Time:                   i.now,
	}
}

func errNotDevice() error {
	return holdfast.Errorf(holdfast.Denied, "the client certificate is not a device's")
}
