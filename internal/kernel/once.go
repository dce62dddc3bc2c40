package kernel

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// product is a file that is made of a kernel and kept.
type product struct {
	name string // for people
	tail string // the end of its file name
	key  string // 64 digits, of what it is made of
}

// once returns p of k, which write makes where it is missing and tells the size of. Of
// several callers at once, one makes it.
func (s *Store) once(ctx context.Context, k Kernel, p product, write func(*os.File) (int64, error)) (Image, error) {
	to := filepath.Join(s.dir, initramfsDir, strings.TrimPrefix(k.ID, idPrefix)+"-"+p.key+p.tail)
	unlock, err := s.making.Lock(ctx, to)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	image := Image{Path: to, Digest: idPrefix + p.key}
	if info, err := os.Stat(to); err == nil {
		now := time.Now()
		_ = os.Chtimes(to, now, now) // how long it was not used only says what to prune first
		image.Size = info.Size()
		return image, nil
	}
	if image.Size, err = whole(to, write); err != nil {
		return Image{}, fault.Wrap(room(err), "make the %s of kernel %s", p.name, k.Name)
	}
	s.tidy() // a new agent leaves those of the one before
	return image, nil
}
