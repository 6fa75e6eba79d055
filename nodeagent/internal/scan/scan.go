// SPDX-License-Identifier: Apache-2.0

// Package scan checks a host once: which files its kube-apiserver uses, what is in them,
// what its kubelet answered, and the result for each requirement of a node. It keeps no
// state between two scans except a [Memory].
package scan

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// Host is the file system of the host.
type Host interface {
	fs.FS
	// Owned reports whether a file belongs to root.
	Owned(info fs.FileInfo) bool
}

// Options of a scan.
type Options struct {
	// Layout is the name of the host's layout (package layout); empty to detect it.
	Layout string
	// Directory has the kubelet client certificate and key, or Certificate and Key are the files.
	// All are host paths. If they are set, the scan does not read the manifest and the
	// configuration. Set Directory, or both files, or nothing.
	Directory, Certificate, Key string
	// ClientCA is the host path of the kubelet's client CA bundle. If empty, it is that
	// that was found.
	ClientCA string
	// ExpiringFraction as in [check.Expectation].
	ExpiringFraction float64
	// NodeName is the name of this host's Node; empty if not known.
	NodeName string
	// KeyPolicy as in [check.Expectation].
	KeyPolicy check.KeyPolicy
	// GoVersion of the API server, as in [check.Expectation].
	GoVersion string
}

// Snapshot is the result of one scan. It does not change.
type Snapshot struct {
	At    time.Time
	Found staticpod.Found
	// FileResults come from files, KubeletResults from the kubelet's answer, and
	// ConnectionResults from the kube-apiserver's answer about its connection to the kubelet; also those about its
	// configuration that are unknown without that connection.
	// Together they have a result for every requirement of a node.
	FileResults, KubeletResults, ConnectionResults []finding.Result
	// Serving is the kubelet's serving certificate; nil if none was seen. ServingAt is
	// the kubelet; the zero value if it has not answered.
	Serving   *x509.Certificate
	ServingAt finding.Subject
	// Leaf is the kubelet client certificate; nil if it could not be read.
	Leaf *x509.Certificate
	// Valid is true if the kube-apiserver is known to use the certificate and key, both exist, and
	// none of their requirements fails.
	Valid bool
	// Contents is the same in two snapshots if and only if all files and the kubelet's
	// answer were the same. Then only time can make their results differ.
	Contents [sha256.Size]byte
	// ConnectionFiles is the same in two snapshots if and only if the files on which the connection depends were the same:
	// the client certificate and key, and the CA bundles of the kubelet and of the kube-apiserver.
	ConnectionFiles [sha256.Size]byte
	// NextChange is the next moment at which the results may change by time alone, or zero.
	NextChange time.Time
}

// Results returns all results.
func (s Snapshot) Results() []finding.Result {
	return slices.Concat(s.FileResults, s.KubeletResults, s.ConnectionResults)
}

// Kubelet has the last answer of the kubelet.
type Kubelet interface {
	// Answer returns nil before the first answer.
	Answer() *check.KubeletAnswer
}

// Connection has the kube-apiserver's last answer about its connection to the kubelet.
type Connection interface {
	// Answer returns nil before the first answer.
	Answer() *check.ConnectionAnswer
}

// Sources are what a scan looks at. Kubelet is nil if the kubelet is not probed, Connection if the
// kube-apiserver is not asked.
type Sources struct {
	Host       Host
	Kubelet    Kubelet
	Connection Connection
	// Memory is nil if each scan parses everything.
	Memory *Memory
}

