// SPDX-License-Identifier: Apache-2.0

// Package kubeletconfig reads the configuration of a host's kubelet from files: its
// configuration file with drop-ins, and the flags in its systemd unit.
//
// It never guesses. If something is not visible and could change the settings, such as a unit
// file that is not mounted, [Config.Assumptions] names this. If something is visible and
// cannot be read or parsed, that is [Config.Problem].
//
// The package judges nothing. It reads the settings with which a kubelet would start now. A
// running kubelet still uses those from its start.
package kubeletconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

const (
	// KubeadmFlags has the flags that kubeadm writes (Kubernetes cmd/kubeadm/app/constants,
	// KubeletEnvFileName). Its unit reads it.
	KubeadmFlags = "/var/lib/kubelet/kubeadm-flags.env"

	// MaxFileBytes bounds each file that is read here.
	MaxFileBytes = 1 << 20
	// MaxDropIns bounds the entries of a drop-in directory, including subdirectories.
	MaxDropIns = 1000

	// defaultPort and legacyReadOnlyPort are the kubelet's defaults (Kubernetes
	// pkg/cluster/ports/ports.go). The second one applies only without a configuration
	// file (cmd/kubelet/app/options/options.go, applyLegacyDefaults).
	defaultPort        = 10250
	legacyReadOnlyPort = 10255
)

// Files returns the files that are read on every host if they exist: configuration files, unit
// files and files with flags. These may name more files.
func Files() []string {
	files := []string{layout.OpenShiftKubeletConfig, layout.KubeadmKubeletConfig, KubeadmFlags}
	for _, directory := range unitDirectories() {
		files = append(files, path.Join(directory, unitName))
	}
	return files
}

// Directories returns the directories that are listed on every host: drop-ins of the unit, and
// usual directories for drop-ins of the configuration.
func Directories() []string {
	directories := usualDropIns()
	for _, directory := range unitDirectories() {
		directories = append(directories, path.Join(directory, unitName+".d"))
	}
	return directories
}

// usualDropIns are usual values of --config-dir (the Kubernetes documentation;
// OpenShift's machine-config-operator).
func usualDropIns() []string {
	return []string{"/etc/kubernetes/kubelet.conf.d", "/etc/openshift/kubelet.conf.d"}
}

// Config is the configuration of a kubelet.
type Config struct {
	// Seen is true if a configuration file or the command line was read. The settings are
	// valid only if it is true and there is no Problem.
	Seen bool
	// Problem is why the settings are not known, although files exist.
	Problem ProblemError
	// Assumptions are what the settings depend on and was not seen. Each one completes a
	// sentence that begins with "assuming that".
	Assumptions []string
	// FlagsSeen is true if the whole command line was seen. Then a setting that is not in
	// the files has its default.
	FlagsSeen bool

	// StaticPodPath is the directory, or file, with static Pods; empty for none.
	// StaticPodPathAt is the file that sets it.
	StaticPodPath, StaticPodPathAt string
	// ClientCAFile is the kubelet's client CA bundle; empty for none. ClientCAAt is the file
	// that sets it.
	ClientCAFile, ClientCAAt string
	// Port of the kubelet's server.
	Port int
	// ReadOnlyPort of its server without TLS, 0 for none. ReadOnlyPortAt is the file that
	// sets it.
	ReadOnlyPort   int
	ReadOnlyPortAt string

	// Read are the files that were read. Tried are all files that it tried to read, and Listed all
	// directories that it tried to list, whether they exist or not.
	Read, Tried, Listed []string
}

// ProblemError is what could not be read or parsed. The zero value means no problem.
type ProblemError struct {
	// At is the file or directory.
	At  string
	Err error
	// Unread is true if it could not be read, and false if it could not be parsed.
	Unread bool
}

// Error implements error.
func (p ProblemError) Error() string { return p.At + ": " + p.Err.Error() }

