// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

func noEnvironment(string) string { return "" }

// TestUsage: an error in a command line, or in a file that it names, is one line that names the
// command, the flag and its value, and the exit code is 64.
func TestUsage(t *testing.T) {
	page := messages.Record(t, "errors of the flags of webhook")
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const head = "apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets:\n- " +
		"{namespace: ns, name: s, usage: "
	write("bad.yaml", head+"server}\n")
	write("no-decoy.yaml", head+"serverAuth}\n")
	write("decoy.yaml", head+"serverAuth}\ndecoy: {namespace: guard, name: decoy}\n")
	write("no-guard.yaml", "")
	write("passwd", passwd)
	for _, directory := range []string{
		"no-key", "no-pair", "pair", "foreign", "other-version", "by-hand", "copy", "broken",
		"list", "comment", "other-kind", "other-name",
	} {
		if err := os.Mkdir(filepath.Join(folder, directory), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	pair := pkitest.NewCA("ca").Issue(pkitest.ServingCert())
	write("no-key/tls.crt", string(pair.Certificate))
	write("no-pair/tls.crt", passwd)
	write("no-pair/tls.key", passwd)
	write("pair/tls.crt", string(pair.Certificate))
	write("pair/tls.key", string(pair.Key))
	write("foreign/theirs.yaml", "")
	write("other-version/kubelet-https-guard.yaml", staticHeader+"kind: Old\n")
	write("by-hand/kubelet-https-guard.yaml", "kind: ValidatingAdmissionPolicy\n")
	static := func(kind, name string) string {
		return "apiVersion: admissionregistration.k8s.io/v1\nkind: " + kind + "\nmetadata: {name: " + name + "}\n"
	}
	const own = "kubelet-https-guard-self-protection.static.k8s.io"
	write("copy/copy.yml", "---\n"+static("ValidatingAdmissionPolicy", "a.static.k8s.io")+"---\n"+
		static("ValidatingAdmissionPolicyBinding", own))
	write("list/list.yaml", "apiVersion: v1\nkind: List\nitems:\n- "+
		strings.ReplaceAll(strings.TrimSpace(static("ValidatingAdmissionPolicy", own)), "\n", "\n  ")+"\n")
	write("comment/comment.yaml", "# nothing\n")
	write("other-kind/other.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a.static.k8s.io}\n")
	write("other-name/other.yaml", static("ValidatingAdmissionPolicy", "a"))
	write("broken/broken.JSON", "{")
	write("other-guard.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
	const serve, audit, once, prove, policy = "serve --cert-dir ~ ", "audit --namespace n ", "audit --once ",
		"prove --config ~/decoy.yaml ", "policy "
	cases := map[string]struct {
		args, mentions string // ~ is the folder
	}{
		"serve: no certificate":          {"serve", "--cert-dir"},
		"flags alone: no certificate":    {"", "--cert-dir"},
		"serve: unknown flag":            {"serve --frobnicate", "--frobnicate"},
		"serve: an argument":             {serve + "now", `"now"`},
		"flags, then serve":              {"--cert-dir ~ serve", `"serve"`},
		"serve: no such directory":       {"serve --cert-dir /does/not/exist", "--cert-dir /does/not/exist"},
		"serve: a file for it":           {"serve --cert-dir ~/bad.yaml", "--cert-dir ~/bad.yaml"},
		"serve: no files in it":          {serve, "--cert-dir ~: tls.crt"},
		"serve: no key":                  {"serve --cert-dir ~/no-key", "--cert-dir ~/no-key: tls.key"},
		"serve: no certificate in them":  {"serve --cert-dir ~/no-pair", "--cert-dir ~/no-pair"},
		"serve: no client CA":            {"serve --cert-dir ~/pair --client-ca ~/none", "--client-ca ~/none"},
		"serve: none, its own pair":      {serve + "--self-managed-cert s --serving-names n --namespace n --client-ca ~/none", "--client-ca ~/none"},
		"audit: no configuration":        {audit + "--config ~/none", "--config ~/none"},
		"audit: no manifests":            {audit + "--guard-manifest ~/none", "--guard-manifest ~/none"},
		"once: no configuration":         {once + "--config ~/none", "--config ~/none"},
		"once: another file":             {once + "--guard-manifest ~/passwd", "--guard-manifest ~/passwd"},
		"serve: no port":                 {serve + "--bind-address localhost", `--bind-address "localhost"`},
		"serve: port too large":          {serve + "--bind-address :65536", `--bind-address ":65536"`},
		"serve: health, no port":         {serve + "--health-bind-address 8081", `--health-bind-address "8081"`},
		"serve: metrics, no directory":   {serve + "--metrics-cert-dir /does/not/exist", "--metrics-cert-dir /does/not/exist"},
		"serve: metrics, no API server":  {"serve --cert-dir ~/pair --metrics-cert-dir ~", "--metrics-cert-dir needs an API server"},
		"audit: metrics, no port":        {audit + "--metrics-tls-bind-address 8443", `--metrics-tls-bind-address "8443"`},
		"audit: metrics, users alone":    {audit + "--metrics-allowed-users a", "--metrics-allowed-users requires --metrics-cert-dir"},
		"once: metrics":                  {once + "--metrics-cert-dir ~", "--metrics-cert-dir"},
		"serve: delay too long":          {serve + "--shutdown-delay 61s", "--shutdown-delay 1m1s"},
		"serve: no serving names":        {serve + "--self-managed-cert s --namespace n", "--self-managed-cert"},
		"serve: own, no API server":      {serve + "--self-managed-cert s --namespace n --serving-names a", "--self-managed-cert"},
		"serve: no account":              {serve + "--namespace n --activation-binding b", "--activation-binding"},
		"serve: TLS too old":             {serve + "--tls-min-version VersionTLS11", `--tls-min-version "VersionTLS11"`},
		"serve: names without CA":        {serve + "--client-names a", "--client-names"},
		"serve: no such config":          {serve + "--config /does/not/exist", "--config /does/not/exist"},
		"serve: a directory for it":      {serve + "--config ~", "--config ~"},
		"serve: bad config":              {serve + "--config ~/bad.yaml", "--config ~/bad.yaml"},
		"serve: no such kubeconfig":      {"serve --cert-dir ~/pair --kubeconfig /does/not/exist", "--kubeconfig /does/not/exist"},
		"serve: a flag of prove":         {serve + "--guard-manifest g", "--guard-manifest"},
		"serve: log format":              {serve + "--log-format xml", `--log-format "xml"`},
		"serve: log level":               {serve + "--log-level loud", `--log-level "loud"`},
		"audit: no namespace":            {"audit", "--namespace"},
		"audit: no API server":           {audit, "--kubeconfig"},
		"audit: only once":               {audit + "-o json", "-o"},
		"audit: only once, too":          {audit + "--timeout 5s", "--timeout"},
		"audit: a CA without --kubelets": {audit + "--kubelet-ca-bundle n/c/k", "--kubelet-ca-bundle requires --kubelets"},
		"audit: a CA without a key":      {audit + "--kubelets --kubelet-ca-bundle n/c", "--kubelet-ca-bundle \"n/c\""},
		"audit: a CA with an empty name": {audit + "--kubelets --kubelet-ca-bundle n//k", "--kubelet-ca-bundle \"n//k\""},
		"audit: patience":                {audit + "--guard-patience -1s", "--guard-patience -1s"},
		"audit: health, no port":         {audit + "--health-bind-address 8081", `--health-bind-address "8081"`},
		"audit: log format":              {audit + "--log-format xml", `--log-format "xml"`},
		"audit: no such kubeconfig":      {audit + "--kubeconfig /does/not/exist", "--kubeconfig /does/not/exist"},
		"once: not once":                 {once + "--lease l", "--lease"},
		"once: an argument":              {once + "now", `"now"`},
		"once: unknown flag":             {once + "--all", "--all"},
		"once: unknown format":           {once + "-o yaml", `-o "yaml"`},
		"once: two sources":              {once + "--installed a/b --config c", "--installed"},
		"once: two sources, too":         {once + "--installed a/b --guard-manifest g", "--installed"},
		"once: no name":                  {once + "--installed a", `--installed "a"`},
		"once: half a name":              {once + "--installed a/", `--installed "a/"`},
		"once: too little time":          {once + "--timeout 1s", "--timeout 1s"},
		"once: no API server":            {once, "--kubeconfig"},
		"once: no such kubeconfig":       {once + "--kubeconfig /does/not/exist", "--kubeconfig /does/not/exist"},
		"prove: no config":               {"prove", "--config"},
		"prove: no guard":                {prove, "--guard-manifest"},
		"prove: no such guard":           {prove + "--guard-manifest /does/not/exist", "--guard-manifest /does/not/exist"},
		"prove: another guard":           {prove + "--guard-manifest ~/other-guard.yaml", "--guard-manifest ~/other-guard.yaml"},
		"prove: an empty guard":          {prove + "--guard-manifest ~/no-guard.yaml", "--guard-manifest ~/no-guard.yaml"},
		"prove: no decoy":                {"prove --config ~/no-decoy.yaml --guard-manifest ~/no-guard.yaml", "--config ~/no-decoy.yaml"},
		"prove: wait too long":           {prove + "--wait 11m", "--wait 11m"},
		"prove: a flag of serve":         {prove + "--cert-dir d", "--cert-dir"},
		"policy: an argument":            {policy + "all", `"all"`},
		"policy: unknown flag":           {policy + "--all", "--all"},
		"policy: a bad prefix":           {policy + "--name-prefix A", `--name-prefix "A"`},
		"policy: no label":               {policy + "--labels a=b,c", `--labels "c"`},
		"policy: a label without name":   {policy + "--labels =b", `--labels "=b"`},
		"policy: no such config":         {policy + "--config /does/not/exist", "--config /does/not/exist"},
		"policy: bad config":             {policy + "--config ~/bad.yaml", "--config ~/bad.yaml"},
		"policy: a directory for it":     {policy + "--config ~", "--config ~"},
		"policy: below a file":           {policy + "--config ~/bad.yaml/x", "--config ~/bad.yaml/x"},
		"policy: no value":               {policy + "--config", "--config"},
		"policy: protected twice":        {policy + "--static --self-protection", "--self-protection cannot be used with --static"},
		"policy: allowed for nothing":    {policy + "--allowed-users a", "--allowed-users requires --self-protection"},
		"policy: no --static":            {policy + "--directory d", "--directory requires --static"},
		"policy: nothing to replace":     {policy + "--static --replace", "--replace requires --directory"},
		"policy: a bad namespace":        {policy + "--static --namespace A", `--namespace "A"`},
		"policy: no such directory":      {policy + "--static --directory /does/not/exist", "--directory /does/not/exist"},
		"policy: a file for a directory": {policy + "--static --directory ~/bad.yaml", "--directory ~/bad.yaml"},
		"policy: other static policies":  {policy + "--static --directory ~/foreign", "--directory ~/foreign: is not empty"},
		"policy: those of another version": {policy + "--static --directory ~/other-version",
			"--directory ~/other-version: kubelet-https-guard.yaml has the policies of another version"},
		"policy: a file by somebody": {policy + "--static --directory ~/by-hand --replace",
			"--directory ~/by-hand: kubelet-https-guard.yaml was not written by webhook policy --static"},
		"policy: the same names twice": {policy + "--static --directory ~/copy --replace",
			"--directory ~/copy: copy.yml: also has an object with the name"},
		"policy: the same name in a list": {policy + "--static --directory ~/list --replace",
			"--directory ~/list: list.yaml: also has an object with the name"},
		"policy: only a comment beside it": {policy + "--static --directory ~/comment --replace",
			"--directory ~/comment: comment.yaml: has an object of kind"},
		"policy: another kind beside it": {policy + "--static --directory ~/other-kind --replace",
			"--directory ~/other-kind: other.yaml: has an object of kind"},
		"policy: another name beside it": {policy + "--static --directory ~/other-name --replace",
			"--directory ~/other-name: other.yaml: has an object with the name"},
		"policy: no YAML beside it": {policy + "--static --directory ~/broken --replace",
			"--directory ~/broken: broken.JSON: cannot be parsed"},
		"policy: a flag of old versions": {policy + "--log-level debug", "--log-level"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			args := strings.Fields(strings.ReplaceAll(c.args, "~", folder))
			command := "serve"
			if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				command = args[0]
			}
			mentions := strings.ReplaceAll(c.mentions, "~", folder)
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), args, noEnvironment, &stdout, &stderr)
			said := stderr.String() // one line: nothing is logged before it
			page.Text(strings.Split(name, ":")[0], strings.ReplaceAll(said, folder, "/folder"))
			if code != 64 || strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "webhook "+command+": ") ||
				!strings.Contains(said, mentions) ||
				stdout.Len() > 0 {
				t.Errorf("got exit code %d, %q and on stdout %q; want 64 and a line of webhook %s that mentions %q", code, said,
					&stdout, command, mentions)
			}
		})
	}
}

