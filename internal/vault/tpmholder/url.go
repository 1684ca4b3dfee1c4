package tpmholder

import (
	"context"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Options say which TPM, which counter of it and where the state file lies.
type Options struct {
	// Address is /dev/tpmrm0 or another device, unix:/path/of/socket, or host:port.
	Address string
	// State is the path of the state file, outside the data folder.
	State string
	// Index is the NV index of the counter; zero is DefaultIndex.
	Index uint32
	// Parent is the persistent handle of the storage key; zero is the one that goes
	// with Index.
	Parent uint32
	// OwnerAuth and EndorsementAuth are files with the passwords of these
	// hierarchies of the TPM; empty: there is none, as in most machines.
	OwnerAuth, EndorsementAuth string
	// EKRoots is a folder with certificates of makers, for the grade Purge.
	EKRoots string

	// Of the tests, which lose replies and don't wait.
	dial  dialer
	pause func(context.Context, time.Duration) error
}

// DefaultIndex is an index that no specification has given to anybody else.
const DefaultIndex = 0x01800100

// ParseURL reads the URL of a holder: tpm:ADDRESS?state=PATH and, optionally,
// index=, parent=, owner-auth-file=, endorsement-auth-file=, ek-roots=.
func ParseURL(text string) (Options, error) {
	rest, ok := strings.CutPrefix(text, "tpm:")
	if !ok {
		return Options{}, holdfast.Errorf(holdfast.Invalid, "the URL of a TPM begins with tpm:, as in tpm:/dev/tpmrm0?state=/var/lib/holdfast-tpm/tpm.json")
	}
	address, query, _ := strings.Cut(rest, "?")
	o := Options{Address: address}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Options{}, holdfast.Errorf(holdfast.Invalid, "the URL of a TPM: what stands behind the ? is no list of name=value")
	}
	for name, all := range values {
		if len(all) != 1 || all[0] == "" {
			return Options{}, holdfast.Errorf(holdfast.Invalid, "the URL of a TPM has %s= empty or twice", name)
		}
		value := all[0]
		switch name {
		case "state":
			o.State = value
		case "index":
			o.Index, err = number(name, value)
		case "parent":
			o.Parent, err = number(name, value)
		case "owner-auth-file":
			o.OwnerAuth = value
		case "endorsement-auth-file":
			o.EndorsementAuth = value
		case "ek-roots":
			o.EKRoots = value
		default:
			return Options{}, holdfast.Errorf(holdfast.Invalid, "the URL of a TPM has %s=, known are: endorsement-auth-file, ek-roots, index, owner-auth-file, parent, state", name)
		}
		if err != nil {
			return Options{}, err
		}
	}
	return o.complete()
}

func number(name, text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return 0, holdfast.Errorf(holdfast.Invalid, "the URL of a TPM has %s=%s, which is no number like 0x01800100", name, text)
	}
	return uint32(n), nil
}

// complete fills in what has a default and checks the rest.
func (o Options) complete() (Options, error) {
	if err := checkAddress(o.Address); err != nil {
		return Options{}, err
	}
	if o.State == "" {
		return Options{}, holdfast.Errorf(holdfast.Invalid, "a TPM needs a state file outside the data folder: add ?state=/var/lib/holdfast-tpm/tpm.json")
	}
	for _, path := range []string{o.State, o.OwnerAuth, o.EndorsementAuth, o.EKRoots} {
		if path != "" && !filepath.IsAbs(path) {
			return Options{}, holdfast.Errorf(holdfast.Invalid, "a path in the URL of a TPM is not absolute: %s", path)
		}
	}
	if o.Index == 0 {
		o.Index = DefaultIndex
	}
	if o.Index < 0x01000000 || o.Index > 0x01ffffff {
		return Options{}, holdfast.Errorf(holdfast.Invalid, "index=0x%08x is no NV index: 0x01800000 to 0x01bfffff are the owner's", o.Index)
	}
	if o.Parent == 0 {
		o.Parent = 0x81008000 | o.Index&0x7fff
	}
	if o.Parent < 0x81000000 || o.Parent > 0x817fffff {
		return Options{}, holdfast.Errorf(holdfast.Invalid, "parent=0x%08x is no persistent handle of the owner: 0x81000000 to 0x817fffff are", o.Parent)
	}
	if o.dial == nil {
		o.dial = dialTPM(o.Address)
	}
	if o.pause == nil {
		o.pause = wait
	}
	return o, nil
}

func checkAddress(a string) error {
	path, isUnix := strings.CutPrefix(a, "unix:")
	switch {
	case isUnix && filepath.IsAbs(path), filepath.IsAbs(a):
		return nil
	case isUnix:
		return holdfast.Errorf(holdfast.Invalid, "the URL of a TPM names the socket %q, which is no absolute path", path)
	}
	if _, port, err := net.SplitHostPort(a); err == nil {
		if n, err := strconv.Atoi(port); err == nil && n > 0 && n < 1<<16 {
			return nil
		}
	}
	return holdfast.Errorf(holdfast.Invalid, "%q is no address of a TPM: tpm:/dev/tpmrm0, tpm:unix:/path/of/socket and tpm:127.0.0.1:2321 are", a)
}

// managed says that a resource manager stands between us and the TPM, which takes
// back what a connection has loaded when it ends.
func (o Options) managed() bool {
	return filepath.IsAbs(o.Address) && !slices.Contains([]string{"/dev/tpm0", "/dev/tpm1"}, o.Address)
}
