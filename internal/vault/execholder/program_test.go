package execholder_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/seal"
)

// The program under test is this test itself, started with its first argument
// "holder", the way it is to behave, and a folder.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "holder" {
		program{lie: os.Args[2], dir: os.Args[3]}.main()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "child" {
		time.Sleep(10 * time.Minute)
		return
	}
	os.Exit(m.Run())
}

// program is a holder with a file per keyring and generation. lie is how it breaks
// its word; "honest" does not.
type program struct{ lie, dir string }

type asked struct {
	Do         string `json:"do"`
	Keyring    string `json:"keyring"`
	Generation uint64 `json:"generation"`
	Below      uint64 `json:"below"`
	Box        []byte `json:"box"`
	Key        []byte `json:"key"`
}

func (p program) main() {
	in, err := io.ReadAll(os.Stdin)
	var q asked
	if err == nil {
		err = json.Unmarshal(in, &q)
	}
	if p.lie == "one keyring" {
		q.Keyring = "all"
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out, code := p.answer(q)
	out["holdfast-holder"] = "1"
	b, _ := json.Marshal(out)
	p.spoil(q, &b)
	os.Stdout.Write(b)
	os.Exit(code)
}

// spoil is what goes wrong outside of the protocol; only when a key is wrapped, so
// that the program can be opened.
func (p program) spoil(q asked, b *[]byte) {
	if q.Do != "wrap" {
		return
	}
	switch p.lie {
	case "garbage":
		*b = []byte("\x00\x01hello")
	case "partial":
		*b = (*b)[:len(*b)/2]
	case "two objects":
		*b = append(*b, *b...)
	case "huge":
		*b = bytes.Repeat([]byte("x"), 10<<20)
	case "silent":
		*b = nil
	case "exit":
		fmt.Fprintf(os.Stderr, "the token %s\n has \x1b[2Jended", base64.StdEncoding.EncodeToString(q.Key))
		os.Exit(3)
	case "hang":
		p.child()
		time.Sleep(10 * time.Minute)
	case "child":
		p.child()
	case "another protocol":
		*b = bytes.Replace(*b, []byte(`"holdfast-holder":"1"`), []byte(`"holdfast-holder":"2"`), 1)
	case "odd error":
		*b = []byte(`{"holdfast-holder":"1","error":"oops"}`)
	case "short key":
		*b = []byte(`{"holdfast-holder":"1"}`)
	}
}

// child leaves a process behind that holds the output.
func (p program) child() {
	c := exec.Command(os.Args[0], "child")
	c.Stdout = os.Stdout
	if err := c.Start(); err == nil {
		os.WriteFile(filepath.Join(p.dir, "child"), []byte(strconv.Itoa(c.Process.Pid)), 0o600)
	}
}

func (p program) file(q asked, n uint64) string {
	return filepath.Join(p.dir, q.Keyring+"."+strconv.FormatUint(n, 10))
}

func (p program) held(q asked) []uint64 {
	out := []uint64{}
	names, _ := filepath.Glob(filepath.Join(p.dir, q.Keyring+".*"))
	for _, name := range names {
		if n, err := strconv.ParseUint(filepath.Ext(name)[1:], 10, 64); err == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

type object = map[string]any

func (p program) answer(q asked) (object, int) {
	key := func(n uint64) (seal.Key, bool) {
		b, err := os.ReadFile(p.file(q, n))
		if err != nil || len(b) != len(seal.Key{}) {
			return seal.Key{}, false
		}
		return seal.Key(b), true
	}
	switch q.Do {
	case "describe":
		return object{"protocols": []string{"1"}, "about": "a program for tests"}, 0
	case "evidence":
		return p.evidence(q), 0
	case "prepare":
		if _, ok := key(q.Generation); ok && p.lie != "draws again" {
			return object{}, 0
		}
		k := seal.NewKey()
		temp := filepath.Join(p.dir, "temp")
		if os.WriteFile(temp, k[:], 0o600) != nil || os.Rename(temp, p.file(q, q.Generation)) != nil {
			return object{"error": "unavailable"}, 0
		}
		return object{}, 0
	case "wrap":
		k, ok := key(q.Generation)
		if !ok {
			return object{"error": "gone"}, 0
		}
		return object{"box": p.box(k, q)}, 0
	case "unwrap":
		return p.unwrap(q, key)
	case "destroy":
		if p.lie == "keeps all" {
			return object{}, 0
		}
		for _, n := range p.held(q) {
			if n < q.Below && p.lie == "keeps a copy" {
				os.Rename(p.file(q, n), filepath.Join(p.dir, fmt.Sprintf("copy-%s-%d", q.Keyring, n)))
			} else if n < q.Below || p.lie == "destroys all" {
				os.Remove(p.file(q, n))
			}
		}
		return object{}, 0
	}
	return object{"error": "unavailable"}, 0
}

func (p program) evidence(q asked) object {
	held := p.held(q)
	switch {
	case p.lie == "descending":
		slices.Reverse(held)
	case p.lie == "forgets" && len(held) > 0:
		held = held[:len(held)-1]
	case p.lie == "no list":
		return object{}
	}
	return object{"generations": held, "evidence": []byte("log entry 7")}
}

func (p program) place(q asked) []byte {
	if p.lie == "any generation" || p.lie == "any keyring" {
		return nil
	}
	return fmt.Appendf(nil, "%s %d", q.Keyring, q.Generation)
}

// stream is encryption without authentication.
func stream(k seal.Key, b []byte) []byte {
	c, _ := aes.NewCipher(k[:])
	out := make([]byte, len(b))
	cipher.NewCTR(c, make([]byte, 16)).XORKeyStream(out, b)
	return out
}

func gcm(k seal.Key) cipher.AEAD {
	c, _ := aes.NewCipher(k[:])
	a, _ := cipher.NewGCMWithRandomNonce(c)
	return a
}

// common is a wrapping key that every generation has.
func common(p program) seal.Key { return seal.Key([]byte("0123456789abcdef0123456789abcdef")) }

func (p program) box(k seal.Key, q asked) []byte {
	switch p.lie {
	case "in clear":
		return append([]byte("box "), q.Key...)
	case "in base64":
		return base64.StdEncoding.AppendEncode(nil, q.Key)
	case "no authentication":
		return stream(k, q.Key)
	case "any generation", "any keyring":
		k = common(p)
	}
	return gcm(k).Seal(nil, nil, q.Key, p.place(q))
}

func (p program) unwrap(q asked, key func(uint64) (seal.Key, bool)) (object, int) {
	k, ok := key(q.Generation)
	if b, err := os.ReadFile(filepath.Join(p.dir, fmt.Sprintf("copy-%s-%d", q.Keyring, q.Generation))); err == nil {
		k, ok = seal.Key(b), true
	}
	switch {
	case p.lie == "any generation":
		k, ok = common(p), true
	case p.lie == "any keyring" && ok:
		k = common(p)
	case !ok && p.lie == "fails for gone":
		return object{}, 1
	case !ok:
		return object{"error": "gone"}, 0
	case p.lie == "no authentication":
		return object{"key": stream(k, q.Box)}, 0
	case p.lie == "another key":
		k := seal.NewKey()
		return object{"key": k[:]}, 0
	}
	plain, err := gcm(k).Open(nil, nil, q.Box, p.place(q))
	if err != nil {
		return object{"error": "denied"}, 0
	}
	return object{"key": plain}, 0
}