// TestFailed: a valid command that fails ends with exit code 3, and the error names the flag.
func TestFailed(t *testing.T) {
	page := messages.Record(t, "failures of webhook")
	folder := t.TempDir()
	now := time.Now()
	pair := pkitest.NewCAAround("ca", now).Issue(pkitest.ServingCert().Valid(now.Add(-time.Hour), now.Add(time.Hour)))
	const config = "apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets: " +
		"[{namespace: a, name: b, usage: serverAuth}]\ndecoy: {namespace: guard, name: decoy}\n"
	const guard = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: " +
		"w}\nwebhooks: [{name: w.example.com, rules: [{resources: [secrets]}]}]\n"
	const kubeconfig = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: " +
		"'https://127.0.0.1:1'}}]\ncontexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n"
	for name, data := range map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key,
		"kubeconfig": []byte(kubeconfig),
		"bad-server": []byte(strings.Replace(kubeconfig, "https://127.0.0.1:1", "https://user:hush@a:b:c", 1)),
		"bad-ca": []byte(strings.Replace(kubeconfig, "{server", "{certificate-authority-data: Z2FyYmFnZQ==, server",
			1)), "config": []byte(config), "guard": []byte(guard)} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	address := taken.Addr().String()
	cases := map[string]struct {
		args, want string
		code       int
	}{
		"serve, no client CA":       {"serve --cert-dir ~ --client-ca /does/not/exist", "webhook serve: --client-ca /does/not/exist: ", 64},
		"serve, another client CA":  {"serve --cert-dir ~ --client-ca ~/config", "--client-ca ~/config: ", 64},
		"serve, no server":          {"serve --cert-dir ~ --kubeconfig ~/bad-server", "--kubeconfig ~/bad-server: ", 64},
		"audit, bad CA":             {"audit --once --kubeconfig ~/bad-ca", "/bad-ca: ", 64},
		"serve, the address":        {"serve --cert-dir ~ --health-bind-address 0 --bind-address " + address, "--bind-address " + address + ": ", 3},
		"serve, the health address": {"serve --cert-dir ~ --bind-address 127.0.0.1:0 --health-bind-address " + address, "--health-bind-address " + address + ": ", 3},
		"audit, the health address": {"audit --namespace n --kubeconfig ~/kubeconfig --health-bind-address " + address, "--health-bind-address " + address + ": ", 3},
		"prove, no answer":          {"prove --kubeconfig ~/kubeconfig --config ~/config --guard-manifest ~/guard --wait 0s", "", 2},
		"once, the ConfigMap":       {"audit --once --kubeconfig ~/kubeconfig --installed a/b", "--installed a/b: ", 3},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), strings.Fields(strings.ReplaceAll(c.args, "~", folder)), noEnvironment, &stdout, &stderr)
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			said := strings.NewReplacer(folder, "/folder", address, "192.0.2.1:8443").Replace(lines[len(lines)-1])
			if _, logged, ok := strings.Cut(said, `"err":"`); ok {
				said = strings.TrimSuffix(logged, `"}`)
			}
			if code == 64 || code == 3 {
				page.Text(name, said)
			}
			if code != c.code || !strings.Contains(stderr.String(), strings.ReplaceAll(c.want, "~", folder)) ||
				strings.Contains(stderr.String(), "hush") {
				t.Errorf("exit code %d, want %d and %q in\n%s", code, c.code, c.want, &stderr)
			}
		})
	}
}

