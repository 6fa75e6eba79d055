// SPDX-License-Identifier: Apache-2.0

package cmdline_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/cmdline"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// seen formats words: a word that is partly unknown ends in "…", in "…*" if it may be several
// words, and in "…=" if the unknown part is plain.
func seen(words []cmdline.Word) []string {
	var all []string
	for _, w := range words {
		text := w.Text
		switch {
		case w.Several:
			text += "…*"
		case w.Plain:
			text += "…="
		case w.Undecided != "":
			text += "…"
		}
		all = append(all, text)
	}
	return all
}

// nothing is the result for a command line about which nothing is known.
func nothing() []string { return []string{"…*"} }

func env(name, value string) corev1.EnvVar { return corev1.EnvVar{Name: name, Value: value} }

func fromField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{
		Name:      name,
		ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}},
	}
}

func fromSecret(name string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "k"}}}
}

func fromConfigMap(name string) corev1.EnvVar {
	return corev1.EnvVar{
		Name:      name,
		ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{Key: "k", Optional: new(true)}},
	}
}

func words(all ...string) []string { return all }

// example is a command line, and its expected words.
type example struct {
	command, args []string
	env           []corev1.EnvVar
	want          []string
	// why is a part of the reason of the first word that is not known.
	why string
	// notRun is true if the shells of a test machine cannot run it, or run it differently.
	notRun bool
}

// openshift is the script of OpenShift's manifest.
const openshift = `LOCK=/var/log/kube-apiserver/.lock
# We should be able to acquire the lock immediately.
exec {LOCK_FD}>${LOCK} && flock --verbose -w 30 "${LOCK_FD}" || {
  echo "Failed to acquire lock for kube-apiserver. Please check setup container."
  exit 1
}
if [ -f /etc/kubernetes/none/ca-bundle.crt ]; then
  echo "Copying system trust bundle ..."
  cp -f /etc/kubernetes/none/ca-bundle.crt /etc/none/tls-ca-bundle.pem
fi

exec watch-termination --termination-touch-file=/var/log/kube-apiserver/.terminating --kubeconfig=/k -- hyperkube kube-apiserver --openshift-config=/etc/config.yaml --advertise-address=${HOST_IP} -v=2 --permit-address-sharing
`

