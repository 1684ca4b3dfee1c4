package server

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// lastByte is how long after a withdrawal a recipient may still be given something.
const lastByte = 5 * time.Second

// However an owner takes back what a recipient may read, the last byte comes within
// five seconds, while readings come in and go out in every pace: streams, slow
// streams, page after page, and windows.
func TestLastByteAfterAWithdrawal(t *testing.T) {
	for _, c := range []struct {
		name string
		take func(w *withdrawal) (path, method, body string, by *reader)
	}{
		{"the grant is taken back", func(w *withdrawal) (string, string, string, *reader) {
			return "/v1/grants/" + w.grant, http.MethodDelete, "", w.owner
		}},
		{"a restriction is set", func(w *withdrawal) (string, string, string, *reader) {
			return "/v1/holds", http.MethodPost, `{"kind":"restriction"}`, w.owner
		}},
		{"the token is revoked", func(w *withdrawal) (string, string, string, *reader) {
			return "/v1/tokens/" + w.recipient.credential.String(), http.MethodDelete, "", w.maker
		}},
		{"the purpose ends", func(*withdrawal) (string, string, string, *reader) {
			return "", "", "", nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWithdrawal(t)
			w.read()
			path, method, body, by := c.take(w)
			asked := time.Now()
			if by == nil {
				if err := w.grants.EndPurpose(t.Context(), w.admin().Credential, "study"); err != nil {
					t.Fatal(err)
				}
			} else if got := by.ask(w.at.API+path, method, body); got.status/100 != 2 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			answered := time.Now()
			w.await(answered)
			t.Logf("the last byte came %v after the answer, which took %v", w.last.Sub(answered).Round(time.Millisecond), answered.Sub(asked).Round(time.Millisecond))
		})
	}
}

// withdrawal is a recipient who reads all that he can of an owner.
type withdrawal struct {
	*estate
	device           *thing
	owner            *reader
	recipient, maker *reader
	grant            string

	reading sync.WaitGroup
	begun   sync.WaitGroup
	mu      sync.Mutex
	last    time.Time
	pace    context.CancelFunc
}

func newWithdrawal(t *testing.T) *withdrawal {
	h := newHouse(t)
	w := &withdrawal{estate: &estate{house: h, targets: map[string]*target{}}}
	if _, err := h.grants.AddPurpose(t.Context(), h.admin().Credential, grant.Purpose{
		Name: "study", IRI: "https://w3id.org/dpv#AcademicResearch", LegalBasis: "consent", Text: "To study."}); err != nil {
		t.Fatal(err)
	}
	anna, institute := w.party("Anna", custody.Person), w.party("Institute", custody.Organisation)
	w.device = h.enrolled(anna.Party, "band")
	w.targets["anna"] = &target{slug: "anna", party: anna.Party, device: w.device}
	begin := time.Now().Add(-50 * time.Minute)
	for range 40 {
		samples := make([]holdfast.Sample, 5000)
		for i := range samples {
			begin = begin.Add(time.Millisecond)
			samples[i] = number("pulse", begin, float64(i)/7)
		}
		h.mustSend(w.device.Peer, samples...)
	}
	w.at, _ = h.serve()
	w.owner = w.reader("Anna", anna, access.Spec{Role: access.Owner}, nothing)
	w.maker = w.reader("the institute", institute, access.Spec{Role: access.Owner}, nothing)
	w.recipient = w.reader("its program", institute, access.Spec{Role: access.Program, Purposes: []holdfast.Purpose{"study"}}, nothing)
	var m struct{ ID string }
	w.must("Anna", http.MethodPost, "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+1d"}`, &m)
	w.grant = m.ID
	return w
}

// read begins to read, in five ways at once while the device sends, and returns when
// each has been given something.
func (w *withdrawal) read() {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.pace = cancel
	w.t.Cleanup(func() { cancel(); w.reading.Wait() })
	device := w.at.API + "/v1/readings?device=" + w.device.Device.String() + "&stream=pulse"
	for _, how := range []struct {
		query string
		chunk int
		rest  time.Duration
	}{
		{"&format=ndjson", 32 << 10, 20 * time.Millisecond},
		{"&format=csv", 2 << 10, 50 * time.Millisecond},
		{"&format=ndjson&limit=500", 64 << 10, 0},
		{"&every=1m&agg=mean,count", 64 << 10, 0},
		{"&every=1m&agg=mean,max&by=owner", 64 << 10, 0},
	} {
		w.begun.Add(1)
		w.reading.Go(func() { w.reads(ctx, device+how.query, how.chunk, how.rest) })
	}
	w.reading.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			w.send(w.device.Peer, number("pulse", time.Now(), float64(n)))
			time.Sleep(5 * time.Millisecond) // the device's pace
		}
	})
	w.begun.Wait()
}

// reads asks again and again, and notes when it was last given something.
func (w *withdrawal) reads(ctx context.Context, url string, chunk int, rest time.Duration) {
	var once sync.Once
	defer once.Do(w.begun.Done)
	buf := make([]byte, chunk)
	web := w.slowly()
	defer web.CloseIdleConnections()
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			w.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+w.recipient.token)
		res, err := web.Do(req)
		if err != nil {
			continue
		}
		for res.StatusCode == http.StatusOK {
			n, err := res.Body.Read(buf)
			if n > 0 {
				w.mu.Lock()
				w.last = time.Now()
				w.mu.Unlock()
				once.Do(w.begun.Done)
			}
			if err != nil {
				break
			}
			time.Sleep(rest) // the reader's pace
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		time.Sleep(15 * time.Millisecond) // within the rate of one credential
	}
}

// slowly is a client whose system keeps little for it, and which reads no further
// ahead than it is asked to: otherwise the test would measure its own buffers, since
// what has come there has been received.
func (w *withdrawal) slowly() *http.Client {
	dial := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10) })
		return err
	}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.device.tls().RootCAs, ServerName: "localhost"}, DialContext: dial.DialContext, DisableCompression: true}}
}

// await waits until nothing has come for a while, and fails when that takes too long.
func (w *withdrawal) await(since time.Time) {
	w.t.Helper()
	const quiet = 1500 * time.Millisecond
	for {
		w.mu.Lock()
		last := w.last
		w.mu.Unlock()
		if last.Sub(since) > lastByte {
			w.t.Errorf("%v after the withdrawal something is still given out", last.Sub(since))
			break
		}
		if now := time.Now(); now.Sub(last) > quiet && now.Sub(since) > quiet {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.pace()
	w.reading.Wait()
}