// Scan checks the host, the last answer of its kubelet, and that of its kube-apiserver. It has no
// error: what cannot be read is a result.
func Scan(from Sources, options Options, now time.Time) Snapshot {
	host := from.Host
	found := discover(from, options)
	if options.ClientCA != "" {
		found.ClientCA = options.ClientCA
	}
	snapshot := Snapshot{At: now, Found: found}
	keepNextChange := func(results []finding.Result, next time.Time) []finding.Result {
		snapshot.NextChange = earliest(snapshot.NextChange, next)
		return results
	}
	manifestResults := keepNextChange(manifest(found).Check(now))
	unusable := firstNotPassed(manifestResults, finding.Manifest, finding.Readable)
	var connection *check.ConnectionAnswer
	if from.Connection != nil {
		connection = from.Connection.Answer()
	}
	config := configuration(host, found, unusable, connection)
	configResults := keepNextChange(config.Check(now))

	facts := readFiles(host, found, unusable, configResults)
	files := check.NewClientFiles(
		facts.certificate, facts.key, facts.clientCA, found.Layout, options.KeyPolicy, options.GoVersion,
		options.ExpiringFraction,
	)
	fileResults, pair := keepNextChange(files.Check(now)), files.Pair()
	snapshot.Leaf = pair.Leaf()
	snapshot.Valid = pair.Loads() && len(finding.WithOutcome(fileResults, finding.Fail)) == 0
	if firstNotPassed(manifestResults, finding.Manifest, finding.Single) != nil && !options.namesPair() {
		snapshot.Valid = false // another manifest may be the one that runs
	}
	if guessed := unusable != nil && !options.namesPair(); guessed {
		// The kube-apiserver may use other files.
		snapshot.Valid = false
		fileResults = check.Uncertain(fileResults, *unusable)
		// Whether the kubelet accepts the guessed certificate proves nothing.
		unknown := check.File{WhyUnknown: unusable}
		pair = check.NewClientFiles(
			unknown, unknown, unknown, found.Layout, options.KeyPolicy, options.GoVersion, options.ExpiringFraction,
		).Pair()
	}
	var answer *check.KubeletAnswer
	if from.Kubelet != nil {
		answer = from.Kubelet.Answer()
	}
	kubelet := check.NewKubelet(answer, from.Kubelet != nil, pair, facts.kubeletCA, settings(found, options)).
		Connection(connection, from.Connection != nil)
	var next time.Time
	snapshot.KubeletResults, snapshot.ConnectionResults, next = kubelet.Check(now)
	snapshot.NextChange = earliest(snapshot.NextChange, next)
	if found.Process != "" {
		var ofConnection []finding.Result
		configResults, ofConnection = check.SplitInProcess(configResults, snapshot.ConnectionResults)
		snapshot.ConnectionResults = append(snapshot.ConnectionResults, ofConnection...)
	}
	snapshot.FileResults = slices.Concat(manifestResults, configResults, fileResults)
	if answer != nil {
		snapshot.ServingAt = answer.At
		if len(answer.Certificates) > 0 {
			snapshot.Serving = answer.Certificates[0]
		}
	}
	ofConnection := []check.File{facts.certificate, facts.key, facts.clientCA, facts.kubeletCA}
	snapshot.ConnectionFiles = contents(staticpod.Found{}, "", nil, nil, ofConnection...)
	read := slices.Concat(ofConnection, []check.File{config.AdmissionFile})
	for _, plugin := range slices.Sorted(maps.Keys(config.PluginFiles)) {
		read = append(read, config.PluginFiles[plugin])
	}
	snapshot.Contents = contents(found, options.GoVersion, answer, connection, read...)
	return snapshot
}

// namesPair reports whether flags name the certificate and key files.
func (o Options) namesPair() bool { return o.Directory != "" || o.Certificate != "" }

func discover(from Sources, options Options) staticpod.Found {
	return from.Memory.discover(from.Host, staticpod.Given{
		Layout: options.Layout, Directory: options.Directory, Certificate: options.Certificate, Key: options.Key,
	})
}

// whyPairUnknown returns why it is not known which files of a directory are the certificate and
// key; nil if it is known.
func whyPairUnknown(found staticpod.Found) *finding.Result {
	if found.PairErr == nil {
		return nil
	}
	return &finding.Result{
		Subject: finding.File(found.PairDirectory), Outcome: finding.Unknown, Reason: finding.Unreadable,
		Message: "cannot find the certificate and key in the directory: " + found.PairErr.Error(),
		Remedy: "name both files with --kubelet-client-certificate and --kubelet-client-key " +
			"(chart: nodeagent.clientCertificate, nodeagent.clientKey) instead of the directory",
	}
}

// firstNotPassed returns the first result of an aspect that fails or is unknown, or nil.
func firstNotPassed(results []finding.Result, family finding.Family, aspect finding.Aspect) *finding.Result {
	for _, r := range results {
		if r.Requirement == family.Requires(aspect) && (r.Outcome == finding.Fail || r.Outcome == finding.Unknown) {
			return &r
		}
	}
	return nil
}

func manifest(found staticpod.Found) check.Manifest {
	facts := check.Manifest{
		Path: found.Manifest, ReadErr: found.ManifestReadErr, ParseErr: found.ManifestParseErr,
		Containers: found.ManifestContainers, Directory: found.Directory, FileNames: found.FirstNames,
		Duplicates: found.Duplicates, Layouts: found.Layouts,
	}
	if found.Process != "" {
		return check.Manifest{Process: found.Process}
	}
	if found.Manifest == "" {
		return facts
	}
	facts.KubeletConfig = kubeletProblem(found)
	for _, file := range found.Unread {
		facts.Unread = append(facts.Unread, check.File{Path: file.Host, Err: file.Err})
	}
	facts.Assumptions = slices.Clone(found.Kubelet.Assumptions)
	if !found.Kubelet.Seen {
		facts.Assumptions = append([]string{
			"the kubelet's configuration, which is not visible, has the platform's defaults: static Pods in " + found.Directory,
		}, facts.Assumptions...)
	}
	return facts
}