// Unwrap returns the cause.
func (p ProblemError) Unwrap() error { return p.Err }

// settings are the fields that are needed.
type settings struct {
	StaticPodPath  string `json:"staticPodPath,omitempty"`
	StaticPodURL   string `json:"staticPodURL,omitempty"`
	Port           int32  `json:"port,omitempty"`
	ReadOnlyPort   int32  `json:"readOnlyPort,omitempty"`
	Authentication struct {
		X509 struct {
			ClientCAFile string `json:"clientCAFile,omitempty"`
		} `json:"x509"`
	} `json:"authentication"`
}

// Sources are where a platform has the kubelet's configuration, if no visible command line names other files. The zero
// value stands for the files of OpenShift and kubeadm.
type Sources struct {
	// Files are configuration files. If several exist, their settings must be the same.
	Files []string
	// DropIns is a directory with drop-ins that the platform names on a command line that is not visible; empty for none.
	DropIns string
}

// Read reads the files of a host. It has no error: problems are in the Config.
func Read(host fs.FS, sources Sources) Config {
	var usual []string
	if len(sources.Files) == 0 && sources.DropIns == "" {
		sources.Files = []string{layout.OpenShiftKubeletConfig, layout.KubeadmKubeletConfig}
		usual = usualDropIns()
	}
	r := reader{host: host, sources: sources, usualDropIns: usual}
	if problem, ok := errors.AsType[ProblemError](r.read()); ok {
		r.config.Problem = problem
	}
	r.config.Tried = slices.Concat(Files(), r.config.Tried)
	r.config.Listed = slices.Concat(Directories(), r.config.Listed)
	return r.config
}

// reader is the state of one [Read].
type reader struct {
	host    fs.FS
	sources Sources
	// usualDropIns are directories that a command line which is not visible may name.
	usualDropIns []string
	config       Config
	// merged are the settings so far. at is the last file that they come from.
	merged settings
	at     string
}

// read fills the Config. Its errors are ProblemErrors.
func (r *reader) read() error {
	command, err := r.command()
	if err != nil {
		return err
	}
	flags, err := parseFlags(command.words)
	if err != nil {
		return ProblemError{At: command.at, Err: err}
	}
	r.config.FlagsSeen = command.found && !flags.hidden && len(command.unseen) == 0
	r.addAssumptions(command, flags)
	if err := r.readFiles(command, flags); err != nil {
		return err
	}
	if !r.config.Seen {
		if len(flags.values) == 0 {
			return nil
		}
		return ProblemError{At: command.at, Err: errors.New(
			"it sets flags of the kubelet, but the configuration file that they override is not visible")}
	}
	return r.apply(command, flags)
}

// addAssumptions adds the assumptions about the command line.
func (r *reader) addAssumptions(command command, flags flags) {
	add := func(format string, values ...any) {
		r.config.Assumptions = append(r.config.Assumptions, fmt.Sprintf(format, values...))
	}
	switch {
	case !command.found && command.at == "":
		add("no flag overrides the kubelet's configuration "+
			"(no unit file %s that contains the kubelet's command line is visible)", unitName)
	case !command.found:
		add("no flag overrides the kubelet's configuration "+
			"(only a part of the kubelet's command line is visible, in %s)", command.at)
	case flags.hidden:
		add("the unknown part of the command line in %s sets no such flag", command.at)
	}
	if command.found && flags.fromVariables && len(command.hiddenFiles) > 0 {
		add("%s, which is not visible, sets no such flag", strings.Join(command.hiddenFiles, ", "))
	}
	if command.found && len(command.unseen) > 0 {
		add("%s, which is not visible, has no drop-in of the kubelet's unit that overrides the configuration",
			strings.Join(command.unseen, ", "))
	}
}

