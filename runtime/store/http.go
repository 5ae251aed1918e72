package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/norion/norion/hw/disk"
)

const (
	redirectsMax     = 10
	attemptsMax      = 5   // requests in a row that bring no byte
	requestsMax      = 100 // requests of one download
	retryDelayMaxMs  = 30_000
	connectTimeoutMs = 30_000
	headerTimeoutMs  = 60_000
	partMetaBytesMax = 16 << 10
)

func defaultClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeoutMs * time.Millisecond}).DialContext,
		TLSHandshakeTimeout:   connectTimeoutMs * time.Millisecond,
		ResponseHeaderTimeout: headerTimeoutMs * time.Millisecond,
		DisableCompression:    true,
		ForceAttemptHTTP2:     true,
	}}
}

// target is one file to download.
type target struct {
	url    string
	source string
	token  string // for the host of url only
	size   int64  // expected bytes, 0 when not known
	want   Digest // stated by the source, or zero
}

// partMeta is kept beside a part file, so that a later pull can tell whether it may continue.
type partMeta struct {
	URL       string `json:"url"`
	Validator string `json:"validator"` // strong ETag or Last-Modified of what the part is of
	SizeBytes int64  `json:"size"`      // of the whole file, 0 when not known
}

// transfer is a download in progress. File, sum and done always agree.
type transfer struct {
	*job
	t        target
	file     disk.File
	sum      hash.Hash
	done     int64
	reserved bool
	meta     partMeta
}

// errRetry marks a failure that another request may cure.
const errRetry = Kind("the request may be repeated")

// fetchURL downloads t into the part file, continuing what is there when the server confirms
// with If-Range that it is still the same file. On failure the part is kept for the next pull,
// except where the server offers something else.
func (j *job) fetchURL(ctx context.Context, t target) (fetched, error) {
	d := &transfer{job: j, t: t, sum: newSum()}
	if err := d.open(ctx); err != nil {
		return fetched{}, err
	}
	err := d.run(ctx)
	f, err := finish(d.file, d.sum, d.done, t.source, err)
	f.want = t.want
	if errors.Is(err, ErrDigest) || errors.Is(err, ErrRefused) {
		err = errors.Join(err, j.discardPart())
	}
	return f, err
}

