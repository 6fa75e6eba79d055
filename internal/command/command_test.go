// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
)

// program has a command that prints its flags, and one that fails with a given error.
func program() command.Program {
	return command.Program{
		Name: "tool", Summary: "tool is for tests.", Version: "1.2.3", Default: "show",
		Commands: []command.Command{
			{
				Name: "show", Summary: "print the flags", Description: "Print the flags.",
				Groups: []command.Group{{Title: "Files", Flags: []string{"file"}}, {Title: "Other", Flags: []string{"wait", "pause", "n", "quiet", "part"}}},
				Exits:  command.Endings(),
				New: func(flags *flag.FlagSet) command.Run {
					file := flags.String("file", "", "Read this `file`.")
					wait := flags.Duration("wait", time.Second, "Wait for this `time`.")
					flags.Duration("pause", 3*time.Minute, "Pause for this `time`.")
					n := flags.Int("n", 0, "Print `N` times.")
					quiet := flags.Bool("quiet", false, "Print less.")
					flags.Float64("part", 0, "Print this `part`.")
					flags.Bool("other", false, "A flag of another command.")
					return func(_ context.Context, output command.Output) (command.Exit, error) {
						_, err := fmt.Fprintln(output.Stdout, *file, *wait, *n, *quiet)
						return command.ExitOK, err
					}
				},
			},
			{
				Name: "fail", Summary: "fail", Description: "Fail.", Exits: command.Verdicts(),
				Groups: []command.Group{{Title: "How", Flags: []string{"usage", "exit"}}},
				New: func(flags *flag.FlagSet) command.Run {
					usage := flags.Bool("usage", false, "Fail with a usage error.")
					exit := flags.Int("exit", -1, "Exit with this `code`.")
					return func(context.Context, command.Output) (command.Exit, error) {
						switch {
						case *usage:
							return command.ExitOK, fmt.Errorf("context: %w", command.Usagef("--usage: must not be set"))
						case *exit >= 0:
							return command.Exit(*exit), nil
						}
						return command.ExitOK, errors.New("it failed")
					}
				},
			},
		},
		Rewrite: func(arguments []string) ([]string, string) {
			if len(arguments) > 0 && arguments[0] == "--old" {
				return append([]string{"show"}, arguments[1:]...), "--old is deprecated: use 'tool show'"
			}
			return nil, ""
		},
	}
}

const programHelp = `tool is for tests.

Usage: tool COMMAND [flags]

Commands:
  show     print the flags
  fail     fail
  help     show this help, or that of a command: help COMMAND
  version  print the version

The default command is 'show'.

Exit codes:
  0   success; for a check: compliant
  1   not compliant: at least one requirement fails
  2   could not verify: no requirement fails, but at least one was not observed
  3   the command failed: for example, a timeout, an address in use, or output that cannot be written
  4   not applicable: the control does not apply here: for example, the control plane is hosted elsewhere
  64  usage error: the command line, or a file that it names, is not valid

Run 'tool COMMAND --help' for the flags and the exit codes of a command.
`

const showHelp = `Print the flags.

Usage: tool show [flags]

Files:
  --file file
        Read this file.

Other:
  --wait time
        Wait for this time. (default 1s)
  --pause time
        Pause for this time. (default 3m)
  -n N
        Print N times.
  --quiet
        Print less.
  --part part
        Print this part.

Exit codes:
  0   success; for a check: compliant
  3   the command failed: for example, a timeout, an address in use, or output that cannot be written
  64  usage error: the command line, or a file that it names, is not valid
`

