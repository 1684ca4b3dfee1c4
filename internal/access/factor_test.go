package access

import (
	"encoding/base32"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/holdfast-iot/holdfast"
)

// withFactor gives a person a second factor and returns its secret and recovery codes.
func (h *house) withFactor(p Principal) (secret string, recovery []string) {
	h.t.Helper()
	f, err := h.AddFactor(h.t.Context(), p)
	if err != nil {
		h.t.Fatal(err)
	}
	if !strings.HasPrefix(f.URL, "otpauth://totp/Holdfast:") || !strings.Contains(f.URL, f.Secret) {
		h.t.Error("the URL is not one")
	}
	recovery, err = h.ConfirmFactor(h.t.Context(), p, h.code(f.Secret))
	if err != nil {
		h.t.Fatal(err)
	}
	h.advance(codeStep * time.Second)
	return f.Secret, recovery
}

func (h *house) code(secret string) string {
	h.t.Helper()
	c, err := totp.GenerateCode(secret, h.time())
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// wrongCode is none of those that would be taken now.
func (h *house) wrongCode(secret string) string {
	var near []string
	for d := -2; d <= 2; d++ {
		c, err := totp.GenerateCode(secret, h.time().Add(time.Duration(d)*codeStep*time.Second))
		if err != nil {
			h.t.Fatal(err)
		}
		near = append(near, c)
	}
	for n := 0; ; n++ {
		if c := strconv.Itoa(100_000 + n); !slices.Contains(near, c) {
			return c
		}
	}
}

// A newcomer with the owner's second factor need not wait.
func TestASecondFactorSettles(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	secret, _ := h.withFactor(anna)
	reset := h.redeem(h.admin, anna.Party)
	h.settles("after a reset", reset, false)
	code := h.code(secret)
	shown, err := h.Show(t.Context(), reset, code)
	if err != nil {
		t.Fatal(err)
	}
	h.settles("with a code", shown, true)
	_, err = h.Show(t.Context(), reset, code)
	wantKind(t, "the code again", err, holdfast.Denied)
	_, err = h.Show(t.Context(), h.addedBy(reset), code)
	wantKind(t, "the code again, by another credential", err, holdfast.Denied)
	if _, err := h.Show(t.Context(), h.addedBy(reset), " "+h.codeAt(secret, codeStep)[:3]+" "+h.codeAt(secret, codeStep)[3:]); err != nil {
		t.Errorf("the next code, with a space: %v", err)
	}
	_, err = h.Show(t.Context(), reset, h.codeAt(secret, 0))
	wantKind(t, "an older code than the newest taken", err, holdfast.Denied)
	h.advance(3 * codeStep * time.Second)
	_, err = h.Show(t.Context(), reset, h.codeAt(secret, -2*codeStep))
	wantKind(t, "a code of a minute ago", err, holdfast.Denied)
	h.restart()
	h.advance(codeStep * time.Second)
	if _, err := h.Show(t.Context(), reset, h.code(secret)); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func (h *house) codeAt(secret string, seconds int) string {
	h.t.Helper()
	c, err := totp.GenerateCode(secret, h.time().Add(time.Duration(seconds)*time.Second))
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// For five minutes the credential that it was shown with counts, and no other.
func TestACodeCountsForAWhile(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	secret, _ := h.withFactor(anna)
	code, _, err := h.Invite(t.Context(), h.admin, anna.Party)
	if err != nil {
		t.Fatal(err)
	}
	m, err := h.Redeem(t.Context(), Redemption{Code: code})
	if err != nil {
		t.Fatal(err)
	}
	reset := h.must(m.Token)
	other := h.redeem(h.admin, anna.Party)
	if _, err := h.Show(t.Context(), reset, h.code(secret)); err != nil {
		t.Fatal(err)
	}
	h.settles("the next request", h.must(m.Token), true)
	h.settles("another credential", h.again(other), false)
	h.advance(shownFor)
	h.settles("five minutes later", h.must(m.Token), false)
	h.settles("made while it counted", reset, false)
}

// Two requests at once with one code: one is taken.
func TestOneCodeIsTakenOnce(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	secret, recovery := h.withFactor(anna)
	for _, code := range []string{h.code(secret), recovery[0]} {
		var wg sync.WaitGroup
		var mu sync.Mutex
		taken := 0
		for range 8 {
			wg.Go(func() {
				if _, err := h.Show(t.Context(), anna, code); err == nil {
					mu.Lock()
					taken++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if taken != 1 {
			t.Errorf("a code was taken %d times", taken)
		}
	}
}

// Guesses are slowed whatever credential they come with; the owner has ways around.
func TestGuessingCodes(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	secret, recovery := h.withFactor(anna)
	thief := h.redeem(h.admin, anna.Party)
	for i := range freeFailures {
		p := thief
		if i%2 == 1 { // another credential is no fresh start
			p = h.addedBy(thief)
		}
		_, err := h.Show(t.Context(), p, h.wrongCode(secret))
		wantKind(t, "a guess", err, holdfast.Denied)
	}
	for range 3 {
		_, err := h.Show(t.Context(), thief, h.code(secret))
		wantKind(t, "even a right code while it is locked", err, holdfast.Unavailable)
	}
	h.restart()
	_, err := h.Show(t.Context(), thief, h.code(secret))
	wantKind(t, "after a restart", err, holdfast.Unavailable)
	if _, err := h.Show(t.Context(), thief, strings.ToLower(recovery[1])); err != nil {
		t.Errorf("a recovery code while it is locked: %v", err)
	}
	h.advance(firstLock)
	if _, err := h.Show(t.Context(), anna, h.code(secret)); err != nil {
		t.Errorf("a minute later: %v", err)
	}

	guesses, began := 0, h.time()
	for h.time().Sub(began) < settleAfter {
		_, err := h.Show(t.Context(), thief, h.wrongCode(secret))
		if holdfast.KindOf(err) == holdfast.Denied {
			guesses++
		} else {
			f, err := h.factorOf(t.Context(), anna)
			if err != nil {
				t.Fatal(err)
			}
			h.advance(time.Unix(0, f.locked).Sub(h.time())) // the moment that the next one is looked at
		}
	}
	if guesses > 200 {
		t.Errorf("%d guesses in a week", guesses)
	}
	_, err = h.Show(t.Context(), thief, recovery[1])
	wantKind(t, "a recovery code again", err, holdfast.Denied)
	used := record[FactorChanged](h, anna.Party, "recovery code used")
	if len(used) != 1 || used[0].Left != recoveryCodes-1 || used[0].By != thief.Credential {
		t.Errorf("on record: %+v", used)
	}
}

func TestWhoMayHaveASecondFactor(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	reset := h.redeem(h.admin, anna.Party)
	_, err := h.AddFactor(t.Context(), reset)
	wantKind(t, "who came by a reset", err, holdfast.Denied)
	_, err = h.Show(t.Context(), reset, "123456")
	wantKind(t, "where there is none", err, holdfast.Denied)
	program := h.must(h.program(dashboard(anna.Party)).Token)
	_, err = h.AddFactor(t.Context(), program)
	wantKind(t, "a program", err, holdfast.Denied)
	_, err = h.Show(t.Context(), program, "123456")
	wantKind(t, "a program's code", err, holdfast.Denied)
	readOnly := anna
	readOnly.Scopes = ScopeRead
	_, err = h.AddFactor(t.Context(), readOnly)
	wantKind(t, "who may not write", err, holdfast.Denied)

	pending, err := h.AddFactor(t.Context(), anna)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Show(t.Context(), reset, h.code(pending.Secret))
	wantKind(t, "one that is not confirmed", err, holdfast.Denied)
	_, err = h.ConfirmFactor(t.Context(), reset, h.code(pending.Secret))
	wantKind(t, "confirmed by who came by a reset", err, holdfast.Denied)
	_, err = h.ConfirmFactor(t.Context(), anna, h.wrongCode(pending.Secret))
	wantKind(t, "confirmed with a wrong code", err, holdfast.Denied)
	secret, recovery := h.withFactor(anna) // replaces what was not confirmed
	if len(recovery) != recoveryCodes || secret == pending.Secret {
		t.Errorf("%d recovery codes", len(recovery))
	}
	_, err = h.AddFactor(t.Context(), anna)
	wantKind(t, "a second one", err, holdfast.Conflict)
	wantKind(t, "removed by who came by a reset", h.RemoveFactor(t.Context(), reset), holdfast.Denied)
	for _, s := range append(recovery, secret) {
		if in := h.find(s); len(in) > 0 {
			t.Errorf("a secret stands in clear in %s", in)
		}
	}

	// Two administrators of one party have one each.
	m, err := h.Add(t.Context(), h.admin, Spec{Label: "zoe", Party: h.organisation, Role: Administrator}, nil)
	if err != nil {
		t.Fatal(err)
	}
	zoe := h.must(m.Token)
	zoes, _ := h.withFactor(zoe)
	if has, _, err := h.Factor(t.Context(), h.admin); has || err != nil {
		t.Errorf("the other administrator has one: %v", err)
	}
	_, err = h.Show(t.Context(), h.admin, h.code(zoes))
	wantKind(t, "another administrator's code", err, holdfast.Denied)
	renewed, err := h.Renew(t.Context(), zoe, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Show(t.Context(), h.must(renewed.Token), h.code(zoes)); err != nil {
		t.Errorf("her renewed credential: %v", err)
	}

	if err := h.RemoveFactor(t.Context(), anna); err != nil {
		t.Fatal(err)
	}
	_, err = h.Show(t.Context(), reset, recovery[0])
	wantKind(t, "a recovery code of a removed factor", err, holdfast.Denied)
	if n := len(record[FactorChanged](h, anna.Party, "second factor added")) + len(record[FactorChanged](h, anna.Party, "second factor removed")); n != 2 {
		t.Errorf("%d entries on record", n)
	}
}

func TestErasedPartyLeavesNoFactor(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	h.withFactor(anna)
	if err := h.Erase(t.Context(), holdfast.Scope{Party: anna.Party, Whole: true}); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"access_factor", "access_recovery"} {
		if n := h.count(table); n != 0 {
			t.Errorf("%d rows in %s", n, table)
		}
	}
}

// The test vectors of RFC 6238, appendix B, for SHA-1; their last six digits.
func TestCodesAreThoseOfTheStandard(t *testing.T) {
	h := build(t)
	anna, _ := h.owner()
	f := h.known(anna, "12345678901234567890")
	for at, code := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		now := time.Unix(at, 0)
		if step, err := h.checkCode(t.Context(), anna, f, code, now); err != nil || step != at/codeStep {
			t.Errorf("at %d: step %d, %v", at, step, err)
		}
		if _, err := h.checkCode(t.Context(), anna, f, code, now.Add(2*codeStep*time.Second)); err == nil {
			t.Errorf("at %d: taken a minute later", at)
		}
	}
	for _, code := range []string{"", "28708", "2870822", "28708２", "+87082", "287082\x00", strings.Repeat("1", 1000)} {
		_, err := h.checkCode(t.Context(), anna, f, code, time.Unix(59, 0))
		wantKind(t, "no code", err, holdfast.Denied)
	}
}

// known gives a person a factor with a given secret.
func (h *house) known(p Principal, secret string) *factor {
	h.t.Helper()
	holder := factorHolder(p)
	text := base32.StdEncoding.EncodeToString([]byte(secret))
	box, err := h.vault.SealField(h.t.Context(), keeper(p.Role, p.Party), factorTable, holder[:], "secret", []byte(text))
	if err != nil {
		h.t.Fatal(err)
	}
	return &factor{holder: holder, party: p.Party, state: factorConfirmed, box: box}
}

// A foreign program makes the codes: oathtool, of Debian.
func TestCodesOfOathtool(t *testing.T) {
	tool, err := exec.LookPath("oathtool")
	if err != nil {
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skip("oathtool is not installed and HOLDFAST_NO_TOOLS=1: nobody but ourselves has made these codes")
		}
		t.Fatal("oathtool is not installed: install it, or set HOLDFAST_NO_TOOLS=1 to leave this test out")
	}
	h := build(t)
	anna, _ := h.owner()
	secret, _ := h.withFactor(anna)
	at := h.time().UTC().Format("2006-01-02 15:04:05 UTC")
	out, err := exec.CommandContext(t.Context(), tool, "--totp", "--base32", "--now", at, secret).Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Show(t.Context(), h.redeem(h.admin, anna.Party), strings.TrimSpace(string(out))); err != nil {
		t.Errorf("a code of oathtool: %v", err)
	}
}
