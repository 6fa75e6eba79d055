// SPDX-License-Identifier: Apache-2.0

// Package importrules_test tests that the rules in .golangci.yaml work: what they forbid is reported,
// and what they allow is not.
//
// A rule of depguard or forbidigo with a mistake reports nothing. So the real configuration is copied
// into a generated module with the path and structure of this one, and golangci-lint is run there. All
// packages that the module imports are generated, too: nothing is downloaded.
//
// GOLANGCI_LINT is the absolute path of the program; make sets it. Without it the version pinned in
// tools/go.mod is built first. The first build takes minutes, so -short skips these tests then.
package importrules_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	module = "github.com/kubelet-https-guard/kubelet-https-guard"
	// root is the root of the repository, relative to this package.
	root = "../.."
)

// fixture is a Go file of the generated module. It has one of imports, uses and source.
type fixture struct {
	file string
	// imports is a package, "./" for one of this module.
	imports string
	// uses is a name of the standard library with its package's path.
	uses string
	// source is all that follows the package clause.
	source string
	// want are the reports about the file, in the format of formatIssue.
	want []string
}

// permitted is close to what a rule forbids and must not be reported.
var permitted = map[string]fixture{
	"finding, std":                                {file: "pkg/finding/std.go", imports: "encoding/json"},
	"finding, x/crypto":                           {file: "pkg/finding/crypto.go", imports: "golang.org/x/crypto/cryptobyte"},
	"pki, std":                                    {file: "pkg/pki/std.go", imports: "crypto/x509"},
	"pki, x/crypto":                               {file: "pkg/pki/crypto.go", imports: "golang.org/x/crypto/cryptobyte"},
	"command, std":                                {file: "internal/command/std.go", imports: "flag"},
	"control, std":                                {file: "pkg/control/std.go", imports: "slices"},
	"control, findings":                           {file: "pkg/control/finding.go", imports: "./pkg/finding"},
	"check, findings":                             {file: "pkg/check/finding.go", imports: "./pkg/finding"},
	"check, kubeapiserver":                        {file: "pkg/check/kubeapiserver.go", imports: "./pkg/kubeapiserver"},
	"check, layout":                               {file: "pkg/check/layout.go", imports: "./pkg/layout"},
	"check, pki":                                  {file: "pkg/check/pki.go", imports: "./pkg/pki"},
	"check, x/crypto":                             {file: "pkg/check/crypto.go", imports: "golang.org/x/crypto/cryptobyte"},
	"check, a name of package time":               {file: "pkg/check/parse.go", uses: "time.Parse"},
	"check, errors of the file system":            {file: "pkg/check/notexist.go", uses: "io/fs.ErrNotExist"},
	"kubeapiserver, std":                          {file: "pkg/kubeapiserver/std.go", imports: "encoding/json"},
	"kubeapiserver, YAML":                         {file: "pkg/kubeapiserver/yaml.go", imports: "./internal/plainyaml"},
	"plainyaml, YAML":                             {file: "internal/plainyaml/yaml.go", imports: "sigs.k8s.io/yaml"},
	"plainyaml, JSON":                             {file: "internal/plainyaml/json.go", imports: "sigs.k8s.io/json"},
	"cmdline, std":                                {file: "internal/cmdline/std.go", imports: "unicode/utf8"},
	"cmdline, Kubernetes API":                     {file: "internal/cmdline/api.go", source: "import corev1 \"k8s.io/api/core/v1\"\n\nvar _ = corev1.Stub"},
	"cmdline, the shell's grammar":                {file: "internal/cmdline/grammar.go", imports: "mvdan.cc/sh/v3/syntax"},
	"staticpod, cmdline":                          {file: "internal/staticpod/cmdline.go", imports: "./internal/cmdline"},
	"staticpod, kubeapiserver":                    {file: "internal/staticpod/kubeapiserver.go", imports: "./pkg/kubeapiserver"},
	"staticpod, layout":                           {file: "internal/staticpod/layout.go", imports: "./pkg/layout"},
	"staticpod, YAML":                             {file: "internal/staticpod/yaml.go", imports: "./internal/plainyaml"},
	"staticpod, Kubernetes API":                   {file: "internal/staticpod/api.go", source: "import corev1 \"k8s.io/api/core/v1\"\n\nvar _ = corev1.Stub"},
	"staticpod, Kubernetes machinery":             {file: "internal/staticpod/types.go", imports: "k8s.io/apimachinery/pkg/types"},
	"evidence, findings":                          {file: "pkg/evidence/finding.go", imports: "./pkg/finding"},
	"evidence, controls":                          {file: "pkg/evidence/control.go", imports: "./pkg/control"},
	"evidence, exit codes":                        {file: "pkg/evidence/exit.go", imports: "./internal/command"},
	"report, controls":                            {file: "pkg/report/control.go", imports: "./pkg/control"},
	"policy, checks":                              {file: "webhook/internal/policy/check.go", imports: "./pkg/check"},
	"policy, admission":                           {file: "webhook/internal/policy/admit.go", imports: "./webhook/internal/admit"},
	"prove, client-go":                            {file: "webhook/internal/prove/client.go", imports: "k8s.io/client-go/rest"},
	"prove, policies":                             {file: "webhook/internal/prove/policy.go", imports: "./webhook/internal/policy"},
	"a pure package's test, controls":             {file: "pkg/evidence/control_test.go", imports: "./pkg/control"},
	"evidence, certificates":                      {file: "pkg/evidence/certificate.go", imports: "./pkg/pki"},
	"kubeclient, client-go":                       {file: "internal/kubeclient/connect.go", imports: "k8s.io/client-go/rest"},
	"report, Prometheus":                          {file: "pkg/report/metrics.go", imports: "github.com/prometheus/client_golang/prometheus"},
	"report, an initialism in a key":              {file: "pkg/report/initialism.go", source: logging(`log.Info("Finding active", "clientCA", what)`)},
	"report, the clock":                           {file: "pkg/report/clock.go", uses: "time.Now"},
	"report, a logger as it should be used":       {file: "pkg/report/log.go", source: logging(`log.Info("Finding active", "notAfter", what)`)},
	"a pure package's test, cmp":                  {file: "pkg/pki/cmp_test.go", imports: "github.com/google/go-cmp/cmp"},
	"a pure package's test, the package":          {file: "pkg/pki/pki_test.go", imports: "./pkg/pki"},
	"a pure package's test, the test PKI":         {file: "pkg/pki/pkitest_test.go", imports: "./internal/pkitest"},
	"a pure package's test, YAML":                 {file: "internal/staticpod/yaml_test.go", imports: "sigs.k8s.io/yaml"},
	"a pure package's test, Kubernetes API":       {file: "internal/staticpod/api_test.go", source: "import corev1 \"k8s.io/api/core/v1\"\n\nvar _ = corev1.Stub"},
	"a pure package's test, Kubernetes machinery": {file: "internal/staticpod/types_test.go", imports: "k8s.io/apimachinery/pkg/types"},
	"a pure package's test, x/crypto":             {file: "pkg/pki/crypto_test.go", imports: "golang.org/x/crypto/cryptobyte"},
	"a pure package's test, files":                {file: "pkg/pki/files_test.go", uses: "os.ReadFile"},
	"a pure package's test, the clock":            {file: "pkg/pki/clock_test.go", uses: "time.Now"},
	"the test PKI, the clock":                     {file: "internal/pkitest/clock.go", uses: "time.Now"},
	"the test PKI, weak algorithms":               {file: "internal/pkitest/weak.go", uses: "crypto/md5.New"},
	"webhook, controller-runtime":                 {file: "webhook/internal/audit/client.go", imports: "sigs.k8s.io/controller-runtime/pkg/client"},
	"webhook, one typed client":                   {file: "webhook/internal/audit/events.go", imports: "k8s.io/client-go/kubernetes/typed/events/v1"},
	"webhook, a context of main.go":               {file: "webhook/main.go", source: "import \"context\"\n\nfunc main() { _ = context.Background() }"},
	"webhook, TestMain has no t with context":     {file: "webhook/internal/audit/main_test.go", uses: "context.Background"},
	"nodeagent, main.go exits": {file: "nodeagent/main.go",
		source: "import \"os\"\n\nfunc main() { os.Exit(0) }"},
	"nodeagent, fsnotify":              {file: "nodeagent/internal/watch/fsnotify.go", imports: "github.com/fsnotify/fsnotify"},
	"nodeagent, files":                 {file: "nodeagent/internal/scan/files.go", uses: "os.Open"},
	"nodeagent, the clock":             {file: "nodeagent/internal/agent/clock.go", uses: "time.NewTimer"},
	"webhook's test, packages of test": {file: "webhook/e2e_test.go", imports: "./test/e2e"},
	"test, TestMain exits":             {file: "test/e2e/main_test.go", uses: "os.Exit"},
	"test, a name without a comment":   {file: "test/bench/name.go", source: "func Name() {}"},
	"test, the whole clientset":        {file: "test/bench/clientset.go", imports: "k8s.io/client-go/kubernetes"},
	"test, controller-runtime":         {file: "test/bench/noop.go", imports: "sigs.k8s.io/controller-runtime/pkg/client"},
	"test, the test PKI":               {file: "test/bench/pki.go", imports: "./internal/pkitest"},
	"test, stdout":                     {file: "test/bench/print.go", uses: "fmt.Println"},
}