// full is an output that cannot be written.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestNotWritten: if the output cannot be written, the exit code is 3, not that of a verdict.
func TestNotWritten(t *testing.T) {
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"policy"}, noEnvironment, full{}, &stderr)
	if code != 3 || !strings.HasSuffix(stderr.String(), ": no space left on device\n") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}

// TestHelp: each command prints its exit codes on stdout, and its help has exactly the flags that
// it defines.
func TestHelp(t *testing.T) {
	for _, c := range program(noEnvironment).Commands {
		t.Run(c.Name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), []string{c.Name, "--help"}, noEnvironment, &stdout, &stderr); code != 0 ||
				stderr.Len() > 0 {
				t.Errorf("exit code %d, on stderr %q", code, &stderr)
			}
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			c.New(flags)
			flags.VisitAll(func(f *flag.Flag) {
				if !slices.ContainsFunc(c.Groups, func(g command.Group) bool { return slices.Contains(g.Flags, f.Name) }) {
					t.Errorf("flag %s is in no group", f.Name)
				}
			})
			for _, group := range c.Groups {
				for _, name := range group.Flags {
					if flags.Lookup(name) == nil {
						t.Errorf("group %s has flag %s, which is not defined", group.Title, name)
					}
				}
			}
			for _, exit := range c.Exits {
				if !strings.Contains(stdout.String(), fmt.Sprintf("\n  %-3d %s\n", exit, exit.Meaning())) {
					t.Errorf("exit code %d is not shown", exit)
				}
			}
		})
	}
}

