package packaging

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// File is one file, or folder, of an archive.
type File struct {
	Name string // with slashes; a folder's ends with one
	Mode int64
	Data []byte
	UID  int // and GID
}

// WriteTar writes a tar that is the same bytes for the same files: sorted, all of
// one time, of numeric owners.
func WriteTar(w io.Writer, files []File, at time.Time) error {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	t := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data)), ModTime: at.UTC().Truncate(time.Second), Uid: f.UID, Gid: f.UID, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}
		if strings.HasSuffix(f.Name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		if _, err := t.Write(f.Data); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
	}
	return t.Close()
}

// WriteTarGz is WriteTar, compressed, without a name or time in the header.
func WriteTarGz(w io.Writer, files []File, at time.Time, level int) error {
	z, err := gzip.NewWriterLevel(w, level)
	if err != nil {
		return err
	}
	if err := WriteTar(z, files, at); err != nil {
		return err
	}
	return z.Close()
}

// Tree reads the files below a folder of the disk, to lie below prefix. Those in a
// folder bin may be executed.
func Tree(dir, prefix string) (files []File, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if info, err := d.Info(); err == nil && info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		files = append(files, File{Name: prefix + filepath.ToSlash(rel), Mode: mode, Data: data})
		return nil
	})
	return files, err
}

// Image is one platform's program in a container image.
type Image struct {
	Architecture, Variant string // amd64, arm64; arm and v7
	Binary                []byte
}

// What the image runs as, and where; Containerfile says the same.
const (
	ImageUser    = 65532
	imageData    = "/data"
	imageRootKey = "/keys"
)

// WriteImage writes an image of all platforms as an OCI layout in a tar, for
// `podman load`, `docker load` and `skopeo copy oci-archive:`: the same bytes each
// time.
func WriteImage(w io.Writer, p Product, images []Image, level int) error {
	var files []File
	blob := func(media string, data []byte) map[string]any {
		sum := sha256.Sum256(data)
		files = append(files, File{Name: "blobs/sha256/" + hex.EncodeToString(sum[:]), Mode: 0o644, Data: data})
		return map[string]any{"mediaType": media, "digest": "sha256:" + hex.EncodeToString(sum[:]), "size": len(data)}
	}
	marshal := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // maps of texts and numbers
		}
		return b
	}
	created := p.Time.UTC().Format(time.RFC3339)
	var manifests []any
	for _, i := range images {
		var plain, packed strings.Builder
		layer := []File{
			{Name: "holdfast", Mode: 0o755, Data: i.Binary},
			{Name: "data/", Mode: 0o700, UID: ImageUser}, {Name: "keys/", Mode: 0o700, UID: ImageUser}, {Name: "tmp/", Mode: 0o1777},
		}
		if err := WriteTar(&plain, layer, p.Time); err != nil {
			return err
		}
		z, err := gzip.NewWriterLevel(&packed, level)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(z, plain.String()); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		diff := sha256.Sum256([]byte(plain.String()))
		platform := map[string]any{"os": "linux", "architecture": i.Architecture}
		config := map[string]any{
			"os": "linux", "architecture": i.Architecture, "created": created,
			"config": map[string]any{
				"User": fmt.Sprintf("%d:%d", ImageUser, ImageUser), "Entrypoint": []string{"/holdfast"}, "Cmd": ServeArguments(),
				"ExposedPorts": map[string]any{"8443/tcp": map[string]any{}, "8444/tcp": map[string]any{}, "8883/tcp": map[string]any{}},
				"Volumes":      map[string]any{imageData: map[string]any{}, imageRootKey: map[string]any{}},
				"StopSignal":   "SIGTERM",
				"Labels": map[string]string{
					"org.opencontainers.image.title": p.Name, "org.opencontainers.image.version": p.Version, "org.opencontainers.image.revision": p.Commit,
					"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.source": "https://github.com/holdfast-iot/holdfast",
				},
			},
			"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(diff[:])}},
			"history": []any{map[string]any{"created": created, "created_by": "./release"}},
		}
		if i.Variant != "" {
			config["variant"], platform["variant"] = i.Variant, i.Variant
		}
		manifest := blob("application/vnd.oci.image.manifest.v1+json", marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": blob("application/vnd.oci.image.config.v1+json", marshal(config)),
			"layers": []any{blob("application/vnd.oci.image.layer.v1.tar+gzip", []byte(packed.String()))},
		}))
		manifest["platform"] = platform
		manifests = append(manifests, manifest)
	}
	index := blob("application/vnd.oci.image.index.v1+json", marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}))
	index["annotations"] = map[string]string{"org.opencontainers.image.ref.name": p.Version, "io.containerd.image.name": "localhost/holdfast:" + p.Version}
	files = append(files,
		File{Name: "oci-layout", Mode: 0o644, Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		File{Name: "index.json", Mode: 0o644, Data: marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{index}})})
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	files = slices.CompactFunc(files, func(a, b File) bool { return a.Name == b.Name })
	return WriteTar(w, files, p.Time)
}

// ServeArguments is what the image runs if it is told nothing else.
func ServeArguments() []string {
	return []string{"serve", "--data", "/data/hub", "--listen-api", ":8443", "--listen-device", ":8444", "--listen-mqtt", ":8883"}
}