func kubeletProblem(found staticpod.Found) check.KubeletConfigProblem {
	problem := found.Kubelet.Problem
	return check.KubeletConfigProblem{Path: problem.At, Err: problem.Err, Unread: problem.Unread}
}

// settings are the expectations of the kubelet's answer.
func settings(found staticpod.Found, options Options) check.KubeletSettings {
	known := check.KubeletSettings{
		NodeName: options.NodeName, GoVersion: options.GoVersion,
		AddressTypes:           found.Config.List(kubeapiserver.KubeletPreferredAddressTypes),
		WhyAddressTypesUnknown: found.Config.Undecided(kubeapiserver.KubeletPreferredAddressTypes),
	}
	config := found.Kubelet
	if !config.Seen || config.Problem.Err != nil {
		return known
	}
	known.Port, known.ReadOnlyPort, known.ReadOnlyPortAt = config.Port, config.ReadOnlyPort, config.ReadOnlyPortAt
	if config.ClientCAFile == "" && config.FlagsSeen {
		known.NoClientCAAt = config.ClientCAAt
	}
	return known
}

// clientCA reads the kubelet's client CA bundle. unusable is why the bundle is not known if
// none was found. If flags name the pair and no known layout's bundle exists, it is
// not known where the bundle is.
func clientCA(host Host, found staticpod.Found, unusable *finding.Result) check.File {
	config := found.Kubelet
	if problem := kubeletProblem(found).Result(); found.ClientCA == "" && problem != nil {
		return check.File{WhyUnknown: problem}
	}
	if found.ClientCA == "" && config.Seen && config.ClientCAFile == "" {
		return check.File{WhyUnknown: &finding.Result{
			Subject: finding.File(config.ClientCAAt), Outcome: finding.Unknown, Reason: finding.ClientCAUnavailable,
			Message: "the certificate's issuer is not verified, because the kubelet's configuration names " +
				"no client CA bundle (authentication.x509.clientCAFile)",
			Remedy: "set authentication.x509.clientCAFile in the kubelet's configuration, " +
				"or --kubelet-ca if a flag of the kubelet names the file",
		}}
	}
	if found.ClientCA == "" && found.Manifest == "" && len(found.Layouts) == 0 {
		unusable = &finding.Result{
			Subject: finding.Subject{Kind: finding.KindFile, Name: "kubelet client CA bundle"},
			Outcome: finding.Unknown, Reason: finding.ClientCAUnavailable,
			Message: "the certificate's issuer is not verified, because the kubelet's client CA bundle was not found at " +
				strings.Join(staticpod.ClientCAs(), " or "),
			Remedy: "name the file with --kubelet-ca (chart: nodeagent.kubeletCA)",
		}
	}
	return readConfigured(host, staticpod.File{Host: found.ClientCA}, unusable)
}

// configuration reads the configuration. unusable is why the manifest does not name it; nil
// if it does.
func configuration(
	host Host, found staticpod.Found, unusable *finding.Result, connection *check.ConnectionAnswer,
) check.Configuration {
	switch {
	case found.Process != "":
		return check.Configuration{
			At:      finding.Subject{Kind: finding.KindFile, Name: "kube-apiserver configuration"},
			Process: found.Process, Connection: connection,
		}
	case len(found.Layouts) > 0:
		return check.Configuration{WhyUnknown: unusable}
	case found.Manifest == "":
		return check.Configuration{WhyUnknown: &finding.Result{
			Subject: finding.Subject{Kind: finding.KindFile, Name: "kube-apiserver configuration"},
			Outcome: finding.Unknown, Reason: finding.NotChecked,
			Message: "the kube-apiserver's configuration was not read, because flags name the certificate and key files",
			Remedy:  "remove the flags --kubelet-client-dir, --kubelet-client-certificate and --kubelet-client-key",
		}}
	case unusable != nil:
		return check.Configuration{WhyUnknown: unusable}
	}
	c := check.Configuration{
		At: finding.File(found.ConfigAt), Config: found.Config, CommandLineAt: finding.File(found.Manifest),
		AdmissionFile: readConfigured(host, found.Admission, nil),
	}
	for plugin, path := range c.PluginPaths() {
		if c.PluginFiles == nil {
			c.PluginFiles = map[string]check.File{}
		}
		c.PluginFiles[plugin] = readConfigured(host, found.AdmissionPath(path), nil)
	}
	switch {
	case errors.Is(found.ConfigErr, fs.ErrNotExist):
		c.Missing = true
	case found.ConfigUnread && !isNoFile(found.ConfigErr):
		c.ReadErr = found.ConfigErr
	default:
		c.Err = found.ConfigErr
	}
	return c
}

