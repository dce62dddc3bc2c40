package network

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// recordVersion is that of the records' format.
const recordVersion = 1

// maxRecord bounds a record's file. Unit: bytes.
const maxRecord = 64 << 10

type networkRecord struct {
	Version  int          `json:"version"`
	Name     string       `json:"name"`
	Bridge   string       `json:"bridge"`
	IPv4     netip.Prefix `json:"ipv4"`
	Gateway4 netip.Addr   `json:"gateway4"`
	IPv6     netip.Prefix `json:"ipv6,omitzero"`
	Gateway6 netip.Addr   `json:"gateway6,omitzero"`
	Isolated bool         `json:"isolated,omitempty"`
	Project  string       `json:"project,omitempty"`
	Created  time.Time    `json:"created"`
}

func recordPath(dir, name string) string { return filepath.Join(dir, name+".json") }

func loadRecords(dir string) ([]Network, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, "read networks")
	}
	var found []Network
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") { // half-written
			_ = os.Remove(path)
			continue
		}
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		n, err := loadRecord(path)
		if err != nil {
			return nil, err
		}
		found = append(found, n)
	}
	return found, nil
}

const noRecord = "restore the file; or move it away, remove its bridge (ip link delete), and make the network again as it was (strata network create --ipv4 --ipv6)"

func loadRecord(path string) (Network, error) {
	if info, err := os.Stat(path); err != nil || info.Size() > maxRecord {
		return Network{}, fault.Internalf("the network record %s is not readable or too big", path).Help(noRecord)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Network{}, fault.Wrap(err, "read network record")
	}
	var r networkRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return Network{}, fault.Internalf("the network record %s is damaged: %w", path, err).Help(noRecord)
	}
	if r.Version != recordVersion {
		return Network{}, fault.Unablef("the network record %s has version %d, this strata knows %d", path, r.Version, recordVersion).Help("run the strata that wrote it, or restore the file")
	}
	whole := validName(r.Name) == nil && recordPath(filepath.Dir(path), r.Name) == path && len(r.Bridge) > 0 && len(r.Bridge) < 16 &&
		r.IPv4.Addr().Is4() && r.IPv4.Contains(r.Gateway4) && (!r.IPv6.IsValid() || r.IPv6.Contains(r.Gateway6))
	if !whole {
		return Network{}, fault.Internalf("the network record %s is damaged: its parts do not fit together", path).Help(noRecord)
	}
	return Network{Name: r.Name, Bridge: r.Bridge, IPv4: r.IPv4, Gateway4: r.Gateway4, IPv6: r.IPv6, Gateway6: r.Gateway6, Isolated: r.Isolated, Project: r.Project, Created: r.Created}, nil
}

func saveRecord(dir string, n Network) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap(err, "make the folder of networks")
	}
	data, err := json.MarshalIndent(networkRecord{recordVersion, n.Name, n.Bridge, n.IPv4, n.Gateway4, n.IPv6, n.Gateway6, n.Isolated, n.Project, n.Created}, "", "  ")
	if err != nil {
		return fault.Wrap(err, "write network record")
	}
	return fault.Wrap(replaceFile(recordPath(dir, n.Name), append(data, '\n'), true), "write network record")
}

func removeRecord(dir, name string) error {
	err := os.Remove(recordPath(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(err, "remove network record")
	}
	return fault.Wrap(syncDir(dir), "remove network record")
}

// replaceFile puts data at path, whole or not at all; with durable, a power cut cannot undo it.
func replaceFile(path string, data []byte, durable bool) (err error) {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary)
		return err
	}
	if durable {
		return syncDir(filepath.Dir(path))
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