// TestOldSpellings: the command lines of old manifests and scripts still work, and deprecated
// ones print what to use instead.
func TestOldSpellings(t *testing.T) {
	page := messages.Record(t, "old spellings of webhook")
	cases := map[string]struct {
		args       string
		deprecated bool
		// mentions is the beginning of the error.
		mentions string
		code     int
	}{
		"flags alone":            {"--cert-dir /does/not/exist", false, "webhook serve: --cert-dir /does/not/exist", 64},
		"--prove":                {"--prove --config /does/not/exist --guard g", true, "webhook prove: --config /does/not/exist", 64},
		"--prove at the end":     {"--config /does/not/exist -guard=g -prove=true", true, "webhook prove: --config /does/not/exist", 64},
		"--prove-patience":       {"--prove --prove-patience 11m", true, "webhook prove: --wait 11m", 64},
		"--prove-patience=":      {"--prove -prove-patience=11m", true, "webhook prove: --wait 11m", 64},
		"--prove and its --help": {"--prove --help", true, "", 0},
		"version":                {"version", false, "", 0},
		"--version":              {"--version", false, "", 0},
		"help":                   {"help", false, "", 0},
		"--help":                 {"--help", false, "", 0},
		"help of a command":      {"help prove", false, "", 0},
		"an unknown command":     {"proof", false, "webhook: unknown command \"proof\"", 64},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), strings.Fields(c.args), noEnvironment, &stdout, &stderr)
			said, deprecated := stderr.String(), false
			if notice, rest, ok := strings.Cut(said, "\n"); ok && strings.Contains(notice, "--prove") &&
				strings.Contains(notice, "'webhook prove'") {
				said, deprecated = rest, true
				page.Text("deprecated", notice)
			}
			page.Text("spellings", said)
			if code != c.code || deprecated != c.deprecated || (said == "") != (c.mentions == "") ||
				!strings.HasPrefix(said, c.mentions) ||
				(code == 0) != (stdout.Len() > 0) {
				t.Errorf("exit code %d, want %d; stdout %q; stderr %q, want %q (deprecated: %t)", code, c.code, &stdout, &stderr,
					c.mentions, c.deprecated)
			}
		})
	}
}

