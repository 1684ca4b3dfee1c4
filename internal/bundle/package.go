package bundle

import (
	"encoding/hex"
	"encoding/json"
	"path"
	"strings"
	"time"
)

// Package is datapackage.json, a Data Package v2 with one resource per file:
// tools take a resource of several paths for one file cut in pieces, which
// Parquet files are not.
type Package struct {
	Schema    string     `json:"$schema"`
	Name      string     `json:"name"`
	ID        string     `json:"id"`
	Title     string     `json:"title"`
	Created   time.Time  `json:"created"`
	Resources []Resource `json:"resources"`
}

// Resource is a payload file as datapackage.json describes it.
type Resource struct {
	Name      string       `json:"name"`
	Path      string       `json:"path"`
	Format    string       `json:"format"`
	MediaType string       `json:"mediatype"`
	Encoding  string       `json:"encoding,omitempty"`
	Bytes     int64        `json:"bytes"`
	Hash      string       `json:"hash"`
	Schema    *TableSchema `json:"schema,omitempty"`
}

// TableSchema is a Table Schema v2.
type TableSchema struct {
	Fields []Field `json:"fields"`
}

// Field is a column.
type Field struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Description string `json:"description,omitempty"`
}

// NewPackage describes the payload files of the bundle called id.
func NewPackage(id string, created time.Time, files []File) Package {
	p := Package{
		Schema: "https://datapackage.org/profiles/2.0/datapackage.json",
		Name:   "holdfast-" + id, ID: id, Title: "All data of an owner, exported from Holdfast", Created: created.UTC().Truncate(time.Second),
	}
	for _, f := range files {
		name := strings.TrimPrefix(strings.TrimSuffix(f.Name, path.Ext(f.Name)), PayloadFolder)
		r := Resource{Name: strings.ReplaceAll(name, "/", "-"), Path: f.Name, Bytes: f.Size, Hash: "sha256:" + hex.EncodeToString(f.SHA256[:])}
		if strings.HasPrefix(f.Name, receiptsFolder) {
			r.Format, r.MediaType, r.Encoding = "json", "application/ld+json", "utf-8"
		} else if IsPart(f.Name) {
			r.Format, r.MediaType = "parquet", "application/vnd.apache.parquet"
			r.Schema = &TableSchema{Fields: fields()}
		} else {
			r.Format, r.MediaType, r.Encoding = "ndjson", "application/x-ndjson", "utf-8"
		}
		p.Resources = append(p.Resources, r)
	}
	return p
}

// Append appends the file's bytes.
func (p Package) Append(dst []byte) ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	return append(append(dst, b...), '\n'), err
}

// fields describes the columns of the Parquet files.
func fields() []Field {
	return []Field{
		{"device", "string", "id of the device"},
		{"device_name", "string", "its name"},
		{"stream_id", "string", "id of the stream"},
		{"stream", "string", "its name"},
		{"unit", "string", "of the values, if it is known"},
		{"type", "string", "number, integer, boolean, text, bytes or location: the column that holds the value"},
		{"time", "datetime", "of the reading, UTC, nanoseconds"},
		{"seq", "integer", "the device's sequence number, if it gives one"},
		{"marks", "integer", "bits: 1 the device gave no time, 2 its clock was off, 4 sent over TLS 1.2"},
		{"number", "number", "64-bit float, NaN and infinities included"},
		{"integer", "integer", "64-bit signed"},
		{"boolean", "boolean", ""},
		{"text", "string", "UTF-8"},
		{"bytes", "any", "raw bytes"},
		{"latitude", "number", "WGS 84, degrees"},
		{"longitude", "number", "WGS 84, degrees"},
		{"altitude", "number", "metres, if it is known"},
	}
}
