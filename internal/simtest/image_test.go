package simtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/server"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// canary is in every name and text value: it must occur nowhere on the disk.
const canary = "canary"

// image is a hub that was set up and never ran: what every seed begins with.
type image struct {
	disk    *Disk
	roots   *x509.CertPool
	admin   tls.Certificate
	owners  []owner
	devices []device
	made    time.Duration // when, by a bubble's clock
	guarded bool          // see guard
}

type owner struct {
	party holdfast.PartyID
	token string
}

type device struct {
	owner      int
	id         holdfast.DeviceID
	assignment holdfast.AssignmentID
	cert       tls.Certificate

	shared   bool // every second hour it is the borrower's
	borrower int
	period   holdfast.AssignmentID
	from     time.Time
}

// users are the owners who have something of a device.
func (d device) users() []int {
	if d.shared {
		return []int{d.owner, d.borrower}
	}
	return []int{d.owner}
}

// has are the devices of which an owner has something.
func (img *image) has(whose int) (out []int) {
	for i, d := range img.devices {
		if slices.Contains(d.users(), whose) {
			out = append(out, i)
		}
	}
	return out
}

// newImage sets a hub up: two owners, three devices.
func newImage(t *testing.T) *image { return setUp(t, new(image)) }

// monthEnds is a bit before the second month of a bubble's clock begins: each run of
// readings is of two months.
const (
	monthLeft = time.Hour
	monthEnds = 31*24*time.Hour - monthLeft
)

// newShared is newImage with a device that two have by turns, at the end of a month.
func newShared(t *testing.T) *image { return setUp(t, &image{made: monthEnds}) }

// newGuarded is newShared with a second holder and copies of the keyring.
func newGuarded(t *testing.T) *image { return setUp(t, &image{made: monthEnds, guarded: true}) }