// forbidden breaks a rule, or two.
var forbidden = map[string]fixture{
	// Boundaries between directories.
	"webhook does not see nodeagent": {file: "webhook/nodeagent.go", imports: "./nodeagent/layout", want: []string{"depguard: webhook"}},
	"webhook does not see test":      {file: "webhook/e2e.go", imports: "./test/e2e", want: []string{"depguard: product-without-test"}},
	"nodeagent does not see webhook": {file: "nodeagent/webhook.go", imports: "./webhook/decision", want: []string{"depguard: nodeagent"}},
	"nodeagent does not see test":    {file: "nodeagent/e2e.go", imports: "./test/e2e", want: []string{"depguard: product-without-test"}},
	"pkg does not see webhook":       {file: "pkg/report/webhook.go", imports: "./webhook/decision", want: []string{"depguard: pkg"}},
	"pkg does not see nodeagent":     {file: "pkg/report/nodeagent.go", imports: "./nodeagent/layout", want: []string{"depguard: pkg"}},
	"pkg does not see test":          {file: "pkg/report/e2e.go", imports: "./test/e2e", want: []string{"depguard: product-without-test"}},
	"pkg's test does not see webhook": {file: "pkg/report/webhook_test.go",
		imports: "./webhook/decision", want: []string{"depguard: pkg"}},

	// Libraries that are limited to some packages.
	"nodeagent without controller-runtime": {
		file: "nodeagent/internal/agent/manager.go", imports: "sigs.k8s.io/controller-runtime/pkg/manager",
		want: []string{"depguard: controller-runtime-in-webhook-only"},
	},
	"report without controller-runtime": {
		file: "pkg/report/manager.go", imports: "sigs.k8s.io/controller-runtime/pkg/manager",
		want: []string{"depguard: controller-runtime-in-webhook-only"},
	},
	"webhook without the whole clientset": {
		file: "webhook/internal/audit/clientset.go", imports: "k8s.io/client-go/kubernetes",
		want: []string{"depguard: no-whole-clientset"},
	},
	"nodeagent without the whole clientset": {
		file: "nodeagent/internal/agent/clientset.go", imports: "k8s.io/client-go/kubernetes",
		want: []string{"depguard: no-whole-clientset"},
	},
	"report without the whole clientset": {
		file: "pkg/report/clientset.go", imports: "k8s.io/client-go/kubernetes",
		want: []string{"depguard: no-whole-clientset"},
	},
	"report without informers for it": {
		file: "pkg/report/informers.go", imports: "k8s.io/client-go/informers",
		want: []string{"depguard: no-whole-clientset"},
	},
	"webhook without the test PKI": {
		file: "webhook/internal/admit/pkitest.go", imports: "./internal/pkitest",
		want: []string{"depguard: pkitest-in-tests-only"},
	},
	"check without the test PKI, whose path begins like pki's": {
		file: "pkg/check/pkitest.go", imports: "./internal/pkitest",
		want: []string{"depguard: check", "depguard: pkitest-in-tests-only"},
	},

	// pkg is pure.
	"pkg without client-go": {file: "internal/version/client.go", imports: "k8s.io/client-go/rest", want: []string{"depguard: pkg-is-pure"}},
	"pkg without fsnotify":  {file: "internal/version/watch.go", imports: "github.com/fsnotify/fsnotify", want: []string{"depguard: pkg-is-pure"}},
	"pkg without log":       {file: "internal/version/log.go", imports: "log", want: []string{"depguard: pkg-is-pure"}},
	"pkg without slog":      {file: "internal/version/slog.go", imports: "log/slog", want: []string{"depguard: pkg-is-pure"}},
	"pkg without logr":      {file: "internal/version/logr.go", imports: "github.com/go-logr/logr", want: []string{"depguard: pkg-is-pure"}},
	"pkg without klog":      {file: "internal/version/klog.go", imports: "k8s.io/klog/v2", want: []string{"depguard: pkg-is-pure"}},
	"a test of pkg without slog": {file: "internal/version/slog_test.go", imports: "log/slog",
		want: []string{"depguard: pkg-is-pure"}},
	"pkg without Prometheus": {
		file: "internal/version/metrics.go", imports: "github.com/prometheus/client_golang/prometheus",
		want: []string{"depguard: pkg-is-pure"},
	},
	"pkg without controller-runtime": {
		file: "internal/version/manager.go", imports: "sigs.k8s.io/controller-runtime/pkg/manager",
		want: []string{"depguard: controller-runtime-in-webhook-only", "depguard: pkg-is-pure"},
	},

	// Packages with a list of allowed imports.
	"command without Kubernetes":             {file: "internal/command/types.go", imports: "k8s.io/apimachinery/pkg/types", want: []string{"depguard: command"}},
	"plainyaml without Kubernetes":           {file: "internal/plainyaml/types.go", imports: "k8s.io/apimachinery/pkg/types", want: []string{"depguard: plainyaml"}},
	"kubeapiserver without aliases":          {file: "pkg/kubeapiserver/alias.go", imports: "sigs.k8s.io/yaml", want: []string{"depguard: kubeapiserver"}},
	"staticpod without aliases":              {file: "internal/staticpod/alias.go", imports: "sigs.k8s.io/yaml", want: []string{"depguard: staticpod"}},
	"evidence without checks":                {file: "pkg/evidence/check.go", imports: "./pkg/check", want: []string{"depguard: evidence"}},
	"control without checks":                 {file: "pkg/control/check.go", imports: "./pkg/check", want: []string{"depguard: control"}},
	"control without certificates":           {file: "pkg/control/pki.go", imports: "./pkg/pki", want: []string{"depguard: control"}},
	"control without Kubernetes":             {file: "pkg/control/types.go", imports: "k8s.io/apimachinery/pkg/types", want: []string{"depguard: control"}},
	"control without YAML":                   {file: "pkg/control/yaml.go", imports: "sigs.k8s.io/yaml", want: []string{"depguard: control"}},
	"control without the clock":              {file: "pkg/control/clock.go", uses: "time.Now", want: []string{"forbidigo: time.Now"}},
	"kubeapiserver without findings":         {file: "pkg/kubeapiserver/finding.go", imports: "./pkg/finding", want: []string{"depguard: kubeapiserver"}},
	"cmdline without the configuration":      {file: "internal/cmdline/config.go", imports: "./pkg/kubeapiserver", want: []string{"depguard: cmdline"}},
	"cmdline runs no script":                 {file: "internal/cmdline/interp.go", imports: "mvdan.cc/sh/v3/interp", want: []string{"depguard: cmdline"}},
	"staticpod without findings":             {file: "internal/staticpod/finding.go", imports: "./pkg/finding", want: []string{"depguard: staticpod"}},
	"policy without a client":                {file: "webhook/internal/policy/client.go", imports: "k8s.io/client-go/rest", want: []string{"depguard: policy"}},
	"prove without the audit":                {file: "webhook/internal/prove/audit.go", imports: "./webhook/internal/audit", want: []string{"depguard: prove"}},
	"prove without a manager":                {file: "webhook/internal/prove/manager.go", imports: "sigs.k8s.io/controller-runtime/pkg/manager", want: []string{"depguard: prove"}},
	"finding without Kubernetes":             {file: "pkg/finding/types.go", imports: "k8s.io/apimachinery/pkg/types", want: []string{"depguard: finding"}},
	"finding without this module":            {file: "pkg/finding/version.go", imports: "./internal/version", want: []string{"depguard: finding"}},
	"pki without the rest of x":              {file: "pkg/pki/net.go", imports: "golang.org/x/net/idna", want: []string{"depguard: pki"}},
	"pki without findings":                   {file: "pkg/pki/finding.go", imports: "./pkg/finding", want: []string{"depguard: pki"}},
	"check without Kubernetes":               {file: "pkg/check/types.go", imports: "k8s.io/apimachinery/pkg/types", want: []string{"depguard: check"}},
	"check without YAML":                     {file: "pkg/check/yaml.go", imports: "sigs.k8s.io/yaml", want: []string{"depguard: check"}},
	"check without the layout of a node":     {file: "pkg/check/staticpod.go", imports: "./internal/staticpod", want: []string{"depguard: check"}},
	"kubeapiserver without Kubernetes":       {file: "pkg/kubeapiserver/types.go", imports: "k8s.io/apimachinery/pkg/types", want: []string{"depguard: kubeapiserver"}},
	"kubeapiserver without pki":              {file: "pkg/kubeapiserver/pki.go", imports: "./pkg/pki", want: []string{"depguard: kubeapiserver"}},
	"staticpod without pki":                  {file: "internal/staticpod/pki.go", imports: "./pkg/pki", want: []string{"depguard: staticpod"}},
	"staticpod without the API server's lib": {file: "internal/staticpod/apiserver.go", imports: "k8s.io/apiserver/pkg/admission", want: []string{"depguard: staticpod"}},
	"a test of pkg with another library":     {file: "pkg/pki/net_test.go", imports: "golang.org/x/net/idna", want: []string{"depguard: pkg-tests"}},

	// Packages that may not be imported.
	"no testify":    {file: "test/e2e/testify_test.go", imports: "github.com/stretchr/testify/require", want: []string{"depguard: everywhere"}},
	"no gomega":     {file: "webhook/internal/admit/gomega_test.go", imports: "github.com/onsi/gomega", want: []string{"depguard: everywhere"}},
	"no ginkgo":     {file: "nodeagent/internal/agent/ginkgo_test.go", imports: "github.com/onsi/ginkgo/v2", want: []string{"depguard: everywhere"}},
	"no ptr":        {file: "webhook/internal/admit/ptr.go", imports: "k8s.io/utils/ptr", want: []string{"depguard: everywhere"}},
	"no pkg/errors": {file: "pkg/report/errors.go", imports: "github.com/pkg/errors", want: []string{"depguard: everywhere"}},
	"no ioutil":     {file: "nodeagent/internal/scan/ioutil.go", imports: "io/ioutil", want: []string{"depguard: everywhere", "staticcheck: SA1019"}},

	// Time and the host.
	"pkg does not read the clock": {file: "pkg/check/now.go", uses: "time.Now",
		want: []string{"forbidigo: time.Now"}},
	"pkg does not use time.Until": {file: "pkg/check/until.go", uses: "time.Until",
		want: []string{"forbidigo: time.Until"}},
	"pkg does not wait": {file: "internal/version/after.go", uses: "time.After",
		want: []string{"forbidigo: time.After"}},
	"pkg reads no file":        {file: "internal/staticpod/read.go", uses: "os.ReadFile", want: []string{"forbidigo: os.ReadFile"}},
	"pkg reads no environment": {file: "internal/version/environment.go", uses: "os.Getenv", want: []string{"forbidigo: os.Getenv"}},
	"pkg walks no folder":      {file: "internal/staticpod/walk.go", uses: "path/filepath.WalkDir", want: []string{"forbidigo: filepath.WalkDir"}},
	"an import alias does not help": {
		file: "pkg/check/clock.go", source: "import clock \"time\"\n\nvar _ = clock.Now",
		want: []string{"forbidigo: clock.Now"},
	},

	// The process.
	"the product does not print directly": {file: "nodeagent/print.go", uses: "fmt.Println",
		want: []string{"forbidigo: fmt.Println"}},
	"only main.go exits":   {file: "nodeagent/run.go", uses: "os.Exit", want: []string{"forbidigo: os.Exit"}},
	"log.Fatal is an exit": {file: "nodeagent/fatal.go", uses: "log.Fatalf", want: []string{"forbidigo: log.Fatalf"}},
	"only main.go makes root contexts": {file: "webhook/run.go", uses: "context.Background",
		want: []string{"forbidigo: context.Background"}},
	"context.TODO is forbidden, too": {file: "test/e2e/todo.go", uses: "context.TODO",
		want: []string{"forbidigo: context.TODO"}},
	"a test does not exit": {file: "webhook/exit_test.go", uses: "os.Exit",
		want: []string{"forbidigo: os.Exit"}},
	"a test does not sleep":  {file: "test/e2e/sleep_test.go", uses: "time.Sleep", want: []string{"forbidigo: time.Sleep"}},
	"nothing runs at import": {file: "pkg/report/init.go", source: "func init() {}", want: []string{"gochecknoinits: don't use `init` function"}},
	"a test uses t.Context": {
		file: "webhook/run_test.go",
		source: `import (
	"context"
	"testing"
)

func TestRun(t *testing.T) {
	t.Log(context.Background())
}`,
		want: []string{"usetesting: context.Background() could be replaced by t.Context() in TestRun"},
	},

	// Names, logs, exceptions.
	"a Kubernetes package has one name": {
		file: "webhook/internal/admit/alias.go", source: "import v1 \"k8s.io/api/events/v1\"\n\nvar _ = v1.Stub",
		want: []string{`importas: import "k8s.io/api/events/v1" imported as "v1" but must be "eventsv1" according to config`},
	},
	"a message begins with a capital": {
		file: "pkg/report/lower.go", source: logging(`log.Info("finding raised", "what", what)`),
		want: []string{"sloglint: message should be capitalized"},
	},
	"a message is constant": {
		file: "pkg/report/dynamic.go", source: logging(`log.Info("Finding " + what)`),
		want: []string{"sloglint: message should be a string literal or a constant"},
	},
	"a key is in camelCase": {
		file: "pkg/report/snake.go", source: logging(`log.Info("Finding active", "not_after", what)`),
		want: []string{"sloglint: keys should be written in camelCase"},
	},
	"an error's key is err": {
		file: "pkg/report/error.go", source: logging(`log.Info("Finding active", "error", what)`),
		want: []string{`sloglint: the "error" key is forbidden and should not be used`},
	},
	"a logger is passed in": {
		file: "pkg/report/global.go", source: logging(`slog.Info("Finding active", "what", what, "by", log)`),
		want: []string{"sloglint: default logger should not be used"},
	},
	"an exception says why": {
		file: "nodeagent/why.go", source: "import \"fmt\"\n\nvar _ = fmt.Println //nolint:forbidigo",
		want: []string{"nolintlint: directive `//nolint:forbidigo` should provide explanation such as `//nolint:forbidigo // this is why`"},
	},
	"an exception names its linter": {
		file: "nodeagent/what.go", source: "import \"fmt\"\n\nvar _ = fmt.Println //nolint // it must be so",
		want: []string{"nolintlint: directive `//nolint // it must be so` should mention specific linter such as `//nolint:my-linter`"},
	},
}

