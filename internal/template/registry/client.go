// Package registry reads from an OCI registry what a pull needs: manifests, and
// blobs whose download can be broken off and resumed. Everything is checked
// against its digest and bounded by the size that was announced; no byte that a
// registry sends is trusted before.
//
// A download is a file of the caller's. What is in it already is hashed again
// and only the rest is asked for (HTTP Range, RFC 9110 section 14); a registry
// that does not do ranges sends all of it. A file whose digest turns out wrong
// is removed, since no rest would mend it.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// How long a registry may take. A stream may take as long as it likes while it moves.
const (
	dialPatience   = 15 * time.Second
	answerPatience = 60 * time.Second
	stallPatience  = 60 * time.Second
)

// Client reads from one repository.
type Client struct {
	repo name.Repository
	http *http.Client
}

// accepted are the manifests that are asked for.
var accepted = strings.Join([]string{
	string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
	string(types.OCIImageIndex), string(types.DockerManifestList),
}, ", ")

// Transport is what every request to a registry goes through.
func Transport() *http.Transport { return transportThatEnds(stallPatience) }

// transportThatEnds gives up a connection on which nothing has moved for so long, either way.
func transportThatEnds(stall time.Duration) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	dialer := &net.Dialer{Timeout: dialPatience}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &moving{c, stall}, nil
	}
	t.TLSHandshakeTimeout = dialPatience
	t.ResponseHeaderTimeout = answerPatience
	t.DisableCompression = true // a blob is wanted as it is
	return t
}

// moving is a connection that ends when nothing has moved on it for stall. While one way is
// busy the other may be silent, so what moves either way counts for both.
type moving struct {
	net.Conn
	stall time.Duration
}

func (c *moving) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *moving) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Dial logs in to the registry of repo. Kinds: Denied, Busy where it cannot be
// reached.
func Dial(ctx context.Context, repo name.Repository, keys authn.Keychain) (*Client, error) {
	auth, err := authn.Resolve(ctx, keys, repo)
	if err != nil {
		return nil, fault.New(fault.Denied, "read the registry's credentials: %w", err).Help("check the docker config, or log in again")
	}
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, Transport(), []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, Explain(err, repo.RegistryStr())
	}
	return &Client{repo: repo, http: &http.Client{Transport: t, CheckRedirect: checkRedirect}}, nil
}

// maxRedirects is net/http's own.
const maxRedirects = 10

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("the registry redirects from https to http")
	}
	return nil
}

// get asks for a path below the repository. The caller closes the body.
func (c *Client) get(ctx context.Context, path string, header http.Header, codes ...int) (*http.Response, error) {
	url := fmt.Sprintf("%s://%s/v2/%s/%s", c.repo.Scheme(), c.repo.RegistryStr(), c.repo.RepositoryStr(), path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, codes...); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// Manifest returns a manifest or index by tag or digest, and its media type.
// A digest is verified. Kinds: Missing, Denied, Busy, Invalid.
func (c *Client) Manifest(ctx context.Context, ref string, limit int64) ([]byte, types.MediaType, error) {
	resp, err := c.get(ctx, "manifests/"+ref, http.Header{"Accept": {accepted}}, http.StatusOK)
	if err != nil {
		return nil, "", Explain(err, c.repo.Name()+":"+ref)
	}
	raw, err := c.body(resp, limit)
	if err != nil {
		return nil, "", fault.Wrap(err, "read manifest %s", ref)
	}
	if strings.HasPrefix(ref, "sha256:") {
		if got := digestOf(raw); got != ref {
			return nil, "", fault.Invalidf("the registry sent manifest %s where %s was asked for", got, ref)
		}
	}
	mt, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return raw, types.MediaType(strings.TrimSpace(mt)), nil
}

// Document returns a small blob. Kinds: as Manifest.
func (c *Client) Document(ctx context.Context, digest string, limit int64) ([]byte, error) {
	resp, err := c.get(ctx, "blobs/"+digest, nil, http.StatusOK)
	if err != nil {
		return nil, Explain(err, c.repo.Name()+"@"+digest)
	}
	raw, err := c.body(resp, limit)
	if err != nil {
		return nil, fault.Wrap(err, "read blob %s", digest)
	}
	if got := digestOf(raw); got != digest {
		return nil, fault.Invalidf("the registry sent blob %s where %s was asked for", got, digest)
	}
	return raw, nil
}

func (c *Client) body(resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, Explain(err, c.repo.RegistryStr())
	}
	if int64(len(raw)) > limit {
		return nil, fault.Invalidf("it has more than the %s that are accepted", unit.Size(limit))
	}
	return raw, nil
}

// Explain gives an error from a registry its kind and a way out.
func Explain(err error, what string) error {
	var known *fault.Error
	var answer *transport.Error
	var dns *net.DNSError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.As(err, &known):
		return err
	case errors.As(err, &answer):
		return explainAnswer(answer, what)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fault.New(fault.Denied, "the registry of %s speaks plain http: %w", what, err).Help("if you trust the way to it, allow that with --insecure")
	case errors.As(err, &dns):
		return fault.New(fault.Busy, "the registry of %s cannot be found: %w", what, err).Help("check the registry's name and the host's DNS")
	}
	return fault.New(fault.Busy, "the registry of %s cannot be reached: %w", what, err).Help("check the network and the registry's name, then try again: what has got through need not go again")
}

func explainAnswer(answer *transport.Error, what string) error {
	switch code := answer.StatusCode; {
	case code == http.StatusNotFound:
		return fault.New(fault.Missing, "the registry has no %s: %w", what, answer).Help("check the name and the tag")
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fault.New(fault.Denied, "the registry refuses %s: %w", what, answer).Help("log in with `docker login`, or check the name: some registries say this of what does not exist")
	case code == http.StatusTooManyRequests, code >= 500:
		return fault.New(fault.Busy, "the registry cannot serve %s now: %w", what, answer).Help("try again later")
	}
	return fault.New(fault.Unable, "the registry refuses %s: %w", what, answer)
}