// isNoFile reports whether nobody could read the path as a configuration: it is a FIFO, a
// directory or far too large. It is false if only the agent cannot read it, for example
// for lack of permission or of a mount.
func isNoFile(err error) bool {
	_, ofPath := errors.AsType[*fs.PathError](err)
	_, ofSystem := errors.AsType[syscall.Errno](err)
	_, notMounted := errors.AsType[*check.NotMountedError](err)
	return ofPath && !ofSystem && !notMounted
}

// facts are the files that were found.
type facts struct{ certificate, key, clientCA, kubeletCA check.File }

// readFiles reads the files that were found. unusable is why the manifest names no files; nil
// if it does. config are the results of the configuration, which say why a file is not
// known.
func readFiles(host Host, found staticpod.Found, unusable *finding.Result, config []finding.Result) facts {
	argument := func(file staticpod.File, aspect finding.Aspect) check.File {
		return readConfigured(host, file, firstNotPassed(config, finding.Config, aspect))
	}
	pair := func(file staticpod.File, aspect finding.Aspect) check.File {
		if unknown := whyPairUnknown(found); unknown != nil {
			return check.File{WhyUnknown: unknown}
		}
		return argument(file, aspect)
	}
	return facts{
		certificate: pair(found.Certificate, finding.ClientCertificate),
		key:         pair(found.Key, finding.ClientKey),
		clientCA:    clientCA(host, found, unusable),
		kubeletCA:   argument(found.KubeletCA, finding.CertificateAuthority),
	}
}

// readConfigured reads a file that a configuration names. notKnown is why it names no file.
func readConfigured(host Host, file staticpod.File, notKnown *finding.Result) check.File {
	switch {
	case file.Err != nil:
		return check.File{Path: file.Configured, Err: file.Err}
	case file.Host == "":
		return check.File{WhyUnknown: notKnown}
	}
	return read(host, file.Host)
}

// read returns the facts of a file, and its data if it is regular and not too large.
func read(host Host, hostPath string) check.File {
	facts := check.File{Path: hostPath}
	file, err := host.Open(strings.TrimPrefix(hostPath, "/"))
	if err != nil {
		facts.Err = err
		return facts
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		facts.Err = err
		return facts
	}
	facts.Mode, facts.Size, facts.ForeignOwner = info.Mode(), info.Size(), !host.Owned(info)
	if !info.Mode().IsRegular() || facts.Size > check.MaxFileBytes {
		return facts
	}
	// A file may grow while it is read. One byte more than allowed shows this.
	data := bytes.NewBuffer(make([]byte, 0, facts.Size+bytes.MinRead))
	_, facts.Err = data.ReadFrom(io.LimitReader(file, check.MaxFileBytes+1))
	facts.Data = data.Bytes()
	if int64(len(facts.Data)) > facts.Size {
		facts.Size = int64(len(facts.Data))
	}
	return facts
}

// contents is a checksum of everything that was read and answered.
func contents(
	found staticpod.Found, goVersion string, answer *check.KubeletAnswer, connection *check.ConnectionAnswer,
	files ...check.File,
) (sum [sha256.Size]byte) {
	h := sha256.New()
	if connection != nil {
		hashField(h, fmt.Sprintf("%+v", *connection))
	}
	hashField(h, fmt.Sprintf("%+v", found))
	hashField(h, goVersion)
	for _, file := range files {
		hashField(h, fmt.Sprintf("%s %v %v %d %v", file.Path, file.Err, file.Mode, file.Size, file.ForeignOwner))
		hashField(h, file.Data)
	}
	if answer != nil {
		// Without the error's text, on which no result depends.
		if answer.Alert != nil {
			hashField(h, answer.Alert.Error())
		}
		hashField(h, fmt.Sprintf("%d %t %t %t %t %x %v", answer.AssumedPort, answer.Err != nil, answer.NotTLS,
			answer.RequestsClientCertificate, answer.ReadOnlyOpen, answer.AcceptedCAs,
			answer.SignatureSchemes))
		hashField(h, strconv.FormatBool(answer.ReadOnlyErr != nil))
		for _, certificate := range answer.Certificates {
			hashField(h, certificate.Raw)
		}
	}
	h.Sum(sum[:0])
	return sum
}

// hashField adds one text after its length, so that texts cannot run together.
func hashField[T string | []byte](h hash.Hash, text T) {
	// Writing to a hash never fails.
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(text))))
	_, _ = h.Write([]byte(text))
}

// earliest returns the earlier of two moments. A zero one does not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