// open opens the part file and hashes what can be kept of it. A part of unknown origin is
// replaced and never written to: it may be a hard link of a file that is not ours.
func (d *transfer) open(ctx context.Context) (err error) {
	if data, err := d.s.readSmall(d.part+".json", partMetaBytesMax); err == nil {
		if strictJSON(data, &d.meta) != nil {
			d.meta = partMeta{}
		}
	}
	if d.meta.URL != d.t.url || d.meta.Validator == "" {
		d.meta = partMeta{}
		d.file, err = d.createPart()
		return err
	}
	if d.file, err = d.s.dir.OpenFile(d.part, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	d.done, err = copyTo(ctx, d.sum, d.file, nil)
	if err == nil && d.meta.SizeBytes > 0 && d.done > d.meta.SizeBytes {
		err = d.restart(partMeta{})
	}
	if err != nil {
		return errors.Join(err, d.file.Close())
	}
	return nil
}

// restart empties the part file and records what it will hold.
func (d *transfer) restart(m partMeta) error {
	d.meta, d.done = m, 0
	d.sum.Reset()
	if err := d.file.Truncate(0); err != nil {
		return err
	}
	if _, err := d.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if m.Validator == "" {
		return d.s.discard(d.part + ".json")
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return d.s.writeSmall(d.part+".json", data)
}

// run repeats requests until the file is complete.
func (d *transfer) run(ctx context.Context) error {
	delay := d.s.o.RetryDelay
	attempts := 0
	for range requestsMax {
		if d.meta.SizeBytes > 0 && d.done == d.meta.SizeBytes {
			return nil
		}
		before := d.done
		err := d.request(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, errRetry) {
			return err
		}
		if attempts++; d.done > before {
			attempts, delay = 0, d.s.o.RetryDelay
		}
		if attempts >= attemptsMax {
			return err
		}
		d.s.o.Log.Info("download interrupted", "model", d.e.Name.String(), "bytes", d.done,
			"error", err)
		if err := pause(ctx, delay); err != nil {
			return err
		}
		delay = min(2*delay, retryDelayMaxMs*time.Millisecond)
	}
	return network(fmt.Errorf("not complete after %d requests", requestsMax))
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// request makes one request and appends its body. It returns nil when the file is complete.
func (d *transfer) request(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(d.s.o.StallTimeout, func() {
		cancel(fmt.Errorf("nothing arrived for %v", d.s.o.StallTimeout))
	})
	defer stall.Stop()
	req, err := d.s.newRequest(ctx, http.MethodGet, d.t.url, d.t.token)
	if err != nil {
		return err
	}
	if d.done > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.done))
		req.Header.Set("If-Range", d.meta.Validator)
	}
	resp, err := d.s.client().Do(req)
	if err != nil {
		return sendError(ctx, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if err := d.begin(resp); err != nil {
		return err
	}
	return d.receive(ctx, resp.Body, func() { stall.Reset(d.s.o.StallTimeout) })
}

// begin decides from the head of a response where its body belongs.
func (d *transfer) begin(resp *http.Response) error {
	enc := resp.Header.Get("Content-Encoding")
	if enc != "" && !strings.EqualFold(enc, "identity") {
		return &Error{Kind: ErrRefused, Err: fmt.Errorf("the server sends %s data", clip(enc))}
	}
	switch resp.StatusCode {
	case http.StatusOK:
		size := max(0, resp.ContentLength)
		if err := d.restart(partMeta{d.t.url, validator(resp.Header), size}); err != nil {
			return err
		}
	case http.StatusPartialContent:
		if err := d.checkRange(resp.Header); err != nil {
			return errors.Join(d.restart(partMeta{}), retry(err))
		}
	case http.StatusRequestedRangeNotSatisfiable:
		err := errors.New("the server's file is shorter than what is here")
		return errors.Join(d.restart(partMeta{}), retry(err))
	default:
		return statusError(resp)
	}
	return d.checkSize()
}

// checkSize compares what the server will send with what is expected and what there is room for.
func (d *transfer) checkSize() error {
	if d.t.size > 0 && d.meta.SizeBytes > 0 && d.t.size != d.meta.SizeBytes {
		return d.sizeError(d.meta.SizeBytes)
	}
	if d.limit() > ModelBytesMax {
		return &Error{Kind: ErrRefused, Err: fmt.Errorf("more than %d bytes", ModelBytesMax)}
	}
	if d.reserved {
		return nil // asked before the first byte; our own bytes count against it since
	}
	d.reserved = true
	return d.checkRoom(max(0, d.total()-d.done))
}

// total is the size of the file in bytes, 0 when nobody said it.
func (d *transfer) total() int64 { return max(d.t.size, d.meta.SizeBytes) }

// limit is how many bytes may arrive.
func (d *transfer) limit() int64 {
	if n := d.total(); n > 0 {
		return n
	}
	return ModelBytesMax
}

// checkRange accepts a 206 that goes on exactly where the part ends, of the same file.
func (d *transfer) checkRange(h http.Header) error {
	text, ok := strings.CutPrefix(h.Get("Content-Range"), "bytes ")
	span, whole, ok2 := strings.Cut(text, "/")
	first, _, ok3 := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil || from != d.done {
		return fmt.Errorf("content range %s, want from %d", clip(text), d.done)
	}
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil && n != d.meta.SizeBytes {
		return fmt.Errorf("the file has %d bytes now, was %d", n, d.meta.SizeBytes)
	}
	if v := validator(h); v != "" && v != d.meta.Validator {
		return errors.New("the file has changed")
	}
	return nil
}

// validator is the strong ETag of a response, else its Last-Modified, else "" (RFC 9110, 13.1.5).
func validator(h http.Header) string {
	if e := h.Get("ETag"); strings.HasPrefix(e, `"`) {
		return e
	}
	return h.Get("Last-Modified")
}

// receive appends the body to the part file.
func (d *transfer) receive(ctx context.Context, body io.Reader, alive func()) error {
	d.report(StageDownload, d.done, d.total())
	buf := make([]byte, copyBytes)
	for {
		if ctx.Err() != nil {
			return sendError(ctx, ctx.Err())
		}
		n, err := body.Read(buf)
		if n > 0 {
			alive()
			if int64(n) > d.limit()-d.done {
				return &Error{Kind: ErrRefused, Err: errors.New("more bytes than announced")}
			}
			w, werr := d.file.Write(buf[:n])
			d.sum.Write(buf[:w])
			d.done += int64(w)
			if werr != nil {
				return werr
			}
			d.report(StageDownload, d.done, d.total())
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return sendError(ctx, err)
		}
	}
	n := d.total()
	switch {
	case n == 0 || d.done == n:
		return nil
	case d.meta.SizeBytes == 0: // the server never said how much, and ended properly
		return d.sizeError(d.done)
	default:
		return retry(fmt.Errorf("the body ended at byte %d of %d", d.done, n))
	}
}

func (d *transfer) sizeError(have int64) error {
	return &Error{
		Kind: ErrDigest, Err: fmt.Errorf("the source has %d bytes, want %d", have, d.t.size),
		Hint: "the source has changed; nothing was kept",
	}
}

// newRequest makes a request that asks for the bytes as they are.
func (s *Store) newRequest(
	ctx context.Context, method, link, token string,
) (*http.Request, error) {
	if err := checkURL(link); err != nil {
		return nil, &Error{Kind: ErrRefused, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, method, link, nil)
	if err != nil {
		return nil, &Error{Kind: ErrRefused, Err: err}
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "norion")
	if !printable(token) {
		return nil, &Error{Kind: ErrOptions, Name: "hub token", Err: errNotPrintable}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// client follows redirects only to safe URLs and without credentials for another host.
func (s *Store) client() *http.Client {
	c := *s.o.Client
	c.CheckRedirect = checkRedirect
	return &c
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= redirectsMax {
		return &Error{Kind: ErrRefused, Err: fmt.Errorf("more than %d redirects", redirectsMax)}
	}
	err := checkURL(req.URL.String())
	if err == nil && via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		err = errors.New("it leaves https")
	}
	if err != nil {
		return &Error{Kind: ErrRefused, Err: fmt.Errorf("redirect: %w", err)}
	}
	for _, v := range append(via[1:len(via):len(via)], req) {
		if v.URL.Host != via[0].URL.Host {
			req.Header.Del("Authorization")
			req.Header.Del("Cookie")
		}
	}
	return nil
}

// statusError makes a typed error of a response that is no success.
func statusError(resp *http.Response) error {
	err := fmt.Errorf("the server answers %d %s", resp.StatusCode,
		http.StatusText(resp.StatusCode))
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return &Error{
			Kind: ErrPermission, Err: err,
			Hint: "the model may ask for its terms to be accepted on the hub, and for HF_TOKEN",
		}
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return retry(err)
	default:
		return &Error{
			Kind: ErrUnavailable, Err: err, Hint: "the file may have moved or been withdrawn",
		}
	}
}

// sendError types a failure of the connection. The URL is left out: after a redirect it may carry
// a signature.
func sendError(ctx context.Context, err error) error {
	var mine *Error
	if errors.As(err, &mine) {
		return mine
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return retry(err)
}

func retry(err error) error { return network(errors.Join(err, errRetry)) }

func network(err error) error {
	return &Error{
		Kind: ErrNetwork, Err: err,
		Hint: "check the network and the proxy settings, then pull again: it continues",
	}
}