// logging is a source with one statement that uses a logger and a string.
func logging(statement string) string {
	return "import \"log/slog\"\n\nvar _ = func(log *slog.Logger, what string) {\n\t" + statement + "\n}"
}

func TestPermittedPasses(t *testing.T) {
	got := lint(t, permitted)
	if diff := cmp.Diff(map[string][]string{}, got); diff != "" {
		t.Errorf("reports by file (-want +got):\n%s", diff)
	}
}

func TestForbiddenIsFound(t *testing.T) {
	all := maps.Clone(permitted)
	maps.Copy(all, forbidden)
	got := lint(t, all)
	for name, tc := range forbidden {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, got[tc.file]); diff != "" {
				t.Errorf("reports in %s (-want +got):\n%s", tc.file, diff)
			}
		})
		delete(got, tc.file)
	}
	if diff := cmp.Diff(map[string][]string{}, got); diff != "" {
		t.Errorf("reports in other files (-want +got):\n%s", diff)
	}
}

// lint writes a module of these files and their imports, and returns what golangci-lint reports, by
// file.
func lint(t *testing.T, fixtures map[string]fixture) map[string][]string {
	t.Helper()
	program := golangciLint(t)

	// Resolve links: golangci-lint compares the configuration's paths as text.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(root, ".golangci.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	files := moduleOf(t, fixtures)
	files[".golangci.yaml"] = string(config)
	for name, content := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), program, "run", "-c", ".golangci.yaml",
		"--output.json.path=stdout", "--show-stats=false", "./...")
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOPROXY=off", "GOWORK=off",
		"GOLANGCI_LINT_CACHE="+t.TempDir())
	command.Stdout = &stdout
	command.Stderr = &stderr
	err = command.Run()
	// Exit code 1 means that it reported something.
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
		t.Fatalf("%s: %v\n%s", program, err, &stderr)
	}
	var report struct{ Issues []issue }
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
		t.Fatalf("read the report of %s: %v\n%s\n%s", program, err, &stdout, &stderr)
	}
	found := map[string][]string{}
	for _, issue := range report.Issues {
		found[issue.Pos.Filename] = append(found[issue.Pos.Filename], formatIssue(issue))
	}
	for _, issues := range found {
		slices.Sort(issues)
	}
	return found
}