// inExec are command lines without a shell.
func inExec() map[string]example {
	kube := func(more ...string) []string { return append([]string{"kube-apiserver"}, more...) }
	return map[string]example{
		"plain":                       {command: kube("--a=b", "--c", "d"), want: words("--a=b", "--c", "d")},
		"by its path":                 {command: words("/usr/local/bin/kube-apiserver", "--a"), want: words("--a")},
		"command and args":            {command: words("kube-apiserver"), args: words("--a"), want: words("--a")},
		"a space in a path":           {command: kube("--kubelet-client-key=/a b/tls.key"), want: words("--kubelet-client-key=/a b/tls.key")},
		"quotes stay":                 {command: kube(`--a="b"`, `'--c'`), want: words(`--a="b"`, `'--c'`)},
		"a comment is a word":         {command: kube("#", "--a"), want: words("#", "--a")},
		"newlines stay":               {command: kube("--a=b\n--c"), want: words("--a=b\n--c")},
		"an empty word":               {command: kube("", "--a"), want: words("", "--a")},
		"a variable":                  {command: kube("--a=$(D)/x"), env: []corev1.EnvVar{env("D", "/d d")}, want: words("--a=/d d/x")},
		"a variable for a whole flag": {command: kube("$(F)"), env: []corev1.EnvVar{env("F", "--a=b c")}, want: words("--a=b c")},
		"escaped":                     {command: kube("$$(F)", "$$$(F)"), env: []corev1.EnvVar{env("F", "x")}, want: words("$(F)", "$x")},
		"unknown stays":               {command: kube("$(F)", "$F", "${F}"), want: words("$(F)", "$F", "${F}")},
		"variables of variables":      {command: kube("$(C)"), env: []corev1.EnvVar{env("A", "a"), env("B", "$(A)$(C)"), env("C", "$(B)c")}, want: words("a$(C)c")},
		"the last of one name":        {command: kube("$(A)"), env: []corev1.EnvVar{env("A", "a"), env("A", "$(A)b")}, want: words("ab")},
		"set to nothing":              {command: kube("--a=$(A)"), env: []corev1.EnvVar{env("A", "")}, want: words("--a=")},
		"not expanded twice":          {command: kube("$(A)"), env: []corev1.EnvVar{env("A", "$$(B)"), env("B", "b")}, want: words("$(B)")},
		"from a field":                {command: kube("--a=$(IP)", "--b"), env: []corev1.EnvVar{fromField("IP", "status.hostIP")}, want: words("--a=…=", "--b"), why: `environment variable "IP" comes from a field ("status.hostIP")`},
		"from an annotation":          {command: kube("--a=$(N)"), env: []corev1.EnvVar{fromField("N", "metadata.annotations['a']")}, want: words("--a=…"), why: "comes from a field"},
		"from a Secret":               {command: kube("--a=$(S)/x", "--b"), env: []corev1.EnvVar{fromSecret("S")}, want: words("--a=…", "--b"), why: `environment variable "S" comes from a Secret`},
		"a whole flag from a Secret":  {command: kube("$(S)"), env: []corev1.EnvVar{fromSecret("S")}, want: words("…"), why: "comes from a Secret"},
		"through another variable":    {command: kube("--a=$(T)"), env: []corev1.EnvVar{fromSecret("S"), env("T", "t/$(S)")}, want: words("--a=t/…"), why: `"S" comes from a Secret`},
		"optional":                    {command: kube("--a=$(M)"), env: []corev1.EnvVar{env("M", "m"), fromConfigMap("M")}, want: words("--a=…"), why: "comes from a ConfigMap"},
		"of a Service":                {command: kube("--a=$(KUBERNETES_SERVICE_HOST)"), want: words("--a=…="), why: "may come from a Service"},
		"a value before a source":     {command: kube("$(A)"), env: []corev1.EnvVar{{Name: "A", Value: "a", ValueFrom: fromSecret("A").ValueFrom}}, want: words("a")},

		"hyperkube":                     {command: words("hyperkube", "kube-apiserver", "--a"), want: words("--a")},
		"hyperkube starts another":      {command: words("hyperkube", "kubelet", "--a"), want: nothing(), why: "no kube-apiserver is started", notRun: true},
		"env":                           {command: words("/usr/bin/env", "A=b", "kube-apiserver", "--a=$A"), want: words("--a=$A")},
		"timeout":                       {command: words("timeout", "30", "kube-apiserver", "--a"), want: words("--a")},
		"nice and nohup":                {command: words("nice", "-n", "5", "nohup", "kube-apiserver", "--a"), want: words("--a")},
		"a wrapper with a file of that": {command: words("watch-termination", "--log", "/var/log/kube-apiserver", "--", "hyperkube", "kube-apiserver", "--a"), want: words("--a")},
		"a wrapper with a flag of that": {command: words("watch-termination", "--log=/var/log/kube-apiserver", "--", "kube-apiserver", "--a"), want: words("--a")},
		"a wrapper with a user of that": {command: words("setpriv", "--reuid", "kube-apiserver", "kube-apiserver", "--a"), want: nothing(), why: `which of its arguments "setpriv" starts`, notRun: true},
		"a wrapper with a log of that":  {command: words("go-runner", "--log-file", "/var/log/kube-apiserver", "hyperkube", "kube-apiserver", "--a"), want: nothing(), why: `which of its arguments "go-runner" starts`, notRun: true},
		"a value of that":               {command: words("nice", "-n", "5", "kube-apiserver", "--a", "/b/kube-apiserver"), want: words("--a", "/b/kube-apiserver")},
		"a wrapper's unknown option":    {command: words("watch-termination", "--node=$(N)", "--", "kube-apiserver", "--a"), env: []corev1.EnvVar{fromSecret("N")}, want: words("--a")},
		"another program":               {command: words("/start.sh", "kube-apiserver", "--a"), want: nothing(), why: `"start.sh"`, notRun: true},
		"an unknown program":            {command: words("$(P)", "--a"), env: []corev1.EnvVar{fromSecret("P")}, want: nothing(), why: `"P"`, notRun: true},
		"in an unknown directory":       {command: words("$(P)/kube-apiserver", "--a"), env: []corev1.EnvVar{fromField("P", "metadata.name")}, want: words("--a"), notRun: true},
		"flags for the image's own":     {args: words("--a"), want: nothing(), why: "command", notRun: true},
		"nothing at all":                {want: nothing(), why: "command", notRun: true},
		"args that name it":             {args: words("kube-apiserver", "--a"), want: words("--a")},
		"a script that is a file":       {command: words("bash", "/start.sh"), want: nothing(), why: `"/start.sh"`, notRun: true},
		"a shell without a script":      {command: words("sh"), want: nothing(), why: "sh ", notRun: true},
		"a login shell":                 {command: words("bash", "-lc", "kube-apiserver --a=$B"), env: []corev1.EnvVar{env("B", "b")}, want: words("--a=…*"), why: "reads files", notRun: true},
		"an option that is not known":   {command: words("bash", "--rcfile", "/x", "-c", "kube-apiserver"), want: nothing(), why: "--rcfile", notRun: true},
		"BASH_ENV":                      {command: words("bash", "-c", "kube-apiserver --a"), env: []corev1.EnvVar{env("BASH_ENV", "/x")}, want: nothing(), why: "BASH_ENV", notRun: true},
		"options of a shell":            {command: words("bash", "-euxo", "pipefail", "-c", "kube-apiserver --a"), want: words("--a")},
		"a shell behind wrappers":       {command: words("/usr/bin/env", "-", "A=b", "/bin/bash", "-c", "kube-apiserver --a=$A"), want: words("--a=b"), notRun: true},
		"a shell behind two wrappers":   {command: words("timeout", "30", "env", "A=b", "sh", "-c", "kube-apiserver --a=$A"), env: []corev1.EnvVar{env("A", "c")}, want: words("--a=b")},
	}
}

