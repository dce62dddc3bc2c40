package script

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(body))}, body}
}

func pack(ts *testscript.TestScript, entries ...entry) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		ts.Check(w.WriteHeader(&e.Header))
		_, err := w.Write([]byte(e.body))
		ts.Check(err)
	}
	ts.Check(w.Close())
	return buf.Bytes()
}

// archive writes a template archive of the given kind.
func archive(ts *testscript.TestScript, _ bool, args []string) {
	good := pack(ts, file("etc/hello", "hello\n"))
	var data []byte
	switch kind := args[0]; kind {
	case "good":
		data = good
	case "truncated":
		data = pack(ts, file("big", string(make([]byte, 100_000))))[:50_000]
	case "garbage":
		data = bytes.Repeat([]byte("not a tar "), 1000)
	case "dotdot":
		data = pack(ts, file("../../../escaped", "x"))
	case "link-escape":
		data = pack(ts,
			entry{tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/tmp", Mode: 0o777}, ""},
			file("out/strata-escaped", "x"))
	case "hard-link-escape":
		data = pack(ts, entry{tar.Header{Name: "shadow", Typeflag: tar.TypeLink, Linkname: "../../../../etc/shadow"}, ""})
	case "wrong-digest":
		data = layout(ts, good, true)
	case "layout":
		data = layout(ts, good, false)
	default:
		ts.Fatalf("unknown kind of archive %s", kind)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o644))
}

// layout packs one layer as an OCI layout; corrupt changes a byte of the layer
// after its digest was taken.
func layout(ts *testscript.TestScript, layer []byte, corrupt bool) []byte {
	digest := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	marshal := func(v any) []byte { b, err := json.Marshal(v); ts.Check(err); return b }
	type m = map[string]any
	config := marshal(m{"architecture": "amd64", "os": "linux", "config": m{"Cmd": []string{"/bin/true"}}, "rootfs": m{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}}})
	descriptor := func(kind string, b []byte) m {
		return m{"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest(b), "size": len(b)}
	}
	manifest := marshal(m{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": descriptor("config.v1+json", config), "layers": []m{descriptor("layer.v1.tar", layer)}})
	index := marshal(m{"schemaVersion": 2, "manifests": []m{descriptor("manifest.v1+json", manifest)}})
	name := digest(layer)
	if corrupt {
		layer = bytes.Replace(layer, []byte("hello\n"), []byte("HELLO\n"), 1)
	}
	return pack(ts, file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), file("index.json", string(index)),
		file("blobs/sha256/"+digest(config), string(config)), file("blobs/sha256/"+digest(manifest), string(manifest)), file("blobs/sha256/"+name, string(layer)))
}
