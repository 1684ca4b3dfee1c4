package witness

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast/internal/checkpoint"
)

// Memory keeps what a witness cosigned last, by the log's name.
type Memory interface {
	// Last returns the newest checkpoint that was cosigned, nil if there is none.
	Last(origin string) ([]byte, error)
	// Remember keeps a checkpoint in its place, durably.
	Remember(origin string, signed []byte) error
}

// Server cosigns the checkpoints of the logs it knows.
type Server struct {
	key    *checkpoint.Cosigner
	logs   map[string]string // verifier key by origin
	memory Memory
	mu     sync.Mutex // held from the look at what was cosigned last to its replacement
}

// NewServer makes a witness of the logs with these verifier keys.
func NewServer(key *checkpoint.Cosigner, logs []string, m Memory) (*Server, error) {
	s := &Server{key: key, logs: map[string]string{}, memory: m}
	for _, text := range logs {
		v, err := note.NewVerifier(text)
		if err != nil {
			return nil, fmt.Errorf("the verifier key of a log: %w", err)
		}
		s.logs[v.Name()] = text
	}
	return s, nil
}

// ServeHTTP answers POST /add-checkpoint.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/add-checkpoint" {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST a checkpoint", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, checkpoint.MaxText))
	var asked checkpoint.Consistency
	if err == nil {
		err = asked.UnmarshalText(body)
	}
	if err != nil {
		http.Error(w, "not an add-checkpoint request", http.StatusBadRequest)
		return
	}
	line, last, err := s.add(asked)
	if refused, ok := errors.AsType[refusal](err); ok {
		if refused.status == http.StatusConflict {
			w.Header().Set("Content-Type", sizeType)
			w.WriteHeader(http.StatusConflict)
			fmt.Fprintf(w, "%d\n", last)
			return
		}
		http.Error(w, refused.why, refused.status)
		return
	} else if err != nil {
		http.Error(w, "the witness can't remember now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, line)
}

// refusal is a request that the protocol has a status for.
type refusal struct {
	status int
	why    string
}

func (r refusal) Error() string { return r.why }

// add checks a checkpoint, remembers it, and returns the line that cosigns it; last
// is the size that was cosigned before.
func (s *Server) add(asked checkpoint.Consistency) (line string, last uint64, err error) {
	said, err := checkpoint.Unverified(asked.Note)
	if err != nil {
		return "", 0, refusal{http.StatusBadRequest, "not a checkpoint"}
	}
	key, ok := s.logs[said.Origin]
	if !ok {
		return "", 0, refusal{http.StatusNotFound, "this witness does not know the log"}
	}
	c, err := checkpoint.Parse(asked.Note, key)
	if err != nil {
		return "", 0, refusal{http.StatusForbidden, "the checkpoint is not signed by the log's key"}
	}
	if asked.Old > c.Size {
		return "", 0, refusal{http.StatusBadRequest, "the old size is larger than the checkpoint's"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := checkpoint.Checkpoint{}
	before.Root, _ = tlog.TreeHash(0, nil)
	if kept, err := s.memory.Last(c.Origin); err != nil {
		return "", 0, err
	} else if kept != nil {
		if before, err = checkpoint.Parse(kept, key); err != nil {
			return "", 0, err
		}
	}
	if asked.Old != before.Size || before.Size == c.Size && before.Size > 0 && before.Root != c.Root {
		return "", before.Size, refusal{http.StatusConflict, ""}
	}
	if checkpoint.Grown(asked.Hashes, before.Size, before.Root, c.Size, c.Root) != nil {
		return "", 0, refusal{http.StatusUnprocessableEntity, "the consistency proof does not verify"}
	}
	text := checkpoint.Text(c.Origin, c.Size, c.Root)
	if n, err := note.Open(asked.Note, note.VerifierList(verifierOf(key))); err == nil {
		text = n.Text // with what a log may have added
	}
	signed, err := note.Sign(&note.Note{Text: text}, s.key)
	if err != nil {
		return "", 0, err
	}
	if err := s.memory.Remember(c.Origin, asked.Note); err != nil {
		return "", 0, err
	}
	return string(signed[len(text)+1:]), 0, nil
}

func verifierOf(key string) note.Verifier {
	v, _ := note.NewVerifier(key) // NewServer has read it
	return v
}