// golangciLint is the path of golangci-lint.
func golangciLint(t *testing.T) string {
	t.Helper()
	if program := os.Getenv("GOLANGCI_LINT"); program != "" {
		return program
	}
	program := filepath.Join(t.TempDir(), "golangci-lint")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join(root, "tools"), "-o", program,
		"github.com/golangci/golangci-lint/v2/cmd/golangci-lint")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build golangci-lint: %v\n%s", err, out)
	}
	return program
}

// issue is an issue in golangci-lint's JSON report.
type issue struct {
	FromLinter, Text string
	Pos              struct{ Filename string }
}

var (
	// Both also match the reason, so that a rule without a reason fails its test.
	depguardText  = regexp.MustCompile(`^import '.+' is not allowed from list '(.+)': .+$`)
	forbidigoText = regexp.MustCompile("^use of `(.+)` forbidden because \".+\"$")
	// More text follows, which is that of the standard library.
	staticcheckText = regexp.MustCompile(`^(SA1019): `)
)

// formatIssue formats an issue: the linter's name with the name of depguard's list, with what forbidigo
// forbids, with staticcheck's number, or else with the whole text.
func formatIssue(i issue) string {
	for _, text := range []*regexp.Regexp{depguardText, forbidigoText, staticcheckText} {
		if match := text.FindStringSubmatch(i.Text); match != nil {
			return i.FromLinter + ": " + match[1]
		}
	}
	return i.FromLinter + ": " + i.Text
}