// passwd is a file that is given by mistake.
const passwd = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin/nologin\n"

func TestLoadConfig(t *testing.T) {
	page := messages.Record(t, "errors of the configuration of webhook")
	const head = "apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\n"
	const one = head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth}\n"
	cases := map[string]struct {
		file    string
		want    int // protected Secrets
		wantErr string
	}{
		"one Secret":          {file: one, want: 1},
		"as JSON":             {file: `{"apiVersion":"kubelet-https-guard.io/v1alpha1","kind":"WebhookConfiguration","protectedSecrets":[{"namespace":"ns","name":"s","usage":"clientAuth"}]}`, want: 1},
		"nothing":             {file: "", wantErr: `kind ""`},
		"another kind":        {file: "apiVersion: v1\nkind: ConfigMap\n", wantErr: `kind "ConfigMap"`},
		"no Secret":           {file: head, wantErr: "protectedSecrets"},
		"a misspelt field":    {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, dnsName: x}\n", wantErr: "dnsName"},
		"an unknown field":    {file: one + "protected: []\n", wantErr: "protected"},
		"no name":             {file: head + "protectedSecrets:\n- {namespace: ns, usage: serverAuth}\n", wantErr: `protectedSecrets[0].name ""`},
		"twice the same":      {file: one + "- {namespace: ns, name: s, usage: serverAuth}\n", wantErr: "protectedSecrets[1]"},
		"a decoy":             {file: one + "decoy: {namespace: guard, name: guard-decoy}\n", want: 1},
		"a decoy, half":       {file: one + "decoy: {namespace: guard}\n", wantErr: `decoy.name ""`},
		"a protected decoy":   {file: one + "decoy: {namespace: ns, name: s}\n", wantErr: "decoy"},
		"half an owner":       {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, owners: [{apiVersion: v1}]}\n", wantErr: "protectedSecrets[0].owners[0].kind"},
		"a key policy":        {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, keyPolicy: {minimumRSABits: 3072, allowedAlgorithms: [RSA, ECDSA P-384, ML-DSA-65], outcome: Fail}}\n", want: 1},
		"too small a minimum": {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, keyPolicy: {minimumRSABits: 1024}}\n", wantErr: "protectedSecrets[0].keyPolicy.minimumRSABits 1024"},
		"no such algorithm":   {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, keyPolicy: {allowedAlgorithms: [P-256]}}\n", wantErr: `protectedSecrets[0].keyPolicy.allowedAlgorithms: "P-256"`},
		"an algorithm twice":  {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, keyPolicy: {allowedAlgorithms: [RSA, RSA]}}\n", wantErr: "listed twice"},
		"no such outcome":     {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, keyPolicy: {outcome: fail}}\n", wantErr: `protectedSecrets[0].keyPolicy.outcome "fail"`},
		"an unknown usage":    {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: server}\n", wantErr: `protectedSecrets[0].usage "server"`},
		"no usage":            {file: head + "protectedSecrets:\n- {namespace: ns, name: s}\n", wantErr: `protectedSecrets[0].usage ""`},
		"an unknown manager":  {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, managedBy: me}\n", wantErr: `protectedSecrets[0].managedBy "me"`},
		"a useless service":   {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, service: api}\n", wantErr: `protectedSecrets[0].service "api"`},
		"a fraction of 1":     {file: one + "expiringFraction: 1\n", wantErr: "expiringFraction 1"},
		"all there is":        {file: head + "overridesAction: Warn\nprotectedSecrets:\n- {namespace: ns, name: s, type: Opaque, usage: serverAuth, dnsNames: [a], managedBy: service-ca, service: api, renewedBy: [x], action: Audit}\n", want: 1},
		"an unknown action":   {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, action: deny}\n", wantErr: `protectedSecrets[0].action "deny"`},
		"unknown, overrides":  {file: one + "overridesAction: Refuse\n", wantErr: `overridesAction "Refuse"`},
		"a file with CAs":     {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, caBundleFile: ca.crt}\n", wantErr: "caBundleFile"},
		"half a bundle":       {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, caBundleConfigMap: {namespace: ns, name: ca}}\n", wantErr: "protectedSecrets[0].caBundleConfigMap.key"},
		"a selector": {file: head + "protectedSecrets:\n- {name: s, usage: clientAuth, type: Opaque, expiringFraction: 0.08, " +
			"namespaceSelector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: Exists}]}, " +
			"renewedByServiceAccounts: [control-plane-operator], identity: {commonName: cn, organization: o}, " +
			"caBundleConfigMap: {name: ca, key: ca.crt}}\n- {namespace: ns, name: s, usage: serverAuth}\n", want: 2},
		"neither namespace nor selector": {
			file: head + "protectedSecrets:\n- {name: s, usage: clientAuth}\n", wantErr: `protectedSecrets[0].namespace ""`,
		},
		"namespace and selector": {
			file:    head + "protectedSecrets:\n- {namespace: ns, name: s, usage: clientAuth, namespaceSelector: {matchLabels: {a: b}}}\n",
			wantErr: "protectedSecrets[0].namespaceSelector: cannot be used with namespace",
		},
		"an empty selector": {
			file:    head + "protectedSecrets:\n- {name: s, usage: clientAuth, namespaceSelector: {}}\n",
			wantErr: "protectedSecrets[0].namespaceSelector: must not be empty",
		},
		"an unknown operator": {
			file:    head + "protectedSecrets:\n- {name: s, usage: clientAuth, namespaceSelector: {matchExpressions: [{key: a, operator: exists}]}}\n",
			wantErr: `protectedSecrets[0].namespaceSelector: "exists" is not`,
		},
		"a selector and service-ca": {
			file:    head + "protectedSecrets:\n- {name: s, usage: clientAuth, managedBy: service-ca, namespaceSelector: {matchLabels: {a: b}}}\n",
			wantErr: "protectedSecrets[0].namespaceSelector: cannot be used with managedBy",
		},
		"two selectors": {
			file: head + "protectedSecrets:\n- {name: s, usage: clientAuth, namespaceSelector: {matchLabels: {a: b}}}\n" +
				"- {name: s, usage: clientAuth, namespaceSelector: {matchLabels: {a: c}}}\n",
			wantErr: "protectedSecrets[1]: s is listed twice with a namespaceSelector",
		},
		"an identity without a name": {
			file:    head + "protectedSecrets:\n- {namespace: ns, name: s, usage: clientAuth, identity: {organization: o}}\n",
			wantErr: "protectedSecrets[0].identity.commonName",
		},
		"a fraction of one Secret": {
			file:    head + "protectedSecrets:\n- {namespace: ns, name: s, usage: clientAuth, expiringFraction: 1.5}\n",
			wantErr: "protectedSecrets[0].expiringFraction 1.5",
		},
		"a user as a ServiceAccount": {
			file:    head + "protectedSecrets:\n- {namespace: ns, name: s, usage: clientAuth, renewedByServiceAccounts: ['a:b']}\n",
			wantErr: `protectedSecrets[0].renewedByServiceAccounts[0] "a:b"`,
		},
		"a key twice":       {file: one + "kind: WebhookConfiguration\n", wantErr: "line 5"},
		"two documents":     {file: one + "---\n" + one, wantErr: "YAML"},
		"a list for a name": {file: head + "protectedSecrets:\n- {namespace: ns, name: [], usage: serverAuth}\n", wantErr: "line 4"},
		"no YAML":           {file: "a: b: c", wantErr: "mapping values"},
		"too large":         {file: one + strings.Repeat("#", 1<<20), wantErr: "1048576"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			protected, err := loadConfig(source{path: path})
			if err != nil {
				page.Text(name, strings.ReplaceAll(err.Error(), path, "/config.yaml"))
			}
			switch {
			case c.wantErr == "" && err != nil, c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)):
				t.Errorf("loadConfig: error %v, want one with %q", err, c.wantErr)
			case len(protected.protected) != c.want:
				t.Errorf("loadConfig: %d Secrets, want %d", len(protected.protected), c.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "--config "+path+": ") {
				t.Errorf("the error does not name the file: %v", err)
			}
		})
	}
	if _, err := loadConfig(source{path: "/does/not/exist"}); err == nil ||
		!strings.HasPrefix(err.Error(), "--config /does/not/exist: ") {
		t.Errorf("loadConfig of a missing file: %v", err)
	}
}

