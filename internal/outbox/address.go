package outbox

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// A webhook's address is given by somebody who may not know this network, so what
// the hub can reach and he can't must not be asked for him: an address is public,
// or of a network that the operator allows. It is judged when the connection is
// made, after the name was resolved, so that no name can lead elsewhere.

const maxAddress = 2048

// reserved are addresses within what is routed that are nobody's server, or lead
// to another address within.
var reserved = []netip.Prefix{ // constant
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"),
}

var routed = netip.MustParsePrefix("2000::/3") // all of IPv6 that is given out

// may reports whether a webhook may be at an address.
func (b *Outbox) may(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	in := func(p netip.Prefix) bool { return p.Contains(a) }
	if slices.ContainsFunc(b.allow, in) {
		return true
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && (a.Is4() || routed.Contains(a)) && !slices.ContainsFunc(reserved, in)
}

// checkAddress refuses what can't be a webhook's.
func (b *Outbox) checkAddress(text string) error {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxAddress:
		return holdfast.Errorf(holdfast.TooLarge, "a webhook's address has at most %d bytes", maxAddress)
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return holdfast.Errorf(holdfast.Invalid, "a webhook's address begins with https:// and a host; there is no other way to send to one")
	case u.User != nil:
		return holdfast.Errorf(holdfast.Invalid, "a webhook's address has no user and password in it: the receiver knows the hub by its signature")
	case u.Fragment != "":
		return holdfast.Errorf(holdfast.Invalid, "a webhook's address has no # in it: nobody would get what stands behind")
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && !b.may(a) {
		return notPublic()
	}
	return nil
}

func notPublic() error {
	return holdfast.Errorf(holdfast.Denied, "the webhook's address is not a public one: the operator can allow a network with serve --webhook-allow CIDR")
}

const (
	dialWithin  = 10 * time.Second
	replyWithin = 15 * time.Second
	maxReply    = 64 << 10 // that is read, and thrown away
)

func (b *Outbox) client(roots *x509.CertPool) *http.Client {
	dialer := &net.Dialer{Timeout: dialWithin, Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil || !b.may(a.Addr()) {
			return notPublic()
		}
		return nil
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: dialWithin, ResponseHeaderTimeout: replyWithin, MaxResponseHeaderBytes: 32 << 10,
			DisableKeepAlives: true, // each connection is judged anew
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       dialWithin + replyWithin,
	}
}