// inScript are scripts for bash, or for the shell in the name.
func inScript() map[string]example {
	// with is a script with variables in the container's environment.
	with := func(script string, want []string, more ...corev1.EnvVar) example {
		return example{command: words("/bin/bash", "-ec"), args: words(script), env: more, want: want}
	}
	because := func(why string, e example) example {
		e.why = why
		return e
	}
	notRun := func(e example) example {
		e.notRun = true
		return e
	}
	ip := fromField("HOST_IP", "status.hostIP")
	return map[string]example{
		"OpenShift's":      because("HOST_IP", with(openshift, words("--openshift-config=/etc/config.yaml", "--advertise-address=…=", "-v=2", "--permit-address-sharing"), ip)),
		"a comment":        with("# kube-apiserver --kubelet-https=false\nexec kube-apiserver --a # --b\n", words("--a")),
		"no comment":       with("kube-apiserver --a=#b c#d '#' \\#", words("--a=#b", "c#d", "#", "#")),
		"lines go on":      with("exec kube-apiserver \\\n  --a=b\\\nc \\\n--d", words("--a=bc", "--d")),
		"quotes":           with(`kube-apiserver --a="b c" '--d=e  f' --g=h\ i "--j=\"k\" \$l \m"`, words("--a=b c", "--d=e  f", "--g=h i", `--j="k" $l \m`)),
		"empty words":      with(`kube-apiserver "" '' --a= "$1" $1`, words("", "", "--a=", "")),
		"variables":        with("D=/x\nE=${D}/y\nkube-apiserver --a=$D/z --b=\"${E}\"", words("--a=/x/z", "--b=/x/y")),
		"several in one":   with("FLAGS='--a=1  --b=2'\nFLAGS=\"$FLAGS --c\"\nkube-apiserver $FLAGS \"$FLAGS\"", words("--a=1", "--b=2", "--c", "--a=1  --b=2 --c")),
		"added to":         with("F=--a\nF+=' --b'\nkube-apiserver $F", words("--a", "--b")),
		"an array":         with("F=(--a='b c' --d)\nF+=(--e)\nkube-apiserver \"${F[@]}\" x\"${F[*]}\"", words("--a=b c", "--d", "--e", "x--a=b c --d --e")),
		"no array":         with("F=()\nkube-apiserver \"${F[@]}\" --a", words("--a")),
		"arguments":        {command: words("bash", "-c", `exec kube-apiserver "$@" --n=$2 --none=$9`, "name", "--a=b c", "--d"), want: words("--a=b c", "--d", "--n=--d", "--none=")},
		"the arguments":    {command: words("bash", "-c", `exec "$@"`, "--", "kube-apiserver", "--a=b c"), want: words("--a=b c")},
		"unquoted, though": {command: words("bash", "-c", `exec kube-apiserver $@ $*`, "name", "--a=b c"), want: words("--a=b", "c", "--a=b", "c")},
		"shifted":          {command: words("bash", "-c", `shift; kube-apiserver "$@"`, "name", "--a", "--b"), want: words("--b")},
		"set":              with("set -eu -o pipefail\nset -- --a 'b c'\nkube-apiserver \"$@\"", words("--a", "b c")),
		"of the container": with(`kube-apiserver --a=$A --b="$B"`, words("--a=x", "y", "--b=p q"), env("A", "x y"), env("B", "p q")),
		"of both":          with(`kube-apiserver --a=$(A) '--b=$(A)'`, words("--a=x", "y", "--b=x y"), env("A", "x y")),
		"an address":       because("HOST_IP", with(`kube-apiserver --a=$(HOST_IP):1 --b=${HOST_IP} "$(HOST_IP)" # $(HOST_IP)`, words("--a=…=", "--b=…=", "…="), ip)),
		"a Secret, quoted": because("from a Secret", with(`kube-apiserver --a="$S" --b`, words("--a=…", "--b"), fromSecret("S"))),
		"a Secret":         because("from a Secret", with(`kube-apiserver --a=$S --b`, words("--a=…*", "--b"), fromSecret("S"))),
		"a Secret as text": because(`"S"`, notRun(with(`kube-apiserver --a=$(S)`, nothing(), fromSecret("S")))),
		"of the image":     because(`"A"`, with(`kube-apiserver --a="$A" --b`, words("--a=…", "--b"))),
		"unset":            with("unset A\nkube-apiserver --a=$A --b=${A:-c} $A", words("--a=", "--b=c"), env("A", "x")),
		"defaults":         with("A=a; N=\nkube-apiserver ${A:-b} ${A-b} ${A:+c} ${N:-d} x${N-e} x${N:+f} ${N:=g} $N ${A:?no}", words("a", "a", "c", "d", "x", "x", "g", "g", "a")),
		"a default maybe":  because(`"Q"`, with(`kube-apiserver "--a=${Q:-b}"`, words("--a=…"))),
		"cut":              because(`"A"`, with(`A=a.b; kube-apiserver "--a=${A%.b}" "--b=${A/a/b}"`, words("--a=…", "--b=…"))),
		"counted":          with(`kube-apiserver --a=$# --b=$((1+2)) --c=${#A}`, words("--a=…=", "--b=…=", "--c=…="), env("A", "a")),
		"output":           because("output of a command", with(`kube-apiserver --a="$(echo b c)" --d`, words("--a=…", "--d"))),
		"output, unquoted": because("output of a command", with("kube-apiserver --a=`echo b c` --d", words("--a=…*", "--d"))),
		"a pattern":        because("pattern of file names", with(`kube-apiserver --a=/none/*.x --b="*" --c=\*`, words("--a=/none/…=", "--b=*", "--c=*"))),
		"a pattern alone":  because("pattern of file names", with(`kube-apiserver *.none`, words("…*"))),
		"braces":           because("braces", notRun(with(`kube-apiserver --a={b,c} --d={e} --f=g`, words("--a=…=", "--d={e}", "--f=g")))),
		"a home":           because("home directory", with(`kube-apiserver ~/a --b=~/c`, words("…=", "--b=~/c"))),
		"escapes":          because("escape sequences", with(`kube-apiserver $'--a b' $'--c\td'`, words("--a b", "…"))),
		"IFS":              because("IFS", with("A=a:b\nIFS=:\nkube-apiserver $A", words("…*"))),

		"and, or":               with("true && kube-apiserver --a || exit 1", words("--a")),
		"a pipe":                with("kube-apiserver --a 2>&1 | tee /dev/null", words("--a")),
		"in the background":     with("kube-apiserver --a &\nwait", words("--a")),
		"in a block":            with("{ kube-apiserver --a; }", words("--a")),
		"in a subshell":         with("(A=b; kube-apiserver --a=$A)", words("--a=b")),
		"a subshell's variable": with("A=b\n(A=c)\nkube-apiserver --a=$A", words("--a=b")),
		"redirected":            with("exec >/dev/null 2>&1 </dev/null; kube-apiserver --a >/dev/null", words("--a")),
		"in a function":         with("run() { local x=$1; shift; kube-apiserver --x=$x \"$@\"; }\nrun a b", words("--x=a", "b")),
		"a function's variable": with("f() { local B=c; A=b; return; A=d; }\nA=x B=y\nf\nkube-apiserver --a=$A --b=$B", words("--a=b", "--b=y")),
		"assigned to a command": with("A=b\nA=c kube-apiserver --a=$A", words("--a=b")),
		"for a nested shell":    with("A=1; export B=2; C=3 bash -c 'kube-apiserver --a=$A --b=$B --c=$C'", words("--a=…*", "--b=2", "--c=3")),
		"a nested shell":        with(`exec sh -c "kube-apiserver --a='b c'"`, words("--a=b c")),
		"eval":                  with(`A='--a="b c"'; eval "kube-apiserver $A"`, words("--a=b c")),
		"a here-document":       with("bash -s -- x <<'EOF'\nkube-apiserver --a=$1 \"--b\"\nEOF\n", words("--a=x", "--b")),
		"one that is expanded":  with("A=b\nbash <<EOF\nkube-apiserver --a=$A\nEOF\n", words("--a=b")),
		"not a command":         with("cat >/dev/null <<EOF\nkube-apiserver --b\nEOF\nkube-apiserver --a", words("--a")),
		"its version first":     with("kube-apiserver --version\nkube-apiserver --a", words("--a")),
		"names it only":         with("echo kube-apiserver --b\n[ -x /bin/kube-apiserver ] || true\nexec kube-apiserver --a", words("--a")),
		"the same, twice":       with("if [ -e /none ]; then kube-apiserver --a; else kube-apiserver --a; fi", words("--a")),
		"in a branch":           with("if [ -e / ]; then exec kube-apiserver --a; fi", words("--a")),
		"behind the end":        with("exec kube-apiserver --a\nkube-apiserver --b", words("--a")),
		"behind an exit":        with("[ -e / ] || { A=c; exit 1; }\nA=${A:-b}\nA=b\nkube-apiserver --a=$A", words("--a=b")),
		"the same in both":      with("if [ -e / ]; then A=b; else A=b; fi\nkube-apiserver --a=$A", words("--a=b")),
		"in a loop":             with("while true; do kube-apiserver --a; break; done", words("--a")),
		"in a case":             with("case $HOST_IP in *:*) kube-apiserver --a;; *) kube-apiserver --a;; esac", words("--a"), ip),
		"a variable by a test":  because("set conditionally", with("A=b\nif [ -e / ]; then A=c; fi\nkube-apiserver --a=\"$A\" --d", words("--a=…", "--d"))),
		"a variable by and":     because("set conditionally", with("A=b\n[ -e / ] && A=c\nkube-apiserver --a=\"$A\" --d", words("--a=…", "--d"))),
		"a variable by a case":  because("set conditionally", with("A=b\ncase x in x) A=c;; esac\nkube-apiserver --a=\"$A\"", words("--a=…"))),
		"a variable by a loop":  because("set conditionally", with("A=\nfor i in 1 2; do A=\"$A --x=$i\"; done\nkube-apiserver \"$A\"", words("…"))),
		"a chain in a loop":     because("set conditionally", with("A=1 B=1 C=1 D=2 n=0\nwhile [ $n != 4 ]; do n=$((n+1)); A=$B; B=$C; C=$D; done\nkube-apiserver --a=\"$A\"", words("--a=…"))),
		"read":                  because("is set by read", with("A=b\nread -r A </dev/null || true\nkube-apiserver --a=\"$A\"", words("--a=…"))),
		"computed":              because("is computed", with("A=1\n((A++))\nkube-apiserver --a=\"$A\" --b=\"${B:=c}\"", words("--a=…", "--b=…"))),
		"another file":          because(`"/dev/null"`, with("A=b\n. /dev/null\nkube-apiserver --a=\"$A\"", words("--a=…"))),
		"two ways":              because("in more than one way", with("if [ -e / ]; then kube-apiserver --a; else kube-apiserver --b; fi", nothing())),
		"a script or it":        because("in more than one way", with("if [ -x /none.sh ]; then exec /none.sh; fi\nexec kube-apiserver --a", nothing())),
		"another script":        because(`what "none.sh" starts`, notRun(with("exec /none.sh --a", nothing()))),
		"a child's script":      with("/none.sh || true\nexec kube-apiserver --a", words("--a")),
		"none":                  because("no kube-apiserver", notRun(with("echo --a", nothing()))),
		"does not parse":        because("cannot be parsed as bash (line 2, column", notRun(with("A=secret\nif kube-apiserver --a", nothing()))),
		"an unknown function":   because("declared conditionally", with("if [ -e / ]; then f() { kube-apiserver --a; }; fi\nf", nothing())),
		"an unknown command":    because("is set conditionally", with("if [ -e / ]; then R=kube-apiserver; fi\n$R --a", nothing())),
		"recursion":             because("nested deeper", notRun(with("f() { f; }\nf\nkube-apiserver --a", nothing()))),

		"a comment between":      with("exec kube-apiserver --a \\\n  # --b \\\n  --c \\\n  --d\n", words("--a")),
		"comments in backquotes": with("A=b`# c`$( )\nexec kube-apiserver --a=$A \\\n  `# --d` \\\n  \"--e`# f`\"", words("--a=b", "--e")),
		"comments between":       with("kube-apiserver --a \\\n# --b \\\n--c || true # d \\\n# e \\\nexec kube-apiserver --a", words("--a")),
		"carriage returns":       because("carriage returns", notRun(with("exec kube-apiserver --a=b\r\n", nothing()))),
		"a carriage return":      because("carriage returns", notRun(with("exec kube-apiserver --a=b\rc", nothing()))),

		"quotes in a default": because("is not supported", with(`A=; kube-apiserver "--a=${A:-'b c'}" "--d=${A:-e\ f}" "--g=${A:-"h i"}" "--j=${A?it is}"`, words("--a=…", "--d=…", "--g=h i", "--j="))),
		"in a here-document":  because("the script is not known", notRun(with("A=\nbash <<EOF\nkube-apiserver ${A:-\"b\"}\nEOF\n", nothing()))),
		"a part of a list":    because("is not supported", with(`A=(--a --b); kube-apiserver --c "${A[@]:1}" --d`, words("--c", "…*", "--d"))),
		"a part of each":      because("is not supported", with(`set -- --a --b; kube-apiserver --c "${@#-}" --d`, words("--c", "…*", "--d"))),
		"names of a list":     because("is not supported", with(`A=(--a --b); kube-apiserver --c "${!A[@]}" --d`, words("--c", "…*", "--d"))),
		"a list by default":   because("is not supported", with(`unset B; A=(--a --b); kube-apiserver --c "${B:-${A[@]}}" --d`, words("--c", "…*", "--d"))),
		"arguments, if any":   because("is not supported", with(`set -- --a --b; kube-apiserver --c "${1+$@}" --d`, words("--c", "…*", "--d"))),

		"expanded before":    because("depends on the shell", with("A=a\nexport A=b C=$A\nkube-apiserver --a=\"$A\" --c=\"$C\"", words("--a=b", "--c=…"))),
		"declared as a list": with("declare -a A=(--a 'b c')\nA+=(--d)\nkube-apiserver \"${A[@]}\"", words("--a", "b c", "--d")),
		"a list's first":     because("element by element", with("A=(--a --b)\nA=--c\nkube-apiserver --d \"${A[@]}\"", words("--d", "…*"))),
		"a number":           because("with an attribute", notRun(with("declare -i A\nA=1+1\nkube-apiserver --a=\"$A\"", nothing()))),
		"another's name":     because("with an attribute", notRun(with("B=b\ndeclare -n A=B\nA=c\nkube-apiserver --a=\"$B\"", nothing()))),
		"a function's list":  because("with an attribute", notRun(with("f() { local -n L=$1; L+=(--b); }\nA=(--a)\nf A\nkube-apiserver \"${A[@]}\"", nothing()))),
		"the last of a pipe": because("lastpipe", notRun(with("A=a\nshopt -s lastpipe\necho b | read A\nkube-apiserver --a=\"$A\"", nothing()))),
		"no pattern":         because("nullglob", notRun(with("shopt -s nullglob\nkube-apiserver --a=/none/*", nothing()))),
		"sh: declare":        {command: words("sh", "-c", "A=a; declare -r A=b || true; kube-apiserver --a=$A"), want: words("--a=…*"), why: "declared with an attribute"},
		"dash: declare":      {command: words("dash", "-c", "A=a; declare A=b || true; kube-apiserver --a=$A"), want: words("--a=…*"), why: "depends on the shell"},

		"sh: local, export": {command: words("sh", "-c", "export A='b c'; f() { local A; A=d; }; f; exec kube-apiserver --a=\"$A\""), want: words("--a=b c")},
		"sh: braces":        {command: words("sh", "-c", "kube-apiserver --a={b,c}"), want: words("--a=…="), why: "braces"},
		"sh: escapes":       {command: words("sh", "-c", "kube-apiserver --a=$'b'"), want: words("--a=…"), why: "escape sequences"},
		"dash: braces":      {command: words("dash", "-c", "kube-apiserver --a={b,c} --d=$'e'"), want: words("--a={b,c}", "--d=$e")},
		"dash: an array":    {command: words("dash", "-c", "A=(b)\nkube-apiserver"), want: nothing(), why: "cannot be parsed as dash (line 1", notRun: true},
	}
}

