package price

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// form is the version of the kept file.
const form = 1

// maxFile bounds the kept file. Unit: bytes.
const maxFile = 1 << 20

type kept struct {
	Form   int                         `json:"form"`
	Strata map[string]api.StratumPrice `json:"strata"`
}

// Book keeps the last price of each stratum in a file. It is safe for concurrent use.
type Book struct {
	path string
	mu   sync.Mutex
	all  map[string]api.StratumPrice // nil: not read yet; never changed, only replaced
}

// Open returns the book at path, which need not be there yet.
func Open(path string) *Book { return &Book{path: path} }

// All returns the last price of each stratum that was measured. A file that is
// damaged or of a newer form has none; the error says why. The map is not to be changed.
func (b *Book) All() (map[string]api.StratumPrice, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read()
}

func (b *Book) read() (map[string]api.StratumPrice, error) {
	if b.all != nil {
		return b.all, nil
	}
	b.all = map[string]api.StratumPrice{}
	f, err := os.Open(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b.all, nil
	}
	if err != nil {
		return b.all, fault.Wrap(err, "open the kept prices")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return b.all, fault.Wrap(err, "read the kept prices")
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return b.all, fault.Internalf("the kept prices in %s cannot be read: %w", b.path, err)
	}
	if k.Form != form {
		return b.all, fault.Unablef("the kept prices in %s are of form %d, which this strata does not know", b.path, k.Form)
	}
	if k.Strata != nil {
		b.all = k.Strata
	}
	return b.all, nil
}

// Keep puts p in place of what was kept of its stratum.
func (b *Book) Keep(p api.StratumPrice) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, _ := b.read() // what cannot be read is replaced
	all := map[string]api.StratumPrice{p.Stratum: p}
	for at, was := range old {
		if at != p.Stratum {
			all[at] = was
		}
	}
	data, err := json.MarshalIndent(kept{form, all}, "", " ")
	if err != nil {
		return fault.Wrap(err, "write the prices down")
	}
	if err := replace(b.path, data); err != nil {
		return fault.Wrap(err, "write the prices down")
	}
	b.all = all
	return nil
}

// replace writes a file whole or not at all.
func replace(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".price-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
