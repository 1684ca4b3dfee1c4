package holdfast

// Purpose names why data may be used: a short name that the catalog resolves to
// its IRI, legal basis and retention.
type Purpose string

const (
	// Operation is the operating organisation's use of its own devices. `init`
	// makes it; it can't be ended.
	Operation Purpose = "operation"
	// OwnAccess is an owner's reading of his own data. It needs no grant and
	// nobody else can name it.
	OwnAccess Purpose = "own-access"
)