func TestRun(t *testing.T) {
	const show = ". Run 'tool show --help' for usage.\n"
	cases := map[string]struct {
		arguments      string
		exit           command.Exit
		stdout, stderr string
	}{
		"a command":                       {"show --file f -n 2", 0, "f 1s 2 false\n", ""},
		"flags alone":                     {"--file f", 0, "f 1s 0 false\n", ""},
		"nothing":                         {"", 0, " 1s 0 false\n", ""},
		"an old spelling":                 {"--old --file f", 0, "f 1s 0 false\n", "tool: --old is deprecated: use 'tool show'\n"},
		"help":                            {"help", 0, programHelp, ""},
		"--help":                          {"--help", 0, programHelp, ""},
		"-h":                              {"-h", 0, programHelp, ""},
		"help of a command":               {"help show", 0, showHelp, ""},
		"a command's --help":              {"show --wait 5s --help", 0, showHelp, ""},
		"--help among flags alone":        {"--wait 5s -h", 0, showHelp, ""},
		"help of the version":             {"help version", 0, "Print the version.\n\nUsage: tool version\n", ""},
		"help of nothing":                 {"help nothing", 64, "", "tool help: unknown command \"nothing\". Run 'tool help' for usage.\n"},
		"version":                         {"version", 0, "tool 1.2.3\n", ""},
		"--version":                       {"--version", 0, "tool 1.2.3\n", ""},
		"version of something":            {"version now", 64, "", "tool version: unexpected argument \"now\". Run 'tool help' for usage.\n"},
		"unknown command":                 {"nothing --file f", 64, "", "tool: unknown command \"nothing\". Run 'tool help' for usage.\n"},
		"unknown flag":                    {"show --nothing", 64, "", "tool show: unknown flag --nothing" + show},
		"unknown flag alone":              {"--nothing", 64, "", "tool show: unknown flag --nothing" + show},
		"unknown short flag":              {"show -x", 64, "", "tool show: unknown flag -x" + show},
		"a flag of another command":       {"show --other", 64, "", "tool show: unknown flag --other" + show},
		"no value":                        {"show --file", 64, "", "tool show: --file needs a value" + show},
		"an argument":                     {"show x", 64, "", "tool show: unexpected argument \"x\"" + show},
		"a command after flags":           {"--file f fail", 64, "", "tool show: unexpected argument \"fail\": the command comes before the flags" + show},
		"no duration":                     {"show --wait soon", 64, "", "tool show: --wait \"soon\": must be a duration, such as 30s or 5m\n"},
		"no whole number":                 {"show -n 1.5", 64, "", "tool show: -n \"1.5\": must be a whole number\n"},
		"no number":                       {"show --part all", 64, "", "tool show: --part \"all\": must be a number\n"},
		"no bool":                         {"show --quiet=very", 64, "", "tool show: --quiet \"very\": must be true or false\n"},
		"bad syntax":                      {"show ---file", 64, "", "tool show: bad flag syntax: ---file" + show},
		"failed":                          {"fail", 3, "", "tool fail: it failed\n"},
		"a usage error that was wrapped":  {"fail --usage", 64, "", "tool fail: context: --usage: must not be set\n"},
		"an exit code of the command":     {"fail --exit 4", 4, "", ""},
		"help of a command after a value": {"fail --exit 2 --help", 0, "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			exit := program().Run(t.Context(), strings.Fields(c.arguments), command.Output{Stdout: &stdout, Stderr: &stderr})
			if exit != c.exit {
				t.Errorf("exit code %d, want %d", exit, c.exit)
			}
			if d := cmp.Diff(c.stdout, stdout.String()); d != "" && (c.stdout != "" || c.exit != 0) {
				t.Errorf("stdout (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.stderr, stderr.String()); d != "" {
				t.Errorf("stderr (-want +got):\n%s", d)
			}
		})
	}
}

// TestWrap: help is wrapped between words.
func TestWrap(t *testing.T) {
	p := program()
	p.Commands[0].Description = strings.Repeat("word ", 30) + "\n\nAnother paragraph."
	var stdout bytes.Buffer
	p.Run(t.Context(), []string{"help", "show"}, command.Output{Stdout: &stdout, Stderr: &stdout})
	want := strings.TrimSpace(strings.Repeat("word ", 20)) + "\n" + strings.TrimSpace(
		strings.Repeat("word ", 10),
	) + "\n\nAnother paragraph.\n\nUsage: "
	if !strings.HasPrefix(stdout.String(), want) {
		t.Errorf("help begins otherwise than %q:\n%s", want, &stdout)
	}
}

