// SPDX-License-Identifier: Apache-2.0

package kubeclient

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
)

// maxKubeconfig bounds a kubeconfig file, in bytes.
const maxKubeconfig = 1 << 20

// Config returns how to connect to the API server: with the kubeconfig file of flag --kubeconfig
// or, without the flag, with a Pod's ServiceAccount; [ErrNoAPIServer] if there is neither. An
// invalid file is a usage error that names the flag. Config does not call the API server.
func Config(kubeconfig, userAgent string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if kubeconfig != "" {
		config, err = loadKubeconfig("--kubeconfig", kubeconfig)
	} else {
		config, err = podConfig()
	}
	if err != nil {
		return nil, err
	}
	config.UserAgent = userAgent
	config.QPS, config.Burst = callsPerSecond, burst
	return config, nil
}

// UserConfig returns how to connect to the API server, as kubectl does: with the kubeconfig file
// of flag --kubeconfig, with the files of the environment variable KUBECONFIG, with the one
// in the home directory, or else as [Config]. If a file is named, nothing else is tried: a
// verdict on another cluster would be worse than none.
func UserConfig(kubeconfig, userAgent string, getenv func(string) string) (*rest.Config, error) {
	list, home := getenv(clientcmd.RecommendedConfigPathEnvVar), getenv("HOME")
	var config *rest.Config
	err := errNoFile
	switch {
	case kubeconfig != "":
		return Config(kubeconfig, userAgent)
	case list != "":
		config, err = loadKubeconfig(clientcmd.RecommendedConfigPathEnvVar, filepath.SplitList(list)...)
	case home != "":
		config, err = loadKubeconfig("kubeconfig",
			filepath.Join(home, clientcmd.RecommendedHomeDir, clientcmd.RecommendedFileName))
		if errors.Is(err, errEmpty) {
			err = errNoFile
		}
	}
	if list == "" && errors.Is(err, errNoFile) {
		return Config("", userAgent)
	}
	if err != nil {
		return nil, err
	}
	config.UserAgent = userAgent
	config.QPS, config.Burst = callsPerSecond, burst
	return config, nil
}

// podConfig uses a Pod's ServiceAccount.
func podConfig() (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	if err != nil && !errors.Is(err, rest.ErrNotInCluster) {
		return nil, fmt.Errorf(
			"read the token of the Pod's ServiceAccount (automountServiceAccountToken, or set --kubeconfig): %w", err)
	}
	return config, err
}

var (
	errNoFile = errors.New("no such file")
	errEmpty  = errors.New("it has no clusters or contexts")
)

// loadKubeconfig reads and merges kubeconfig files as kubectl does. If there are several, it
// skips those that do not exist. The error is a usage error with the flag or the variable,
// and the file.
func loadKubeconfig(name string, paths ...string) (*rest.Config, error) {
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return path == "" })
	all := name + " " + strings.Join(paths, string(filepath.ListSeparator))
	var there []string
	for _, path := range paths {
		err := checkKubeconfig(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, command.FileError(name, path, err)
		}
		there = append(there, path)
	}
	if len(there) == 0 {
		return nil, command.Usagef("%s: %w", all, errNoFile)
	}
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: there}
	loaded, err := rules.Load()
	if err != nil {
		return nil, command.Usagef("%s: %w", all, err)
	}
	if err := checkContext(loaded); err != nil {
		return nil, command.Usagef("%s: %w", all, err)
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*loaded, "", nil, rules).ClientConfig()
	if err != nil {
		return nil, command.Usagef("%s: %s", all, strings.TrimPrefix(err.Error(), "invalid configuration: "))
	}
	if _, _, err := rest.DefaultServerUrlFor(config); err != nil {
		// Do not quote it: it may contain a password.
		return nil, command.Usagef("%s: the server of its current context is not a URL", all)
	}
	if _, err := rest.TLSConfigFor(config); err != nil {
		return nil, command.Usagef("%s: %w", all, err)
	}
	return config, nil
}

// yamlLine matches the line of a YAML error. The rest of the error may quote the file.
var yamlLine = regexp.MustCompile(`yaml: line \d+`)

// checkKubeconfig returns why a file is not a kubeconfig. It does not quote the file, which has
// credentials.
func checkKubeconfig(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return syscall.EISDIR
	case info.Mode()&fs.ModeNamedPipe != 0:
		return nil // for example, of a shell's <(command): it can be read only once
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxKubeconfig+1))
	switch {
	case err != nil:
		return err
	case len(data) > maxKubeconfig:
		return fmt.Errorf("larger than %d bytes", maxKubeconfig)
	}
	if _, err := clientcmd.Load(data); err != nil {
		return errors.New(
			strings.TrimSpace(
				"not a kubeconfig, which is YAML or JSON of kind Config (apiVersion v1) " + bracketed(
					yamlLine.FindString(err.Error()),
				),
			),
		)
	}
	return nil
}

func bracketed(text string) string {
	if text == "" {
		return ""
	}
	return "(" + text + ")"
}

// checkContext returns why a kubeconfig has no usable current context.
func checkContext(c *clientcmdapi.Config) error {
	if len(c.Contexts) == 0 && len(c.Clusters) == 0 {
		return errEmpty
	}
	if c.CurrentContext == "" {
		return fmt.Errorf("it has no current context: choose one of %s with 'kubectl config use-context'", names(c.Contexts))
	}
	current, known := c.Contexts[c.CurrentContext]
	if !known {
		return fmt.Errorf("its current context %q does not exist: choose one of %s with 'kubectl config use-context'",
			c.CurrentContext, names(c.Contexts))
	}
	cluster, known := c.Clusters[current.Cluster]
	switch {
	case !known:
		return fmt.Errorf("its current context %q refers to cluster %q, which does not exist", c.CurrentContext,
			current.Cluster)
	case cluster.Server == "":
		return fmt.Errorf("its cluster %q has no server", current.Cluster)
	}
	if _, known := c.AuthInfos[current.AuthInfo]; current.AuthInfo != "" && !known {
		return fmt.Errorf("its current context %q refers to user %q, which does not exist", c.CurrentContext,
			current.AuthInfo)
	}
	return nil
}

// maxNames bounds the contexts in an error.
const maxNames = 5

func names(contexts map[string]*clientcmdapi.Context) string {
	var all []string
	for name := range contexts {
		all = append(all, name)
	}
	slices.Sort(all)
	if more := len(all) - maxNames; more > 0 {
		all = append(all[:maxNames], fmt.Sprintf("%d more", more))
	}
	return cmp.Or(strings.Join(all, ", "), "its contexts (it has none)")
}