// moduleOf is the generated module, by path: its go.mod, the fixtures' files, and a stub of each
// package that they import. Other modules are in stubs/.
func moduleOf(t *testing.T, fixtures map[string]fixture) map[string]string {
	t.Helper()
	files := map[string]string{}
	packages := map[string]bool{}
	modules := map[string]bool{}
	for name, tc := range fixtures {
		if files[tc.file] != "" {
			t.Fatalf("%s: another fixture has the file %s", name, tc.file)
		}
		source := "// SPDX-License-Identifier: Apache-2.0\n\npackage " + packageName(tc.file) + "\n\n" + sourceOf(tc) + "\n"
		files[tc.file] = source
		packages[path.Dir(tc.file)] = true
		parsed, err := parser.ParseFile(token.NewFileSet(), tc.file, source, parser.ImportsOnly)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			switch own, isOwn := strings.CutPrefix(imported, module+"/"); {
			case isOwn:
				packages[own] = true
			case strings.Contains(imported, "."):
				packages["stubs/"+imported] = true
				modules[moduleOfImport(imported)] = true
			}
		}
	}
	for dir := range packages {
		stub := path.Join(dir, "stub.go")
		files[stub] = "// SPDX-License-Identifier: Apache-2.0\n\n// Package " + packageName(
			stub,
		) + " is a stub.\npackage " + packageName(stub) + "\n\n" +
			"// Stub can be referenced.\nconst Stub = 0\n"
	}
	goMod := "module " + module + "\n\ngo 1.26\n"
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		version := "v0"
		if major := path.Base(name); majorVersion.MatchString(major) {
			version = major
		}
		goMod += "\nrequire " + name + " " + version + ".0.0\n\nreplace " + name + " => ./stubs/" + name + "\n"
		files["stubs/"+name+"/go.mod"] = "module " + name + "\n\ngo 1.26\n"
	}
	files["go.mod"] = goMod
	return files
}