// readFiles reads the configuration file and its drop-ins.
func (r *reader) readFiles(command command, flags flags) error {
	if err := flags.problem(command.at); err != nil {
		return err
	}
	switch file, given := flags.values[flagConfig]; {
	case given && file != "":
		file, err := absolute(file)
		if err != nil {
			return ProblemError{At: command.at, Err: fmt.Errorf("--%s: %w", flagConfig, err)}
		}
		data, err := r.file(file)
		if err != nil {
			return ProblemError{At: file, Unread: true, Err: fmt.Errorf("named by --%s in %s: %w", flagConfig, command.at, err)}
		}
		if err := r.parseFile(file, data); err != nil {
			return err
		}
	case given, r.config.FlagsSeen:
		// The kubelet reads no configuration file.
		r.merged.ReadOnlyPort = legacyReadOnlyPort
		r.at, r.config.Seen = command.at, true
	default:
		if err := r.readUsualFiles(); err != nil {
			return err
		}
	}
	r.config.StaticPodPathAt, r.config.ClientCAAt, r.config.ReadOnlyPortAt = r.at, r.at, r.at
	directory := flags.values[flagConfigDir]
	if directory == "" && !r.config.FlagsSeen && r.platformDropIns() {
		r.at, r.config.Seen = r.sources.DropIns, true
		r.config.StaticPodPathAt, r.config.ClientCAAt, r.config.ReadOnlyPortAt = r.at, r.at, r.at
		return r.mergeDirectory(r.sources.DropIns)
	}
	if directory == "" {
		return r.checkUsualDropIns()
	}
	if !path.IsAbs(directory) {
		return ProblemError{At: command.at, Err: fmt.Errorf("--%s: %w", flagConfigDir, errRelative)}
	}
	if !r.config.Seen { // over the defaults of a kubelet without a configuration file
		r.config.Seen = true
		r.merged.ReadOnlyPort = legacyReadOnlyPort
	}
	return r.mergeDirectory(directory)
}

// platformDropIns reports whether the directory that the platform names is visible.
func (r *reader) platformDropIns() bool {
	if r.sources.DropIns == "" {
		return false
	}
	r.config.Listed = append(r.config.Listed, r.sources.DropIns)
	_, err := fs.Stat(r.host, name(r.sources.DropIns))
	return !notVisible(err)
}

// readUsualFiles reads the configuration from the usual files, if no flag names one.
func (r *reader) readUsualFiles() error {
	var first string
	for _, at := range r.sources.Files {
		data, err := r.file(at)
		switch {
		case notVisible(err):
			continue
		case err != nil:
			return ProblemError{At: at, Err: err, Unread: true}
		case isKubeconfig(data):
			continue
		}
		before := r.merged
		if err := r.parseFile(at, data); err != nil {
			return err
		}
		if first != "" && r.merged != before {
			return ProblemError{At: at, Err: fmt.Errorf(
				"its settings differ from those of %s, and no visible command line names the file that the kubelet reads", first)}
		}
		first = at
	}
	return nil
}

// checkUsualDropIns checks whether the usual drop-ins would change the settings, if the command line
// does not name a directory of drop-ins.
func (r *reader) checkUsualDropIns() error {
	if r.config.FlagsSeen || !r.config.Seen {
		return nil
	}
	for _, directory := range r.usualDropIns {
		if _, err := fs.Stat(r.host, name(directory)); notVisible(err) {
			continue
		}
		with := reader{host: r.host, merged: r.merged, at: r.at}
		err := with.mergeDirectory(directory)
		r.config.Read = append(r.config.Read, with.config.Read...)
		r.config.Listed = append(r.config.Listed, with.config.Listed...)
		if err == nil && with.merged == r.merged {
			continue
		}
		if problem, ok := errors.AsType[ProblemError](err); ok {
			problem.Err = fmt.Errorf("%w (it is not known whether the kubelet is started with --%s=%s)",
				problem.Err, flagConfigDir, directory)
			return problem
		}
		return ProblemError{At: directory, Err: fmt.Errorf(
			"its files change settings, but it is not known whether the kubelet is started with --%s=%s",
			flagConfigDir, directory)}
	}
	return nil
}

