package main

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// mailbox is what somebody's server was told by webhooks.
type mailbox struct {
	mu  *sync.Mutex
	got *[]told
}

type told struct {
	header http.Header
	body   []byte
}

// receiver starts a server, `receiver CA.PEM`, that webhooks can be sent to: HOOK is
// its address, the file has the authority of its certificate.
func receiver(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: receiver FILE")
	}
	box := ts.Value(mailbox{}).(*mailbox)
	*box = mailbox{new(sync.Mutex), new([]told)}
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		box.mu.Lock()
		defer box.mu.Unlock()
		*box.got = append(*box.got, told{r.Header, body})
	}))
	ts.Defer(s.Close)
	ts.Setenv("HOOK", s.URL)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
}

// delivered waits for a message, `delivered TYPE SECRET FILE`, checks its signature
// and writes its body to the file.
func delivered(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 || neg {
		ts.Fatalf("usage: delivered TYPE SECRET FILE")
	}
	box := ts.Value(mailbox{}).(*mailbox)
	lib, err := standardwebhooks.NewWebhook(args[1])
	ts.Check(err)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		box.mu.Lock()
		all := *box.got
		box.mu.Unlock()
		for _, g := range all {
			var n struct{ Type string }
			if json.Unmarshal(g.body, &n) == nil && n.Type == args[0] {
				ts.Check(lib.Verify(g.body, g.header))
				ts.Check(os.WriteFile(ts.MkAbs(args[2]), g.body, 0o600))
				return
			}
		}
	}
	ts.Fatalf("nothing of type %s came", args[0])
}
