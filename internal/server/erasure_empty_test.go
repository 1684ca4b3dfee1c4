package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/custody"
)

// A field that is given and empty would be taken for one that is left out, and what is
// erased then is more than was meant: it is refused by its name, and nothing goes.
func TestEmptyFieldsEraseNothing(t *testing.T) {
	s := tell(t, 0)
	anna := s.someone("Anna", custody.Person)
	watch := s.enrolled(anna.Party, "watch")
	s.mustSend(watch.Peer, number("pulse", time.Now().Add(-time.Minute), 60), number("steps", time.Now().Add(-time.Minute), 1))
	for _, field := range []string{"party", "whose", "stream", "category", "assignment", "from", "to", "month", "undo"} {
		body := fmt.Sprintf(`{"device":"watch",%q:""}`, field)
		for _, path := range []string{"/v1/erasures", "/v1/erasures/preview"} {
			if said := s.asks(anna, http.StatusUnprocessableEntity, "POST", path, body, nil); !strings.Contains(said, "body."+field) {
				t.Errorf("%s %s: %s", path, body, said)
			}
		}
	}
	s.house.has(anna.Principal, watch.Peer, "pulse", 1)
	s.house.has(anna.Principal, watch.Peer, "steps", 1)
	if all, err := s.Server.erasure.Erasures(t.Context(), s.admin()); err != nil || len(all) != 0 {
		t.Errorf("%d erasures: %v", len(all), err)
	}
}