func examples() map[string]example {
	all := inExec()
	maps.Copy(all, inScript())
	return all
}

func (e example) container() *corev1.Container {
	return &corev1.Container{Name: "kube-apiserver", Command: e.command, Args: e.args, Env: e.env}
}

func TestRead(t *testing.T) {
	page := messages.Record(t, "why parts of command lines are not known")
	if got, want := len(examples()), len(inExec())+len(inScript()); got != want {
		t.Fatalf("two examples have one name: %d of %d are left", got, want)
	}
	for name, e := range examples() {
		t.Run(name, func(t *testing.T) {
			got := cmdline.Read(e.container())
			if d := cmp.Diff(e.want, seen(got)); d != "" {
				t.Errorf("words (-want +got):\n%s", d)
			}
			why := ""
			for _, w := range got {
				if why == "" {
					why = w.Undecided
				}
				if strings.Contains(w.Undecided, "secret") {
					t.Errorf("the reason quotes the script: %s", w.Undecided)
				}
			}
			page.Text(name, why)
			if e.why != "" && !strings.Contains(why, e.why) {
				t.Errorf("why: got %q, want %q in it", why, e.why)
			}
		})
	}
}

// TestEnvFrom: a variable that the manifest does not set may come from envFrom. Those that it
// sets take precedence.
func TestEnvFrom(t *testing.T) {
	container := &corev1.Container{
		Command: []string{"kube-apiserver", "--a=$(A)", "--b=$(B)", "--c=$(P_C)", "--d=$(not a key)"},
		Env:     []corev1.EnvVar{env("A", "a")}, EnvFrom: []corev1.EnvFromSource{{Prefix: "P_"}},
	}
	want := []string{"--a=a", "--b=$(B)", "--c=…", "--d=$(not a key)"}
	if d := cmp.Diff(want, seen(cmdline.Read(container))); d != "" {
		t.Errorf("with a prefix (-want +got):\n%s", d)
	}
	container.EnvFrom = append(container.EnvFrom, corev1.EnvFromSource{})
	want = []string{"--a=a", "--b=…", "--c=…", "--d=$(not a key)"}
	if d := cmp.Diff(want, seen(cmdline.Read(container))); d != "" {
		t.Errorf("without one (-want +got):\n%s", d)
	}
}