func setUp(t *testing.T, img *image) *image {
	t.Helper()
	dir := t.TempDir()
	t.Run("image", func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, 1)
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(img.made)
			if err := img.make(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			if img.guarded {
				if err := img.guard(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	if t.Failed() {
		t.FailNow()
	}
	return img
}

func (img *image) make(ctx context.Context, dir string) error {
	_, err := server.Init(ctx, filepath.Join(dir, "data"), server.InitOptions{Organisation: "organisation", Hosts: []string{"localhost"}, RootKey: filepath.Join(dir, "key", "root.key")})
	if err != nil {
		return err
	}
	img.disk = NewDisk(1)
	if err := img.disk.load(os.DirFS(dir)); err != nil {
		return err
	}
	return openVault(ctx, img.disk, func(db *catalog.DB, keys *vault.Vault) error {
		l, err := ledger.Open(ctx, db, keys)
		if err != nil {
			return err
		}
		id, err := identity.Open(ctx, identity.Deps{Catalog: db, Vault: keys, Ledger: l}, identity.Options{})
		if err != nil {
			return err
		}
		people, err := access.Open(ctx, access.Deps{Catalog: db, Vault: keys, Ledger: l, Authority: id}, access.Options{})
		if err != nil {
			return err
		}
		img.roots = x509.NewCertPool()
		img.roots.AppendCertsFromPEM(id.CAPEM())
		house := custody.New(db, keys, l, custody.Options{})
		if err := img.administrator(); err != nil {
			return err
		}
		return img.people(ctx, house, people, id)
	})
}

// openVault opens catalog and keyring on a disk, without the hub, for as long as use
// runs.
func openVault(ctx context.Context, disk *Disk, use func(*catalog.DB, *vault.Vault) error) error {
	v, err := RegisterVFS(disk)
	if err != nil {
		return err
	}
	defer v.Close()
	db, err := catalog.Open(ctx, path.Join(DataFolder, "catalog"), catalog.Options{VFS: v.Name(), Readers: 1})
	if err != nil {
		return err
	}
	defer db.Close()
	root, err := vault.OpenFileHolderOn(keyFiles{disk, nil}, RootKey, nil)
	if err != nil {
		return err
	}
	holders := []vault.Holder{root}
	if other, err := vault.OpenFileHolderOn(keyFiles{disk, nil}, SecondKey, nil); err == nil {
		holders = append(holders, vault.Registered(other, second, ""))
	} else if disk.volumes != nil {
		return err
	}
	keys, err := vault.Open(ctx, db, vault.DirOn(keyFiles{disk, nil}, path.Join(DataFolder, "keyring")), holders, vault.Options{})
	if err != nil {
		return err
	}
	defer keys.Close()
	return use(db, keys)
}

func (img *image) administrator() (err error) {
	var pem [2][]byte
	for i, name := range []string{"cert.pem", "key.pem"} {
		if pem[i], err = img.disk.ReadFile(path.Join(DataFolder, "admin", name)); err != nil {
			return err
		}
	}
	img.admin, err = tls.X509KeyPair(pem[0], pem[1])
	return err
}

// people adds owners with a token each, and their devices with certificates.
func (img *image) people(ctx context.Context, house *custody.Custody, people *access.Access, id *identity.Identity) error {
	operating, err := house.Operating(ctx)
	if err != nil {
		return err
	}
	by := access.Principal{Settled: true, Credential: holdfast.NewID[holdfast.CredentialID](), Party: operating, Role: access.Administrator,
		Scopes: access.ScopeRead | access.ScopeWrite, NotAfter: time.Now().Add(time.Hour)}
	for i := range 2 {
		p, err := house.AddParty(ctx, by.Credential, fmt.Sprintf("%s %d", canary, i), custody.Person)
		if err != nil {
			return err
		}
		code, _, err := people.Invite(ctx, by, p.ID)
		if err != nil {
			return err
		}
		made, err := people.Redeem(ctx, access.Redemption{Code: code, From: "192.0.2.1"})
		if err != nil {
			return err
		}
		img.owners = append(img.owners, owner{p.ID, made.Token})
	}
	if _, err := house.AddProfile(ctx, by.Credential, []byte(profile)); err != nil {
		return err
	}
	owners := []int{0, 0, 1}
	if img.made > 0 {
		owners = append(owners, 0)
	}
	for i, whose := range owners {
		d, err := house.AddDevice(ctx, by.Credential, custody.DeviceSpec{Label: fmt.Sprintf("device %d", i), Owner: img.owners[whose].party, Profile: "thing"})
		if err != nil {
			return err
		}
		cert, err := enrol(ctx, id, d.Device)
		if err != nil {
			return err
		}
		img.devices = append(img.devices, device{owner: whose, id: d.Device.ID, assignment: d.Device.Assignment, cert: cert})
	}
	if len(owners) == 3 {
		return nil
	}
	return img.share(ctx, house, by.Credential)
}

// share gives every second hour of the last device to the other owner.
func (img *image) share(ctx context.Context, house *custody.Custody, by holdfast.CredentialID) error {
	var hours []string
	for h := 1; h < 24; h += 2 {
		hours = append(hours, fmt.Sprintf("Mo-Su %02d:00-%02d:00", h, h+1))
	}
	s, err := custody.ParseSchedule(strings.Join(hours, ","), "UTC")
	if err != nil {
		return err
	}
	d := &img.devices[len(img.devices)-1]
	d.shared, d.borrower, d.from = true, 1, time.Now()
	p, err := house.AddPeriod(ctx, by, custody.PeriodSpec{Device: d.id, Owner: img.owners[d.borrower].party,
		Terms: custody.Terms{Basis: custody.Loan, From: d.from, Schedule: s}})
	d.period = p.ID
	return err
}

// profile of every device: categories have the streams that it says.
const profile = `{"name":"thing","version":1,"streams":[
	{"name":"n","type":"number","purposes":["operation"],"category":"pd:GPSCoordinate"},
	{"name":"n_n","type":"number","purposes":["operation"],"category":"pd:GPSCoordinate"},
	{"name":"s","type":"text","purposes":["operation"],"category":"pd:HomeLocation"},
	{"name":"n_s","type":"text","purposes":["operation"]}]}`

func enrol(ctx context.Context, id *identity.Identity, d custody.Device) (tls.Certificate, error) {
	code, _, err := id.MakeCode(ctx, d.ID, d.Assignment, identity.CodeOptions{})
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := id.Enrol(ctx, d.ID.String(), code.SecretText(), csr, "192.0.2.1")
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// load copies folders and files onto the disk, durably. The journal's files are of
// production's size and hold nothing yet: the hub makes its own.
func (d *Disk) load(from fs.FS) error {
	return fs.WalkDir(from, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if e.IsDir() {
			if err := d.Mkdir("/"+name, 0o700); err != nil {
				return err
			}
			return d.SyncFolder(path.Dir("/" + name))
		}
		if strings.HasPrefix(name, "data/journal/") || e.Name() == "lock" {
			return nil
		}
		b, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		f, err := d.Open("/"+name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		if _, err := f.Write(b); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		return d.SyncFolder(path.Dir("/" + name))
	})
}
