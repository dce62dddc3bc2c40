package web

import (
	"embed"
	"io/fs"
	"net/http"
)

//go:embed console.html console.js console.css third_party/novnc
var files embed.FS

// policy is what a browser lets the pages do. A picture of noVNC's is drawn from
// data, and its cursor is one.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// Route adds the pages to mux: /console/NAME, and what it loads below /console/-/.
func Route(mux *http.ServeMux) {
	own := guarded(http.FileServerFS(only{files}))
	mux.Handle("GET /console/-/", http.StripPrefix("/console/-/", own))
	mux.Handle("GET /console/{ref}", guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "console.html")
	})))
}

func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache") // the next daemon may have others
		next.ServeHTTP(w, r)
	})
}

// only shows files and lists no folder.
type only struct{ fs.FS }

func (o only) Open(name string) (fs.File, error) {
	f, err := o.FS.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		_ = f.Close()
		return nil, fs.ErrNotExist
	}
	return f, nil
}