// majorVersion is the end of a module path from the second major version on.
var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// sourceOf is the source after the package clause.
func sourceOf(f fixture) string {
	switch {
	case strings.HasPrefix(f.imports, "./"):
		return "import _ " + strconv.Quote(path.Join(module, f.imports))
	case f.imports != "":
		return "import _ " + strconv.Quote(f.imports)
	case f.uses != "":
		dot := strings.LastIndex(f.uses, ".")
		return "import " + strconv.Quote(f.uses[:dot]) + "\n\nvar _ = " + path.Base(f.uses)
	}
	return f.source
}

// moduleOfImport is the module path of a stub: the host and, on a host of many owners, the owner.
func moduleOfImport(imported string) string {
	parts := strings.Split(imported, "/")
	depth := 3
	if parts[0] == "k8s.io" || parts[0] == "sigs.k8s.io" {
		depth = 2
	}
	return path.Join(parts[:depth]...)
}

// packageName is the package name of a file, by its path.
func packageName(file string) string {
	dir := path.Dir(file)
	name := path.Base(dir)
	if dir == "webhook" || dir == "nodeagent" {
		name = "main"
	}
	name = strings.ReplaceAll(name, "-", "")
	if strings.HasSuffix(file, "_test.go") {
		name += "_test"
	}
	return name
}