// apply merges the flags over the files and fills the Config.
func (r *reader) apply(command command, flags flags) (err error) {
	if value, given := flags.values[flagStaticPods]; given {
		r.merged.StaticPodPath, r.config.StaticPodPathAt = value, command.at
	}
	podURLAt := r.at
	if value, given := flags.values[flagPodURL]; given {
		r.merged.StaticPodURL, podURLAt = value, command.at
	}
	if r.merged.StaticPodURL != "" {
		return ProblemError{At: podURLAt, Err: errors.New(
			"the kubelet also reads static Pods from a URL (staticPodURL), which is not checked")}
	}
	if value, given := flags.values[flagClientCA]; given {
		r.merged.Authentication.X509.ClientCAFile, r.config.ClientCAAt = value, command.at
	}
	if err := flags.number(flagPort, &r.merged.Port); err != nil {
		return ProblemError{At: command.at, Err: err}
	}
	if err := flags.number(flagReadOnlyPort, &r.merged.ReadOnlyPort); err != nil {
		return ProblemError{At: command.at, Err: err}
	}
	if _, given := flags.values[flagReadOnlyPort]; given {
		r.config.ReadOnlyPortAt = command.at
	}
	c := &r.config
	c.StaticPodPath, c.ClientCAFile = r.merged.StaticPodPath, r.merged.Authentication.X509.ClientCAFile
	c.Port, c.ReadOnlyPort = int(r.merged.Port), int(r.merged.ReadOnlyPort)
	if c.Port == 0 {
		c.Port = defaultPort
	}
	if c.StaticPodPath, err = absoluteOrEmpty(c.StaticPodPath); err != nil {
		return ProblemError{At: c.StaticPodPathAt, Err: fmt.Errorf("staticPodPath: %w", err)}
	}
	if c.ClientCAFile, err = absoluteOrEmpty(c.ClientCAFile); err != nil {
		return ProblemError{At: c.ClientCAAt, Err: fmt.Errorf("authentication.x509.clientCAFile: %w", err)}
	}
	return nil
}

func absoluteOrEmpty(p string) (string, error) {
	switch {
	case p == "":
		return "", nil
	case !isPath(p):
		return "", errNoPath
	}
	return absolute(p)
}

// file reads a file, bounded.
func (r *reader) file(at string) ([]byte, error) {
	r.config.Tried = append(r.config.Tried, at)
	data, err := fs.ReadFile(r.host, name(at))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFileBytes {
		return nil, fmt.Errorf("it has %d bytes, more than the limit of %d", len(data), MaxFileBytes)
	}
	r.config.Read = append(r.config.Read, at)
	return data, nil
}

// notVisible reports whether a path does not exist here. If it is not mounted, it may exist on
// the host.
func notVisible(err error) bool {
	_, elsewhere := errors.AsType[interface {
		error
		NotMounted() bool
	}](err)
	return elsewhere || errors.Is(err, fs.ErrNotExist)
}

var (
	errRelative = errors.New("the path is not absolute, and the kubelet's working directory is not known")
	errNoPath   = errors.New("the configured value is not a path")
)

// absolute returns a clean absolute path.
func absolute(p string) (string, error) {
	if !path.IsAbs(p) {
		return "", errRelative
	}
	return path.Clean(p), nil
}

// maxPath is Linux's PATH_MAX, in bytes.
const maxPath = 4096

// isPath reports whether a value may be shown as a path. A file or flag may contain anything.
func isPath(value string) bool {
	return len(value) <= maxPath && !strings.Contains(value, "-----BEGIN") &&
		!strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// name converts a host path to a name for [fs.FS].
func name(hostPath string) string {
	if n := strings.TrimPrefix(path.Clean("/"+hostPath), "/"); n != "" {
		return n
	}
	return "."
}
