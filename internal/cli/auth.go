package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/strata-project/strata/api"
)

// hub is what docker's config calls Docker Hub, which names without a registry mean.
// Source: docker's cli/config, IndexServer.
const hub = "https://index.docker.io/v1/"

// dockerConfig is what is read of ~/.docker/config.json.
type dockerConfig struct {
	Auths map[string]struct {
		Auth          string `json:"auth"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	} `json:"auths"`
	CredHelpers map[string]string `json:"credHelpers"`
	CredsStore  string            `json:"credsStore"`
}

// credentials returns what the caller's docker config has for the registry of a
// reference; nil where there is nothing, so that the daemon's own counts. A
// broken config is as good as none, and said to be so.
func (a *app) credentials(ref string) *api.Auth {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil
		}
		dir = filepath.Join(home, ".docker")
	}
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var c dockerConfig
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		a.say("%s cannot be used: %v", path, err)
		return nil
	}
	for _, server := range serversOf(ref) {
		if program := c.CredHelpers[server]; program != "" {
			if auth := fromProgram(program, server); auth != nil {
				return auth
			}
		}
		if entry, ok := c.Auths[server]; ok && (entry.Auth != "" || entry.IdentityToken != "" || entry.RegistryToken != "") {
			auth := &api.Auth{IdentityToken: entry.IdentityToken, RegistryToken: entry.RegistryToken}
			if plain, err := base64.StdEncoding.DecodeString(entry.Auth); err == nil {
				auth.Username, auth.Password, _ = strings.Cut(string(bytes.TrimRight(plain, "\x00")), ":")
			}
			return auth
		}
		if c.CredsStore != "" {
			if auth := fromProgram(c.CredsStore, server); auth != nil {
				return auth
			}
		}
	}
	return nil
}

// serversOf returns the keys under which a config may have a reference's registry.
func serversOf(ref string) []string {
	if !namesRegistry(ref) {
		return []string{hub, "index.docker.io", "docker.io"}
	}
	server, _, _ := strings.Cut(ref, "/")
	if server == "docker.io" || server == "index.docker.io" {
		return []string{hub, "index.docker.io", "docker.io"}
	}
	return []string{server, "https://" + server, "http://" + server}
}

// fromProgram asks a credential program of docker's.
// Source: github.com/docker/docker-credential-helpers, the protocol of `get`.
func fromProgram(name, server string) *api.Auth {
	if strings.ContainsAny(name, "/\\") {
		return nil
	}
	cmd := exec.Command("docker-credential-"+name, "get")
	cmd.Stdin = strings.NewReader(server)
	out, err := cmd.Output()
	var got struct{ Username, Secret string }
	if err != nil || json.Unmarshal(out, &got) != nil || got.Secret == "" {
		return nil
	}
	if got.Username == "<token>" {
		return &api.Auth{IdentityToken: got.Secret}
	}
	return &api.Auth{Username: got.Username, Password: got.Secret}
}
