package journal

// disk is the one folder that a File lives in, as far as File needs it. The real
// one is osDisk; the tests have one that loses power.
type disk interface {
	// List names the files of the folder.
	List() ([]string, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (file, error)
	// Create makes a file of zeros of this size, allocated and synced, in place of
	// one of the same name. If it fails, no such file remains.
	Create(name string, size int64) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes what was created, renamed and removed durable.
	Sync() error
	// Path is what an operator calls the file; of "" the folder.
	Path(name string) string
}

// file is an open file of a disk.
type file interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Sync makes what was written durable.
	Sync() error
	Size() (int64, error)
	Close() error
}