// TestErrors: an error names the flag, its value and what is wrong, each once.
func TestErrors(t *testing.T) {
	stat := func(err error) func(string) (fs.FileInfo, error) {
		return func(string) (fs.FileInfo, error) { return nil, &fs.PathError{Op: "stat", Path: "/x", Err: err} }
	}
	open := func(err error) error { return &fs.PathError{Op: "open", Path: "/x", Err: err} }
	bind := &net.OpError{Op: "listen", Net: "tcp", Err: &net.AddrError{Err: "x"}}
	inUse := &net.OpError{Op: "listen", Net: "tcp", Err: &fs.PathError{Op: "bind", Err: syscall.EADDRINUSE}}
	cases := map[string]struct {
		err   error
		want  string
		usage bool
	}{
		"no directory":         {command.CheckDirectory("--root", "/x", stat(syscall.ENOENT)), "--root /x: no such directory", true},
		"an unreadable parent": {command.CheckDirectory("--root", "/x", stat(syscall.EACCES)), "--root /x: permission denied", true},
		"below a file":         {command.CheckDirectory("--root", "/x", stat(syscall.ENOTDIR)), "--root /x: not a directory", true},
		"no path":              {command.CheckDirectory("--root", "", nil), "--root is empty: it must name a directory", true},
		"no file":              {command.FileError("--config", "/x", open(syscall.ENOENT)), "--config /x: no such file", true},
		"no file in it":        {command.FileInError("--cert-dir", "/x", "tls.crt", open(syscall.ENOENT)), "--cert-dir /x: tls.crt: no such file", true},
		"a directory":          {command.FileError("--config", "/x", open(syscall.EISDIR)), "--config /x: is a directory, not a file", true},
		"contents":             {command.FileError("--config", "/x", errors.New("line 4: bad")), "--config /x: line 4: bad", true},
		"too short":            {command.CheckDuration("--wait", -time.Second, 0, time.Minute), "--wait -1s: must be between 0s and 1m", true},
		"too long":             {command.CheckDuration("--wait", 25*time.Hour, time.Second, 24*time.Hour), "--wait 25h: must be between 1s and 24h", true},
		"no port":              {command.CheckBindAddress("--bind-address", "localhost"), `--bind-address "localhost": must be HOST:PORT or :PORT, with a port from 0 to 65535`, true},
		"a port with a name":   {command.CheckBindAddress("--bind-address", ":https"), `--bind-address ":https": must be HOST:PORT or :PORT, with a port from 0 to 65535`, true},
		"a port too large":     {command.CheckBindAddress("--bind-address", ":65536"), `--bind-address ":65536": must be HOST:PORT or :PORT, with a port from 0 to 65535`, true},
		"an address in use":    {command.ListenError("--bind-address", ":9443", inUse), "--bind-address :9443: address already in use", false},
		"another address":      {command.ListenError("--bind-address", ":9443", bind), "--bind-address :9443: listen tcp: x", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.err == nil || c.err.Error() != c.want || command.IsUsage(c.err) != c.usage {
				t.Errorf("got %v, usage %v; want %q, usage %v", c.err, command.IsUsage(c.err), c.want, c.usage)
			}
		})
	}
	if err := command.CheckBindAddress("--bind-address", "127.0.0.1:0"); err != nil {
		t.Errorf("a good address: %v", err)
	}
}

// TestDuration: durations are written as people write them, and bounds may be given.
func TestDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "1ms": time.Millisecond, "10s": 10 * time.Second, "1m30s": 90 * time.Second, "10m": 10 * time.Minute,
		"1h":  time.Hour,
		"24h": 24 * time.Hour, "1h30m": 90 * time.Minute, "1h0m1s": time.Hour + time.Second, "-10m": -10 * time.Minute,
		"1h10m": 70 * time.Minute, "10m10s": 610 * time.Second,
	} {
		if got := command.Duration(d); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if again, err := time.ParseDuration(want); err != nil || again != d {
			t.Errorf("%s is read as %s, error %v", want, again, err)
		}
	}
	for _, bound := range []time.Duration{time.Second, time.Minute} {
		if err := command.CheckDuration("--wait", bound, time.Second, time.Minute); err != nil {
			t.Errorf("a bound: %v", err)
		}
	}
}

// TestExits: the codes are a contract.
func TestExits(t *testing.T) {
	var got []int
	for _, exit := range command.Exits() {
		got = append(got, int(exit))
		if exit.Meaning() == "unknown" {
			t.Errorf("exit code %d has no meaning", exit)
		}
	}
	if d := cmp.Diff([]int{0, 1, 2, 3, 4, 64}, got); d != "" {
		t.Errorf("exit codes (-want +got):\n%s", d)
	}
}