// TestParseGuard: only objects that register the guard are accepted, and each must have a name.
func TestParseGuard(t *testing.T) {
	page := messages.Record(t, "errors of the manifests of the guard")
	const policy = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: p}\n"
	const binding = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: b}\n"
	cases := map[string]struct {
		text    string
		want    []string
		wantErr string
	}{
		"nothing":          {text: "# a comment\n---\n"},
		"two":              {text: policy + "---\n" + binding, want: []string{"p", "b"}},
		"another group":    {text: policy + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n", wantErr: `kind "Secret"`},
		"without a name":   {text: strings.ReplaceAll(policy, "p}", `""}`), wantErr: `kind "ValidatingAdmissionPolicy"`},
		"with a namespace": {text: strings.ReplaceAll(binding, "b}", "b, namespace: there}"), wantErr: `kind "ClusterRoleBinding"`},
		"no YAML":          {text: "a: b: c", wantErr: "not a Kubernetes manifest"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			guard, err := parseGuard([]byte(c.text))
			page.Error(name, err)
			if c.wantErr == "" && err != nil || c.wantErr != "" && (err == nil || !strings.HasPrefix(err.Error(), c.wantErr)) {
				t.Errorf("error %v, want one that begins with %q", err, c.wantErr)
			}
			var names []string
			for _, o := range guard {
				names = append(names, o.GetName())
			}
			if d := cmp.Diff(c.want, names); d != "" && c.wantErr == "" {
				t.Errorf("objects (-want +got):\n%s", d)
			}
		})
	}
}

