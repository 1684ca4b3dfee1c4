package drill

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// held has the other owner ask for his erasure while a claim at law keeps a part. It
// is the last of all: he was the control.
func (d *drill) held(ctx context.Context) {
	kept, err := d.keepsAPart(ctx)
	d.check("held", "of what a claim at law keeps in part, the rest is erased, and the certificate says why it is not all", kept, err)
}

func (d *drill) keepsAPart(ctx context.Context) (string, error) {
	o := d.control
	c, err := d.hub.as(o.token)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := d.hub.admin.Do(ctx, http.MethodPost, "/v1/holds", map[string]any{"kind": "claim", "party": o.party, "devices": []string{o.device}, "streams": []string{o.words["stream of texts"]}, "reason": "a case at court"}, nil); err != nil {
		return "", err
	}
	if err := c.Do(ctx, http.MethodPost, "/v1/erasures", map[string]any{"party": o.party}, nil); err == nil {
		return "", holdfast.Errorf(holdfast.Internal, "what is kept by law was to be erased, and was not refused")
	}
	e, err := finished(ctx, c, map[string]any{"party": o.party, "rest": true})
	if err != nil {
		return "", err
	}
	cert, err := erasure.VerifyCertificate([]byte(e.Certificate), e.Verifier)
	if err != nil {
		return "", err
	}
	var why []string
	for _, k := range cert.Kept {
		why = append(why, string(k))
	}
	if !slices.Contains(why, "claim") {
		return "", holdfast.Errorf(holdfast.Internal, "the certificate does not say that a claim keeps something: %q", why)
	}
	n, text, err := d.readings(ctx, d.hub, o.token, o)
	if err != nil || n != o.sent/8 || strings.Contains(text, o.words["stream of numbers"]) || !strings.Contains(text, o.texts[0]) {
		return "", holdfast.Errorf(holdfast.Internal, "%d readings are left, of %d texts that are kept: %w", n, o.sent/8, err)
	}
	return "kept: " + strings.Join(why, ", "), nil
}
