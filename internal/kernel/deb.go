package kernel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/inflate"
)

// A Debian package is an ar archive whose member data.tar has the files.
// Source: deb(5); ar's headers: sys/ar.h of System V, <ar.h>.
const (
	arMagic      = "!<arch>\n"
	arHeader     = 60
	arHeaderEnd  = "`\n"
	dataMember   = "data.tar"
	maxArMembers = 64
)

func isAr(head []byte) bool { return bytes.HasPrefix(head, []byte(arMagic)) }

// fromPackage takes the files of a Debian package.
func (in *intake) fromPackage(ctx context.Context, r io.Reader) error {
	return eachMember(r, func(name string, content io.Reader) (bool, error) {
		stem, _, _ := strings.Cut(name, ".tar")
		if stem+".tar" != dataMember {
			return false, nil
		}
		plain, _, err := inflate.Reader(content)
		if err != nil {
			return true, err
		}
		defer plain.Close()
		return true, in.fromTar(ctx, plain)
	})
}

// eachMember calls do with the members of an ar archive, until it returns true.
// Kinds: Invalid where the archive is broken, or ends before that.
func eachMember(r io.Reader, do func(name string, content io.Reader) (bool, error)) error {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || !isAr(magic) {
		return fault.Invalidf("the file is no Debian package")
	}
	head := make([]byte, arHeader)
	for range maxArMembers {
		if _, err := io.ReadFull(r, head); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return fault.Invalidf("the package has no %s, or is truncated before it", dataMember)
			}
			return err
		}
		// name 16, time 12, owner 6, group 6, mode 8, size 10, end 2
		size, err := strconv.ParseInt(strings.TrimSpace(string(head[48:58])), 10, 64)
		if err != nil || size < 0 || string(head[58:]) != arHeaderEnd {
			return fault.Invalidf("the package is broken: a malformed member")
		}
		name := strings.TrimSuffix(strings.TrimSpace(string(head[:16])), "/")
		content := &io.LimitedReader{R: r, N: size}
		if done, err := do(name, content); done || err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, &io.LimitedReader{R: r, N: content.N + size%2}); err != nil {
			return err
		}
	}
	return fault.Invalidf("the package has more than %d members", maxArMembers)
}
