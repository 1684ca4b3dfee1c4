package journal

// Disk is the one folder that a File lives in, as far as File needs it. OpenFile
// takes one of the operating system; simulations have one that loses power.
type Disk interface {
	// List names the files of the folder.
	List() ([]string, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (DiskFile, error)
	// Create makes a file of zeros of this size, allocated and synced, in place of
	// one of the same name. If it fails, no such file remains.
	Create(name string, size int64) (DiskFile, error)
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes what was created, renamed and removed durable.
	Sync() error
	// Path is what an operator calls the file; of "" the folder.
	Path(name string) string
}

// DiskFile is an open file of a Disk.
type DiskFile interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Sync makes what was written durable.
	Sync() error
	Size() (int64, error)
	Close() error
}
