// Package client holds the JavaScript client that a node serves: the bundle of the npm package
// socket.io-client, which `make client` puts into dist and the compiler into the binary. A binary
// that was built without it answers requests for the files with an explanation.
package client

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"strings"
)

//go:embed dist
var embedded embed.FS

// Names lists the files of a bundle, which must be complete.
var Names = []string{
	"socket.io.js", "socket.io.js.map",
	"socket.io.min.js", "socket.io.min.js.map",
	"socket.io.msgpack.min.js", "socket.io.msgpack.min.js.map",
	"socket.io.esm.min.js", "socket.io.esm.min.js.map",
}

// FS returns the bundle in the binary and the version of its client. ok is
// false if the binary was built without one.
func FS() (files fs.FS, version string, ok bool) {
	files, err := fs.Sub(embedded, "dist")
	if err != nil {
		return nil, "", false
	}
	if version, err = inspect(files); err != nil {
		return nil, "", false
	}
	return files, version, true
}

// Open returns the bundle in a folder. The error names every missing file.
func Open(dir string) (files fs.FS, version string, err error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, "", err
	} else if !info.IsDir() {
		return nil, "", fmt.Errorf("%s is not a folder", dir)
	}
	files = os.DirFS(dir)
	if version, err = inspect(files); err != nil {
		return nil, "", err
	}
	return files, version, nil
}

// Missing answers requests for the files of a missing bundle.
func Missing() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "This node was built without the JavaScript client.\n\n"+
			"Either run `make client` (it needs npm) and build the node again, or set\n"+
			"REJOIN_CLIENT_DIR to the dist folder of the npm package socket.io-client.", http.StatusNotFound)
	})
}

// banner is the comment that every file of a bundle begins with.
var banner = regexp.MustCompile(`^/\*!\s+\* Socket\.IO v(\d+\.\d+\.\d+\S*)`)

// inspect returns the version of the client in a bundle, or an error if the bundle is incomplete.
func inspect(files fs.FS) (version string, err error) {
	var missing []string
	for _, name := range Names {
		info, err := fs.Stat(files, name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			missing = append(missing, name)
		} else if err != nil {
			return "", err
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("missing %s", strings.Join(missing, ", "))
	}
	source, err := fs.ReadFile(files, "socket.io.min.js")
	if err != nil {
		return "", err
	}
	m := banner.FindSubmatch(source)
	if m == nil {
		return "", errors.New("socket.io.min.js does not begin with the name and version of the Socket.IO client")
	}
	return string(m[1]), nil
}
