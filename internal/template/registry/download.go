package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// How often a download is taken up again when nothing more came, and how long
// is waited before the first and the last of them.
const (
	attempts  = 5
	firstWait = 200 * time.Millisecond
	lastWait  = 3 * time.Second
)

// What comes stays for the next time, so a registry must not be able to fill the
// disk with it, whatever size it announces.
const (
	spare      = 256 * unit.MiB // must stay free on the host's disk, as package unpack has it
	spareEvery = 64 * unit.MiB  // after how many bytes that is looked at again
)

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Blob is a blob to download.
type Blob struct {
	Digest string
	Size   int64
	To     string           // the file; what is in it is taken for the start of the blob
	Tell   func(done int64) // may be nil
}

// Download fetches a blob. It returns when the file is whole and its digest
// right. Where it fails, what came stays in the file for the next time, unless
// that is wrong. The caller makes sure that nobody else writes the file.
// Kinds: as Manifest's, Invalid for a wrong digest or size, Busy where the disk
// has no room for it.
func (c *Client) Download(ctx context.Context, b Blob) error {
	if b.Tell == nil {
		b.Tell = func(int64) {}
	}
	f, err := os.OpenFile(b.To, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	d := &download{Blob: b, client: c, file: f, hash: sha256.New()}
	if err := d.takeUp(ctx); err != nil {
		return err
	}
	if err := d.room(d.Size - d.done); err != nil {
		return err
	}
	resumed := d.done > 0
	if err := d.toTheEnd(ctx); err != nil {
		return err
	}
	if d.sum() != b.Digest && resumed { // what an earlier time left may be at fault
		if err := d.again(); err != nil {
			return err
		}
		if err := d.toTheEnd(ctx); err != nil {
			return err
		}
	}
	if got := d.sum(); got != b.Digest {
		os.Remove(b.To)
		return fault.Invalidf("the registry sent blob %s where %s was asked for", got, b.Digest).
			Help("the image is damaged, or it was tampered with; what was downloaded of it is removed")
	}
	return nil
}

// toTheEnd asks for the rest until it is there, and takes up what breaks off.
func (d *download) toTheEnd(ctx context.Context) error {
	wait, failed := firstWait, 0
	for d.done < d.Size {
		before := d.done
		err := d.more(ctx)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if d.done > before {
			wait, failed = firstWait, 0
		}
		if failed++; failed >= attempts || !passing(err) {
			return fault.Wrap(Explain(err, d.client.repo.Name()), "download blob %s", d.Digest)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, lastWait)
	}
	return nil
}

// passing tells whether an error may go away by itself.
func passing(err error) bool {
	var known *fault.Error
	var answer *transport.Error
	switch {
	case errors.As(err, &known), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return false
	case errors.As(err, &answer):
		return answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusRequestTimeout || answer.StatusCode >= 500
	}
	return true
}

type download struct {
	Blob
	client *Client
	file   *os.File
	hash   hash.Hash
	done   int64
	look   int64 // at how many bytes room is looked for again
}

// room refuses to write so many bytes more where the disk would be full then.
func (d *download) room(more int64) error {
	d.look = d.done + int64(spareEvery)
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.file.Fd()), &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free-int64(spare) < more {
		return fault.Busyf("the disk is full: blob %s has %s to come, and %s are free", d.Digest, unit.Size(max(more, 0)), unit.Size(free)).
			Help("free some space, for example with `strata template prune`")
	}
	return nil
}

func (d *download) sum() string { return "sha256:" + hex.EncodeToString(d.hash.Sum(nil)) }

// takeUp hashes what an earlier download left.
func (d *download) takeUp(ctx context.Context) error {
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := d.file.Read(buf)
		d.hash.Write(buf[:n])
		d.done += int64(n)
		if d.done > d.Size {
			return d.again()
		}
		if err == io.EOF {
			d.Tell(d.done)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// again starts from nothing.
func (d *download) again() error {
	d.hash.Reset()
	d.done = 0
	if err := d.file.Truncate(0); err != nil {
		return err
	}
	_, err := d.file.Seek(0, io.SeekStart)
	return err
}

// more asks for the rest and writes what comes of it.
func (d *download) more(ctx context.Context) error {
	header, codes := http.Header{}, []int{http.StatusOK}
	if d.done > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", d.done))
		codes = append(codes, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	resp, err := d.client.get(ctx, "blobs/"+d.Digest, header, codes...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var from int64
	if resp.StatusCode == http.StatusPartialContent {
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &from); err != nil {
			from = -1
		}
	}
	if from != d.done { // no ranges here, or another one than asked for
		if err := d.again(); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New("the registry sent another range than asked for")
		}
	}
	return d.write(resp.Body)
}

func (d *download) write(r io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if d.done+int64(n) > d.Size {
			os.Remove(d.To)
			return fault.Invalidf("the registry sends more than the %d bytes of blob %s", d.Size, d.Digest)
		}
		if d.done > d.look {
			if rerr := d.room(0); rerr != nil { // others fill the disk as well
				return rerr
			}
		}
		if n > 0 {
			if _, werr := d.file.Write(buf[:n]); werr != nil {
				return werr
			}
			d.hash.Write(buf[:n])
			d.done += int64(n)
			d.Tell(d.done)
		}
		if err == io.EOF {
			if d.done < d.Size {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}
