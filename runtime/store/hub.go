package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// fetchHub downloads a file of a repository on the model hub. The hub states the SHA-256 digest
// and the size of a large file in the headers X-Linked-ETag and X-Linked-Size of its own answer,
// before it redirects to where the bytes are.
func (j *job) fetchHub(ctx context.Context, src Source) (fetched, error) {
	rev := src.Revision
	if rev == "" {
		rev = "main"
	}
	if err := checkURL(j.s.o.Hub); err != nil {
		return fetched{}, &Error{
			Kind: ErrRefused, Err: fmt.Errorf("the hub: %w", err),
			Hint: "unset HF_ENDPOINT, or give it an https address",
		}
	}
	t := target{
		url:    j.s.o.Hub + "/" + src.Repository + "/resolve/" + rev + "/" + src.File,
		source: src.String(), token: j.s.o.HubToken, size: j.e.SizeBytes,
	}
	want, size, err := j.askHub(ctx, t)
	if err != nil {
		return fetched{}, err
	}
	if !j.e.SHA256.IsZero() && !want.IsZero() && want != j.e.SHA256 {
		return fetched{}, &Error{
			Kind: ErrDigest, Err: fmt.Errorf("the hub has %s, want %s", want, j.e.SHA256),
			Hint: "the file on the hub has changed; nothing was downloaded",
		}
	}
	t.want = want
	if t.size == 0 {
		t.size = size
	}
	return j.fetchURL(ctx, t)
}

// askHub returns what the hub states about a file; zero values where it states nothing.
func (j *job) askHub(ctx context.Context, t target) (want Digest, size int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, j.s.o.StallTimeout)
	defer cancel()
	req, err := j.s.newRequest(ctx, http.MethodHead, t.url, t.token)
	if err != nil {
		return Digest{}, 0, err
	}
	c := j.s.client()
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		stated := req.Response != nil && req.Response.Header.Get("X-Linked-ETag") != ""
		if stated || req.URL.Host != via[0].URL.Host {
			return http.ErrUseLastResponse
		}
		return checkRedirect(req, via) // a repository that was renamed
	}
	resp, err := c.Do(req)
	if err != nil {
		return Digest{}, 0, sendError(ctx, err)
	}
	if err := resp.Body.Close(); err != nil {
		return Digest{}, 0, sendError(ctx, err)
	}
	if resp.StatusCode >= 400 {
		return Digest{}, 0, statusError(resp)
	}
	tag := strings.Trim(strings.TrimPrefix(resp.Header.Get("X-Linked-ETag"), "W/"), `"`)
	if tag != "" {
		if want, err = ParseDigest(tag); err != nil {
			want = Digest{} // a small file: its tag is a git hash, which is no SHA-256
		}
	}
	if text := resp.Header.Get("X-Linked-Size"); text != "" {
		size, err = strconv.ParseInt(text, 10, 64)
		if err != nil || size <= 0 || size > ModelBytesMax {
			return Digest{}, 0, &Error{
				Kind: ErrRefused, Err: errors.New("the hub states a size out of range"),
			}
		}
	}
	return want, size, nil
}
