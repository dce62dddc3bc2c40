package template

import (
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/strata-project/strata/internal/unit"
)

// maxAptFile bounds what is read of one file. Unit: bytes.
const maxAptFile = 1 * unit.MiB

// aptSources are where apt looks. Source: sources.list(5).
var aptSources = []string{"etc/apt/sources.list", "etc/apt/sources.list.d/*.list", "etc/apt/sources.list.d/*.sources"}

// aptURI is an address in either format of sources.list(5).
var aptURI = regexp.MustCompile(`(?m)^(?:deb(?:\s+\[[^\]\n]*\])?|URIs:)\s+(https?://\S+)`)

// defaultMirrors are those that mmdebstrap takes by itself, and then with the
// security updates besides.
var defaultMirrors = map[string]bool{"deb.debian.org": true, "ftp.debian.org": true, "httpredir.debian.org": true}

// hostMirror returns the mirror of a distribution that the host's apt uses, ""
// where it has none or a default one. root is the host's root folder.
func hostMirror(root fs.FS, distribution string) string {
	for _, pattern := range aptSources {
		names, err := fs.Glob(root, pattern)
		if err != nil {
			continue
		}
		for _, name := range names {
			info, err := fs.Stat(root, name)
			if err != nil || info.Size() > maxAptFile {
				continue
			}
			data, err := fs.ReadFile(root, name)
			if err != nil {
				continue
			}
			for _, m := range aptURI.FindAllStringSubmatch(string(data), -1) {
				u, err := url.Parse(m[1])
				if err != nil || u.User != nil || path.Base(strings.TrimRight(u.Path, "/")) != distribution {
					continue
				}
				if defaultMirrors[u.Hostname()] {
					return ""
				}
				return u.String()
			}
		}
	}
	return ""
}

// hostRoot is the root folder of this host.
func hostRoot() fs.FS { return os.DirFS("/") }