// TestBounds: if a bound is exceeded, nothing is known, and the reason names the bound.
func TestBounds(t *testing.T) {
	doubling := []corev1.EnvVar{env("V0", "xxxxxxxx")}
	for i := range 40 {
		name := string(rune('a' + i/26))
		doubling = append(doubling,
			env("V"+name+string(rune('a'+i%26)), "$("+doubling[len(doubling)-1].Name+")$("+doubling[len(doubling)-1].Name+")"))
	}
	last := doubling[len(doubling)-1].Name
	bash := func(script string) *corev1.Container {
		return &corev1.Container{Command: []string{"bash", "-c", script}}
	}
	var doublingScript strings.Builder
	doublingScript.WriteString("A=xxxxxxxx\n")
	for range 60 {
		doublingScript.WriteString("A=$A$A\n")
	}
	cases := map[string]struct {
		container *corev1.Container
		why       string
	}{
		"variables that double":  {&corev1.Container{Command: []string{"kube-apiserver", "$(" + last + ")"}, Env: doubling}, "expand to more than 4194304 bytes"},
		"variables in a script":  {bash(doublingScript.String() + "kube-apiserver $A"), "expand to more than 4194304 bytes"},
		"a large script":         {bash("kube-apiserver --a #" + strings.Repeat("x", cmdline.MaxScriptBytes)), "more than 32768"},
		"many words":             {&corev1.Container{Command: append([]string{"kube-apiserver"}, make([]string, cmdline.MaxWords)...)}, "more than 4096"},
		"many words in a script": {bash("kube-apiserver " + strings.Repeat("x ", cmdline.MaxWords+1)), "more than 4096 words"},
		"deep brackets":          {bash(strings.Repeat("(", 10_000) + "kube-apiserver" + strings.Repeat(")", 10_000)), "nested deeper"},
		"deep blocks":            {bash(strings.Repeat("if true; then ", 1000) + "kube-apiserver; " + strings.Repeat("fi; ", 1000)), "nested deeper"},
		"a chain in a loop":      {bash(chain("%[1]d=1; ") + "while true; do " + chain("%[1]d=$V%[2]d; ") + "V200=2; kube-apiserver --a=$V0; done"), "more than 10000 statements"},
		"functions that double":  {bash("f0() { :; }\n" + functionsThatDouble() + "kube-apiserver"), "more than 10000 statements"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := time.Now()
			got := cmdline.Read(c.container)
			if d := cmp.Diff(nothing(), seen(got)); d != "" || !strings.Contains(got[0].Undecided, c.why) {
				t.Errorf("got %v, because %q; want %q", seen(got), got[0].Undecided, c.why)
			}
			if took := time.Since(before); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// chain assigns to 200 variables.
func chain(assignment string) string {
	var all strings.Builder
	for i := range 200 {
		fmt.Fprintf(&all, "V"+assignment, i, i+1)
	}
	return all.String()
}

func functionsThatDouble() string {
	var all strings.Builder
	for i := range 30 {
		name, before := "f"+strings.Repeat("x", i+1), "f"+strings.Repeat("x", i)
		if i == 0 {
			before = "f0"
		}
		all.WriteString(name + "() { " + before + "; " + before + "; }\n")
	}
	all.WriteString("f" + strings.Repeat("x", 30) + "\n")
	return all.String()
}

// kubeletKnows are values that only the kubelet knows.
var kubeletKnows = map[string]string{
	"HOST_IP": "192.0.2.7", "IP": "192.0.2.7", "S": "--x y --kubelet-https=false", "N": "n", "M": "m",
}

// TestShells runs the examples with the machine's bash and sh, and compares the arguments of the
// kube-apiserver with what is known of them.
func TestShells(t *testing.T) {
	bin := programs(t)
	for name, e := range examples() {
		if e.notRun {
			continue
		}
		t.Run(name, func(t *testing.T) {
			compareWithShell(t, bin, e)
			if started := run(t, bin, e); started == nil {
				t.Error("no kube-apiserver was started")
			}
		})
	}
}

// programs returns a directory with a kube-apiserver that records its arguments, and with
// programs that start it.
func programs(t *testing.T) string {
	t.Helper()
	for _, shell := range []string{"bash", "sh", "dash"} {
		if _, err := exec.LookPath(shell); err != nil {
			t.Fatalf("this test needs %s: %v", shell, err)
		}
	}
	bin := t.TempDir()
	for name, script := range map[string]string{
		"kube-apiserver":    `[ "$#:$1" = 1:--version ] && exit; printf 'start\0' >>"$OUT"; for word; do printf '%s\0' "$word" >>"$OUT"; done`,
		"hyperkube":         `exec "$@"`,
		"watch-termination": `while [ "$1" != -- ]; do shift; done; shift; exec "$@"`,
		"flock":             `exit 0`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// compareWithShell compares what is known of each word with what the shell expands it to. It
// reports whether everything was known.
func compareWithShell(t *testing.T, bin string, e example) (whole bool) {
	t.Helper()
	started := run(t, bin, e)
	if started == nil {
		return false // the shell does not start it with these values
	}
	known := cmdline.Read(e.container())
	whole = !slices.ContainsFunc(known, func(w cmdline.Word) bool { return w.Undecided != "" })
	if slices.ContainsFunc(known, func(w cmdline.Word) bool { return w.Several }) {
		// Words may be missing or added from here on. Compare those before.
		known = known[:slices.IndexFunc(known, func(w cmdline.Word) bool { return w.Several })]
		started = started[:min(len(known), len(started))]
	}
	if len(started) != len(known) {
		t.Errorf("the shell gives it %q, known is %q", started, seen(known))
		return whole
	}
	for i, w := range known {
		if got := started[i]; got != w.Text && (w.Undecided == "" || !strings.HasPrefix(got, w.Text)) {
			t.Errorf("word %d: the shell gives it %q, known is %q", i, got, seen(known)[i])
		}
		if w.Plain && w.Text == "" && strings.HasPrefix(started[i], "-") {
			t.Errorf("word %d: it is %q, which is not plain", i, started[i])
		}
	}
	return whole
}

// run returns the arguments of the first kube-apiserver that is started, or nil.
func run(t *testing.T, bin string, e example) []string {
	t.Helper()
	directory := t.TempDir()
	c := &corev1.Container{Args: slices.Clone(e.args)}
	for i := range c.Args {
		c.Args[i] = strings.ReplaceAll(c.Args[i], "/var/log/kube-apiserver/", directory+"/")
	}
	out := filepath.Join(directory, "out")
	environment := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "OUT=" + out, "HOME=/root"}
	for _, variable := range e.env {
		if variable.ValueFrom != nil && variable.Value == "" {
			variable = env(variable.Name, kubeletKnows[variable.Name])
		}
		c.Env = append(c.Env, variable)
	}
	// Read expands the arguments of a kube-apiserver as the kubelet expands these.
	var expanded []string
	c.Args = slices.Concat(e.command, c.Args)
	c.Command = []string{"kube-apiserver"}
	for _, w := range cmdline.Read(c) {
		expanded = append(expanded, strings.ReplaceAll(w.Text, "/usr/local/bin/kube-apiserver", "kube-apiserver"))
	}
	for _, variable := range c.Env {
		named := &corev1.Container{Command: []string{"kube-apiserver", "$(" + variable.Name + ")"}, Env: c.Env}
		environment = append(environment, variable.Name+"="+cmdline.Read(named)[0].Text)
	}
	path, err := lookIn(bin, expanded[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, path, expanded[1:]...)
	command.Env, command.Dir = environment, directory
	// It may fail after the kube-apiserver, and its output does not matter.
	_ = command.Run()
	data, err := os.ReadFile(out)
	if err != nil {
		return nil
	}
	first, _, _ := bytes.Cut(bytes.TrimPrefix(data, []byte("start\x00")), []byte("\x00start\x00"))
	if len(first) == 0 {
		return []string{}
	}
	return strings.Split(strings.TrimSuffix(string(first), "\x00"), "\x00")
}

func lookIn(bin, name string) (string, error) {
	if at := filepath.Join(bin, name); !strings.Contains(name, "/") {
		if _, err := os.Stat(at); err == nil {
			return at, nil
		}
	}
	return exec.LookPath(name)
}

// FuzzRead: for any manifest, Read ends soon, stays within its bounds, and returns the same each
// time.
func FuzzRead(f *testing.F) {
	for _, e := range examples() {
		if len(e.command) == 0 {
			continue
		}
		value := ""
		if len(e.env) > 0 {
			value = e.env[0].Value
		}
		f.Add(strings.Join(slices.Concat(e.command[1:], e.args), "\x00"), e.command[0], value)
	}
	f.Fuzz(func(t *testing.T, rest, first, value string) {
		container := &corev1.Container{
			Command: append([]string{first}, strings.Split(rest, "\x00")...),
			Env:     []corev1.EnvVar{env("A", value), fromField("HOST_IP", "status.hostIP"), fromSecret("S")},
		}
		before := time.Now()
		got := cmdline.Read(container)
		if took := time.Since(before); took > 20*time.Second {
			t.Errorf("it took %s", took)
		}
		if len(got) > cmdline.MaxWords {
			t.Errorf("%d words", len(got))
		}
		for _, w := range got {
			if w.Undecided == "" && (w.Several || w.Plain) || w.Several && w.Plain {
				t.Errorf("%+v contradicts itself", w)
			}
			if len(w.Undecided) > 1024 {
				t.Errorf("the reason has %d bytes: %.100s", len(w.Undecided), w.Undecided)
			}
		}
		if d := cmp.Diff(got, cmdline.Read(container)); d != "" {
			t.Errorf("read twice (-first +second):\n%s", d)
		}
	})
}
