// SPDX-License-Identifier: Apache-2.0

package cmdline_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// grammar makes scripts of what a script may have.
type grammar struct{ *rand.Rand }

func (g grammar) of(choices ...string) string { return choices[g.IntN(len(choices))] }

func (g grammar) name() string { return g.of("A", "B", "C", "A") }

func (g grammar) word(depth int) string {
	if depth > 2 {
		return "z"
	}
	switch g.IntN(22) {
	case 0:
		return "$" + g.name()
	case 1:
		return `"$` + g.name() + `"`
	case 2:
		return "${" + g.name() + "}x"
	case 3:
		return "${" + g.name() + g.of(":-", "-", ":+", "+", ":=", "=") + g.word(depth+1) + "}"
	case 4:
		return `"${` + g.name() + g.of(":-", "-", ":+", "+", ":=", "=") + g.of("u", "u v", "$B") + `}"`
	case 5:
		return `'a  b'`
	case 6:
		return `"a  $` + g.name() + ` \$ \" b"`
	case 7:
		return `a\ b\$`
	case 8:
		return `"$@"`
	case 9:
		return g.of("$@", "$*", `"$*"`, "$1", `"$2"`, "$3", `x"$@"y`)
	case 10:
		return "$(echo o p)"
	case 11:
		return g.of("$#", "$((1+2))", "${#A}", "$((A=3))")
	case 12:
		return g.of("*none", "/none*", "a[b", "~", "--x=~/y")
	case 13:
		return "''"
	case 14:
		return g.of("${A%b}", "${A#a}")
	case 15:
		return g.word(depth+1) + g.word(depth+1)
	}
	return g.of("p", "--flag=q", "r")
}

func (g grammar) words(most int) string {
	var all []string
	for range g.IntN(most) {
		all = append(all, g.word(0))
	}
	return strings.Join(all, " ")
}

func (g grammar) condition() string {
	return g.of("true", "false", "[ -e / ]", "[ -e /none ]", `[ "$A" = p ]`, "! true", "A=k", "f", "test -n \"$B\"")
}

func (g grammar) statement(depth int) string {
	if depth > 3 {
		return g.name() + "=" + g.word(0)
	}
	block := func() string {
		var all strings.Builder
		for range 1 + g.IntN(3) {
			all.WriteString(g.statement(depth+1) + "\n")
		}
		return all.String()
	}
	switch g.IntN(26) {
	case 0:
		return "if " + g.condition() + "; then\n" + block() + "else\n" + block() + "fi"
	case 1:
		return "if " + g.condition() + "; then\n" + block() + "elif " + g.condition() + "; then\n" + block() + "fi"
	case 2:
		return g.condition() + g.of(" && ", " || ") + g.statement(depth+1)
	case 3:
		return "for " + g.name() + " in " + g.words(3) + "; do\n" + block() + g.of("", "break\n",
			"[ -e / ] && continue\n") + "done"
	case 4:
		return "(\n" + block() + ")"
	case 5:
		return "{\n" + block() + "}"
	case 6:
		return "case " + g.word(0) + " in p*)\n" + block() + ";; *)\n" + block() + ";; esac"
	case 7:
		return "f() {\n" + block() + g.of("", "return 0\n", "[ -e /none ] || return 0\n") + block() + "}"
	case 8:
		return "f " + g.words(3)
	case 9:
		return "unset " + g.name()
	case 10:
		return "set -- " + g.words(4)
	case 11:
		return "shift || true"
	case 12:
		return "export " + g.name() + "=" + g.word(0)
	case 13:
		return "local_() { local " + g.name() + "=l; " + g.name() + "=m; }; local_"
	case 14:
		return "eval '" + g.name() + "=e'"
	case 15:
		return "n=0; while [ $n != 2 ]; do n=$((n+1))\n" + block() + "done"
	case 16:
		return g.name() + "=w :"
	case 17:
		return g.name() + "=w f"
	case 18:
		return "echo x | read " + g.name()
	case 19:
		return g.name() + "=s & wait"
	}
	return g.name() + "=" + g.word(0)
}

// TestRandomScripts runs scripts that nobody would write: what is known of one is what
// the shell makes of it.
func TestRandomScripts(t *testing.T) {
	bin := programs(t)
	const scripts = 200
	known := 0
	for i := range scripts {
		g := grammar{rand.New(rand.NewPCG(16, uint64(i)))}
		script := "f() { :; }\n"
		for range g.IntN(7) {
			script += g.statement(0) + "\n"
		}
		script += g.of("exec ", "", "", "nice ") + "kube-apiserver --first=\"$A\" " + g.words(5) + ` --last="$B" "$C"`
		e := example{
			command: []string{g.of("bash", "sh", "dash"), g.of("-c", "-c", "-ec"), script, "name", "--one=1", "two 2"},
			env:     []corev1.EnvVar{env("A", g.of("p", "a b", "")), fromSecret("S")},
		}
		if g.IntN(2) == 0 {
			e.env = append(e.env, env("B", "x"), env("C", "y"))
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if compareWithShell(t, bin, e) {
				known++
			}
			if t.Failed() {
				t.Logf("%s %s\n%s", e.command[0], e.command[1], script)
			}
		})
	}
	t.Logf("%d of %d are known whole", known, scripts)
	if known < scripts/20 {
		t.Errorf("%d of %d scripts are known whole, which tries too little", known, scripts)
	}
}
