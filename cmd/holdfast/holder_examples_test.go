package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// exampleHolder is a program of the examples, with its argument.
type exampleHolder struct {
	t                 *testing.T
	program, argument string
}

func newExampleHolder(t *testing.T, example, argument string) *exampleHolder {
	t.Helper()
	foreign(t, "/usr/bin/python3", "")
	text, err := os.ReadFile(filepath.Join(examples, "holders", example))
	if err != nil {
		t.Fatal(err)
	}
	// In a folder that nobody else may write to: the checkout's may be another's as well.
	dir := filepath.Join(t.TempDir(), "lib")
	h := &exampleHolder{t, filepath.Join(dir, filepath.Base(example)), argument}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.program, text, 0o700); err != nil {
		t.Fatal(err)
	}
	return h
}

// ask is one question of the protocol, without what all have.
func (h *exampleHolder) ask(question string) (answer struct {
	Error, Box, Key string
	Generations     []uint64
}) {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), h.program, h.argument)
	cmd.Stdin, cmd.Stderr, cmd.Env = strings.NewReader(`{"holdfast-holder":"1","keyring":"test-a",`+question+"}"), os.Stderr, []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("%s: %v", question, err)
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		h.t.Fatalf("%s: %v", question, err)
	}
	return answer
}

// try asks in short what `holdfast holder test` asks at length, hundreds of runs of the
// program: that is for long runs.
func (h *exampleHolder) try() {
	t := h.t
	t.Helper()
	if os.Getenv("HOLDFAST_LONG") != "" {
		var out, said bytes.Buffer
		code := run(&app{ctx: t.Context(), stdout: &out, stderr: &said, stdin: strings.NewReader("")}, []string{"holder", "test", "exec:" + h.program + " " + h.argument})
		if code != 0 {
			t.Errorf("exit code %d: %s\n%s", code, said.String(), out.String())
		}
		return
	}
	key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	for _, n := range []string{"1", "2", "2"} {
		if a := h.ask(`"do":"prepare","generation":` + n); a.Error != "" {
			t.Fatalf("prepare %s: %s", n, a.Error)
		}
	}
	box := [3]string{}
	for n := 1; n <= 2; n++ {
		box[n] = h.ask(fmt.Sprintf(`"do":"wrap","generation":%d,"key":%q`, n, key)).Box
		if a := h.ask(fmt.Sprintf(`"do":"unwrap","generation":%d,"box":%q`, n, box[n])); a.Key != key {
			t.Fatalf("generation %d: %+v", n, a)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(box[2])
	if err != nil || len(raw) < 32 {
		t.Fatalf("the box %s: %v", box[2], err)
	}
	raw[20] ^= 1
	for name, bad := range map[string]string{"altered": base64.StdEncoding.EncodeToString(raw), "of another generation": box[1]} {
		if a := h.ask(fmt.Sprintf(`"do":"unwrap","generation":2,"box":%q`, bad)); a.Error != "denied" {
			t.Errorf("a box %s: %+v", name, a)
		}
	}
	if a := h.ask(`"do":"destroy","below":2`); a.Error != "" {
		t.Errorf("destroy: %s", a.Error)
	}
	if a := h.ask(fmt.Sprintf(`"do":"unwrap","generation":1,"box":%q`, box[1])); a.Error != "gone" {
		t.Errorf("a dead box: %+v", a)
	}
	if a := h.ask(`"do":"evidence","below":2`); !slices.Equal(a.Generations, []uint64{2}) {
		t.Errorf("it holds %v", a.Generations)
	}
	if a := h.ask(fmt.Sprintf(`"do":"unwrap","generation":2,"box":%q`, box[2])); a.Key != key {
		t.Errorf("the living box: %+v", a)
	}
	h.ask(`"do":"destroy","below":3`)
	if a := h.ask(`"do":"evidence"`); a.Generations == nil || len(a.Generations) > 0 {
		t.Errorf("in the end it holds %v", a.Generations)
	}
}

func TestHolderOnOpenssl(t *testing.T) {
	foreign(t, "openssl", "")
	dir := t.TempDir()
	newExampleHolder(t, "openssl/openssl.py", dir).try()
	if left, err := filepath.Glob(dir + "/*/*.pem"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// A server can't be had here: transit answers as the documentation of the engine's
// HTTP API says, and where that says nothing as its program does.
func TestHolderOnOpenBao(t *testing.T) {
	bao := &transit{token: "s.holdfast", keys: map[string]*transitKey{"somebody-elses-7": {}, "holdfast-1": {}}}
	server := httptest.NewServer(bao)
	defer server.Close()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"token":    bao.token + "\n",
		"bao.json": fmt.Sprintf(`{"address": %q, "mount": "transit", "token_file": %q}`, server.URL, filepath.Join(dir, "token")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := newExampleHolder(t, "openbao/openbao.py", filepath.Join(dir, "bao.json"))
	h.try()
	if len(bao.keys) != 2 || bao.refused > 0 {
		t.Errorf("%d keys are left of 2 others, %d questions were refused", len(bao.keys), bao.refused)
	}
	bao.token = "s.another" // one that has ended says nothing of any key
	for _, do := range []string{`"evidence"`, `"destroy","below":9`, `"unwrap","generation":1,"box":"AAAA"`} {
		if a := h.ask(`"do":` + do); a.Error != "unavailable" {
			t.Errorf("%s without a token: %+v", do, a)
		}
	}
}

// transit is the engine, mounted at transit/, of a server in memory.
type transit struct {
	mu      sync.Mutex
	token   string
	keys    map[string]*transitKey
	refused int // for the token
}

type transitKey struct {
	aead      cipher.AEAD
	deletable bool
}

func (b *transit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fail := func(status int, why ...string) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string][]string{"errors": append([]string{}, why...)})
	}
	give := func(data map[string]any) { json.NewEncoder(w).Encode(map[string]any{"data": data}) }
	var asked struct {
		Type, Plaintext, Ciphertext string
		Allowed                     bool `json:"deletion_allowed"`
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/transit/")
	switch {
	case r.Header.Get("X-Vault-Token") != b.token:
		b.refused++
		fail(403, "permission denied")
		return
	case !ok:
		fail(404, "no handler for route "+r.URL.Path)
		return
	case r.Method == http.MethodPost && json.NewDecoder(r.Body).Decode(&asked) != nil:
		fail(400, "failed to parse JSON input")
		return
	}
	words := strings.Split(path, "/")
	name := ""
	if len(words) > 1 {
		name = words[1]
	}
	k := b.keys[name]
	switch what := r.Method + " " + strings.Join(slices.Delete(words, min(1, len(words)), min(2, len(words))), "/"); {
	case what == "GET keys" && name == "" && r.URL.Query().Get("list") == "true":
		names := []string{}
		for n := range b.keys {
			names = append(names, n)
		}
		slices.Sort(names)
		if len(names) == 0 {
			fail(404)
			return
		}
		give(map[string]any{"keys": names})
	case what == "POST keys":
		if k == nil { // else nothing changes, with a warning
			b.keys[name] = newTransitKey()
		}
		give(map[string]any{"name": name, "type": asked.Type, "latest_version": 1})
	case what == "GET keys" && k == nil:
		fail(404)
	case what == "GET keys":
		give(map[string]any{"name": name, "deletion_allowed": k.deletable, "latest_version": 1})
	case k == nil && what == "POST keys/config":
		fail(400, "no existing key named "+name+" could be found")
	case what == "POST keys/config":
		k.deletable = asked.Allowed
		give(map[string]any{"name": name, "deletion_allowed": k.deletable})
	case what == "DELETE keys" && k == nil:
		fail(400, "could not delete key; not found")
	case what == "DELETE keys" && !k.deletable:
		fail(400, "deletion is not allowed for this key")
	case what == "DELETE keys":
		delete(b.keys, name)
		w.WriteHeader(204)
	case what == "POST encrypt":
		if k == nil { // with the capability `create`, it makes the key
			k = newTransitKey()
			b.keys[name] = k
		}
		plain, err := base64.StdEncoding.DecodeString(asked.Plaintext)
		if err != nil {
			fail(400, "failed to base64-decode plaintext")
			return
		}
		nonce := make([]byte, k.aead.NonceSize())
		rand.Read(nonce)
		give(map[string]any{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(k.aead.Seal(nonce, nonce, plain, nil)), "key_version": 1})
	case what == "POST decrypt" && k == nil:
		fail(400, "encryption key not found")
	case what == "POST decrypt":
		plain, err := k.open(asked.Ciphertext)
		if err != nil {
			fail(400, err.Error())
			return
		}
		give(map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)})
	default:
		fail(405, "unsupported operation")
	}
}

func newTransitKey() *transitKey {
	key := make([]byte, 32)
	rand.Read(key)
	block, _ := aes.NewCipher(key)
	aead, _ := cipher.NewGCM(block)
	return &transitKey{aead: aead}
}

// open takes version 0 for 1, as the engine does.
func (k *transitKey) open(text string) ([]byte, error) {
	version, box, ok := strings.Cut(strings.TrimPrefix(text, "vault:v"), ":")
	if !strings.HasPrefix(text, "vault:v") || !ok || version != "1" && version != "0" {
		return nil, fmt.Errorf("invalid ciphertext: no prefix")
	}
	b, err := base64.StdEncoding.DecodeString(box)
	if err != nil || len(b) < k.aead.NonceSize() {
		return nil, fmt.Errorf("invalid ciphertext: could not decode base64")
	}
	return k.aead.Open(nil, b[:k.aead.NonceSize()], b[k.aead.NonceSize():], nil)
}