// TestDefaultConfig: without a file the Secrets of OpenShift are protected. The service CA, from
// the program's namespace, or else from the Secret's, must have signed the one of service-ca.
func TestDefaultConfig(t *testing.T) {
	kubeletCA := admit.CABundle{
		Namespace: "openshift-kube-apiserver-operator",
		Name:      "kube-apiserver-to-kubelet-client-ca",
		Key:       "ca-bundle.crt",
	}
	for namespace, want := range map[string]string{"guard": "guard", "": "openshift-apiserver"} {
		t.Run("namespace "+namespace, func(t *testing.T) {
			loaded, err := loadConfig(source{namespace: namespace})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]admit.CABundle{}
			for _, s := range loaded.subject(0).Secrets {
				got[s.Namespace+"/"+s.Name] = *s.Bundle
			}
			if d := cmp.Diff(map[string]admit.CABundle{
				"openshift-apiserver/serving-cert":        {Namespace: want, Name: "openshift-service-ca.crt", Key: "service-ca.crt"},
				"openshift-kube-apiserver/kubelet-client": kubeletCA,
			}, got); d != "" {
				t.Errorf("bundles (-want +got):\n%s", d)
			}
		})
	}
}

// TestChartProtectsTheSame: the chart protects the same Secrets by default as the program: make
// generate writes the embedded list into values.yaml.
func TestChartProtectsTheSame(t *testing.T) {
	data, err := os.ReadFile("../charts/kubelet-https-guard/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		ExpiringFraction float64                 `yaml:"expiringFraction"`
		ProtectedSecrets []protectedSecretConfig `yaml:"protectedSecrets"`
	}
	if err := yaml.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	var embedded []protectedSecretConfig
	if err := yaml.Unmarshal(defaultSecrets, &embedded); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(embedded, values.ProtectedSecrets); d != "" {
		t.Errorf("protected Secrets: run make generate (-embedded +chart):\n%s", d)
	}
	if values.ExpiringFraction != check.DefaultExpiringFraction {
		t.Errorf("expiring fraction: %v in the chart, %v in the code", values.ExpiringFraction, check.DefaultExpiringFraction)
	}
}
