package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"
)

const (
	manifestSchema   = 1
	manifestBytesMax = 64 << 10
)

// manifest is what is recorded of a name, as JSON in manifests/<name>.json.
type manifest struct {
	Schema     int       `json:"schema"`
	Name       Name      `json:"name"`
	Digest     Digest    `json:"digest"`
	DigestFrom string    `json:"digest_from"`
	SizeBytes  int64     `json:"size"`
	Licence    Licence   `json:"licence"`
	Source     string    `json:"source"`
	PulledAt   time.Time `json:"pulled_at"`
	Template   string    `json:"template,omitempty"`
}

func manifestPath(n Name) string { return path.Join(manifestsDir, n.file()+".json") }
func templatePath(n Name) string { return path.Join(manifestsDir, n.file()+".jinja") }
func blobPath(d Digest) string   { return path.Join(blobsDir, "sha256-"+d.hex) }

// parseManifest checks the JSON of name. Errors: ErrTooNew, ErrDamaged.
func parseManifest(data []byte, name Name) (manifest, error) {
	damaged := func(err error) (manifest, error) { return manifest{}, damagedEntry(name, err) }
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return damaged(err)
	}
	if head.Schema > manifestSchema {
		return manifest{}, &Error{
			Kind: ErrTooNew, Name: name.String(), Hint: "update norion",
			Err: fmt.Errorf("manifest schema %d, known %d", head.Schema, manifestSchema),
		}
	}
	var m manifest
	if err := strictJSON(data, &m); err != nil {
		return damaged(err)
	}
	switch {
	case m.Schema != manifestSchema:
		return damaged(fmt.Errorf("schema %d", m.Schema))
	case m.Name != name:
		return damaged(fmt.Errorf("it names %s", clip(m.Name.String())))
	case m.Digest.IsZero():
		return damaged(errors.New("digest is missing"))
	case m.SizeBytes <= 0 || m.SizeBytes > ModelBytesMax:
		return damaged(fmt.Errorf("size %d", m.SizeBytes))
	}
	return m, nil
}

func damagedEntry(n Name, err error) error {
	return &Error{
		Kind: ErrDamaged, Name: n.String(), Err: err,
		Hint: fmt.Sprintf("remove and pull it again: norion rm %s", n),
	}
}

// readManifest returns fs.ErrNotExist, ErrTooNew or ErrDamaged.
func (s *Store) readManifest(n Name) (manifest, error) {
	data, err := s.readSmall(manifestPath(n), manifestBytesMax)
	if errors.Is(err, errStrange) {
		err = damagedEntry(n, err)
	}
	if err != nil {
		return manifest{}, err
	}
	return parseManifest(data, n)
}

// read returns the model of a manifest whose blob is there with the recorded size. Errors:
// fs.ErrNotExist when there is no manifest, ErrTooNew, ErrDamaged.
func (s *Store) read(n Name) (Model, error) {
	mf, err := s.readManifest(n)
	if err != nil {
		return Model{}, err
	}
	m := Model{
		Name: mf.Name, Path: s.dir.Path(blobPath(mf.Digest)), Digest: mf.Digest,
		DigestFrom: mf.DigestFrom, SizeBytes: mf.SizeBytes, Licence: mf.Licence,
		Source: mf.Source, PulledAt: mf.PulledAt, TemplateName: mf.Template,
	}
	if err := s.checkBlob(mf); err != nil {
		return m, &Error{
			Kind: ErrDamaged, Name: n.String(), Err: err,
			Hint: fmt.Sprintf("pull it again: norion pull %s", n),
		}
	}
	m.Template = s.template(n, mf.Template)
	return m, nil
}

// checkBlob hides the cause of a missing blob, so that it is not taken for a missing manifest.
func (s *Store) checkBlob(mf manifest) error {
	fi, err := s.dir.Lstat(blobPath(mf.Digest))
	switch {
	case err != nil:
		return errors.New("its file: " + err.Error())
	case !fi.Mode().IsRegular():
		return errors.New("its file is not a regular file")
	case fi.Size() != mf.SizeBytes:
		return fmt.Errorf("its file has %d bytes, recorded are %d", fi.Size(), mf.SizeBytes)
	}
	return nil
}

// template returns the text that was stored with the model, or else what Options.Templates has.
func (s *Store) template(n Name, name string) string {
	if name == "" {
		return ""
	}
	if data, err := s.readSmall(templatePath(n), templateBytesMax); err == nil {
		return string(data)
	}
	return s.lookupTemplate(name)
}

func (s *Store) lookupTemplate(name string) string {
	if s.o.Templates == nil {
		return ""
	}
	text, err := s.o.Templates(name)
	if err != nil || len(text) > templateBytesMax {
		s.o.Log.Warn("chat template not available", "template", name, "error", err)
		return ""
	}
	return text
}

// errStrange says that a file of the store is not what was written here.
const errStrange = Kind("not written by norion")

// readSmall reads a regular file of at most limit bytes. Errors: errStrange, a disk error.
func (s *Store) readSmall(name string, limit int64) ([]byte, error) {
	fi, err := s.dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: not a regular file", name, errStrange)
	}
	f, err := s.dir.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", name, errStrange, limit)
	}
	return data, nil
}

// writeSmall makes name hold data, all or nothing, also through a power cut.
func (s *Store) writeSmall(name string, data []byte) error {
	tmp := name + ".tmp"
	f, err := s.dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.dir.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, s.discard(tmp))
	}
	return s.dir.SyncDir(path.Dir(name))
}

// discard removes a file that may be missing.
func (s *Store) discard(name string) error {
	if err := s.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
