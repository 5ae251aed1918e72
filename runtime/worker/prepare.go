package worker

import "github.com/norion/norion/kv/snapshot"

// prepare makes what a confined child cannot make itself: the directory of its cache, and beside it
// the key. What cannot be made, the engine in the child names.
func (o *Options) prepare() error {
	if o.Engine.CacheDir == "" {
		return nil
	}
	s, err := snapshot.Open(snapshot.Options{
		Dir: o.Engine.CacheDir, DiskBytes: 1, Plain: o.Engine.CachePlain,
	})
	if err != nil {
		return err
	}
	return s.Close()
}
