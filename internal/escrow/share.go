package escrow

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/holdfast-iot/holdfast"
)

// Share is one shareholder's.
type Share struct {
	Hub        string
	Deal       ID
	Number, Of int // 1 to Of
	Threshold  int
	Name       string
	Made       time.Time
	X          byte           // Shamir's point
	Y          [seedSize]byte // and its value
	Code       Code
}

// Code is the word by which a shareholder says that the share was destroyed.
type Code [16]byte

func (c Code) String() string { return encoding.EncodeToString(c[:]) }

// ParseCode reads what String wrote.
func ParseCode(text string) (c Code, err error) {
	raw, err := encoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(raw) != len(c) {
		return c, holdfast.Errorf(holdfast.Invalid, "not the code of a share: it has 26 letters and digits")
	}
	return Code(raw), nil
}

func codeDigest(c Code) Digest {
	return sha256.Sum256(append([]byte("holdfast recovery code 1\x00"), c[:]...))
}

const shareHeader = "holdfast recovery share 1"

// Text is the share as it is written down. Its last line finds slips of the pen.
func (s Share) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nhub %s\ndeal %s\nshare %d of %d, %d are needed\nfor %s\nmade %s\nx %d\ny %s\ncode %s\n", shareHeader, s.Hub, s.Deal, s.Number, s.Of, s.Threshold,
		s.Name, s.Made.UTC().Format(time.RFC3339), s.X, base64.StdEncoding.EncodeToString(s.Y[:]), s.Code)
	fmt.Fprintf(&b, "check %s\n", checksum(b.String()))
	return b.String()
}

func checksum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("%x", sum[:4])
}

// Commitment is what Public has of it.
func (s Share) Commitment() Digest {
	text := s.Text()
	return sha256.Sum256([]byte("holdfast recovery commitment 1\x00" + text[:strings.LastIndex(text, "\ncode ")+1]))
}

// Is reports whether the share is the one that the deal gave to this shareholder.
func (s Share) Is(p Public) bool {
	return s.Deal == p.ID && s.Number >= 1 && s.Number <= len(p.Shareholders) && p.Shareholders[s.Number-1].Share == s.Commitment()
}

// maxShareText bounds what is read as a share, and as an age file of one.
const maxShareText = 64 << 10

// ParseShare reads what Text wrote.
func ParseShare(text string) (s Share, err error) {
	damaged := holdfast.Errorf(holdfast.Invalid, "the share is damaged or was not copied whole: compare it with the original, line by line")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	if header, _, _ := strings.Cut(text, "\n"); header != shareHeader {
		return s, holdfast.Errorf(holdfast.Invalid, "not a recovery share of Holdfast")
	}
	var deal, made, y, code string
	lines := strings.Split(text, "\n")
	if len(lines) != 11 || len(text) > maxShareText {
		return s, damaged
	}
	for i, to := range []*string{&s.Hub, &deal, nil, &s.Name, &made, nil, &y, &code} {
		if to == nil {
			continue
		}
		value, ok := strings.CutPrefix(lines[i+1], []string{"hub ", "deal ", "", "for ", "made ", "", "y ", "code "}[i])
		if !ok {
			return s, damaged
		}
		*to = value
	}
	if n, err := fmt.Sscanf(lines[3], "share %d of %d, %d are needed", &s.Number, &s.Of, &s.Threshold); n != 3 || err != nil {
		return s, damaged
	}
	x, err := strconv.ParseUint(strings.TrimPrefix(lines[6], "x "), 10, 8)
	if err != nil || s.Deal.UnmarshalText([]byte(deal)) != nil {
		return s, damaged
	}
	s.X = byte(x)
	raw, err := base64.StdEncoding.DecodeString(y)
	if err != nil || len(raw) != len(s.Y) {
		return s, damaged
	}
	copy(s.Y[:], raw)
	clear(raw)
	if s.Code, err = ParseCode(code); err != nil {
		return s, damaged
	}
	if s.Made, err = time.Parse(time.RFC3339, made); err != nil {
		return s, damaged
	}
	if s.Text() != text {
		return s, damaged
	}
	if s.X == 0 || s.Of < MinThreshold || s.Of > MaxShares || s.Threshold < MinThreshold || s.Threshold > s.Of || s.Number < 1 || s.Number > s.Of {
		return s, damaged
	}
	return s, nil
}

// Encrypt writes the share as an armored age file.
func (s Share) Encrypt(w io.Writer, to age.Recipient) error {
	a := armor.NewWriter(w)
	e, err := age.Encrypt(a, to)
	if err != nil {
		return fmt.Errorf("encrypt share: %w", err)
	}
	if _, err := io.WriteString(e, s.Text()); err != nil {
		return fmt.Errorf("encrypt share: %w", err)
	}
	if err := e.Close(); err != nil {
		return fmt.Errorf("encrypt share: %w", err)
	}
	return a.Close()
}

// Decrypt reads a share from an age file, armored or not, or from its plain text.
func Decrypt(r io.Reader, with ...age.Identity) (Share, error) {
	in := bufio.NewReader(io.LimitReader(r, maxShareText+1))
	start, _ := in.Peek(len(armor.Header))
	var plain io.Reader = in
	switch armored := string(start) == armor.Header; {
	case bytes.HasPrefix(start, []byte(shareHeader)):
	case !armored && !bytes.HasPrefix(start, []byte("age-encryption.org/")):
		return Share{}, holdfast.Errorf(holdfast.Invalid, "not a recovery share of Holdfast")
	case len(with) == 0:
		return Share{}, holdfast.Errorf(holdfast.Denied, "the share is encrypted: give its passphrase or its age identity")
	default:
		if armored {
			plain = armor.NewReader(in)
		}
		var err error
		if plain, err = age.Decrypt(plain, with...); err != nil {
			return Share{}, holdfast.Errorf(holdfast.Denied, "the share does not open with what was given: another passphrase or identity, or the file is damaged")
		}
	}
	b, err := io.ReadAll(plain)
	defer clear(b)
	if err != nil {
		return Share{}, holdfast.Errorf(holdfast.Invalid, "the share's file is damaged or was cut short")
	}
	return ParseShare(string(b))
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
