// SPDX-License-Identifier: Apache-2.0

// Package command runs programs with commands: it finds the command, parses its flags, prints
// help and the version, and turns errors into one line and an exit code. It uses package
// flag. It reads no environment and no files.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Program is a program with commands. It also has the commands "help" and "version".
type Program struct {
	Name string
	// Summary describes the program in one sentence.
	Summary string
	Version string
	// Default is the command that runs if the command line begins with a flag or is empty.
	Default  string
	Commands []Command
	// Rewrite converts an old form of a command line without a command to the new form, and
	// returns a notice that names it. It may be nil. An empty notice means no change.
	Rewrite func(arguments []string) (rewritten []string, notice string)
}

// Command is one command of a program.
type Command struct {
	Name string
	// Summary is for the list of commands: a phrase without a full stop.
	Summary string
	// Description is for the command's own help: whole sentences.
	Description string
	// Groups are the flags of the command. It does not accept other flags.
	Groups []Group
	// Exits are the possible exit codes.
	Exits []Exit
	// New defines the flags, and returns the function that runs after they are parsed.
	New func(flags *flag.FlagSet) Run
}

// Group is a group of flags, in the order of --help.
type Group struct {
	Title string
	Flags []string
}

// Run runs a command. An error is printed in one line, and the exit code is [ExitUsage] for an
// error of [Usagef], otherwise [ExitFailed]. Without an error, the returned code counts.
type Run func(ctx context.Context, output Output) (Exit, error)

// Output is where a command writes.
type Output struct{ Stdout, Stderr io.Writer }

// Run runs the program with the arguments of a command line, without its name, and returns
// the exit code.
func (p Program) Run(ctx context.Context, arguments []string, output Output) Exit {
	name, rest := p.Default, arguments
	switch {
	case len(arguments) > 0 && isHelp(arguments[0]):
		return p.help(arguments[1:], output)
	case len(arguments) > 0 && slices.Contains([]string{"version", "--version", "-version"}, arguments[0]):
		if len(arguments) > 1 && !isHelp(arguments[1]) {
			return p.failed(output, p.Name+" version", hintf("unexpected argument %q", arguments[1]), p.Name+" help")
		}
		_, _ = fmt.Fprintln(output.Stdout, p.Name, p.Version)
		return ExitOK
	case len(arguments) > 0 && !strings.HasPrefix(arguments[0], "-"):
		name, rest = arguments[0], arguments[1:]
	case p.Rewrite != nil:
		if rewritten, notice := p.Rewrite(arguments); notice != "" {
			_, _ = fmt.Fprintf(output.Stderr, "%s: %s\n", p.Name, notice)
			name, rest = rewritten[0], rewritten[1:]
		}
	}
	command, known := p.command(name)
	if !known {
		return p.failed(output, p.Name, hintf("unknown command %q", name), p.Name+" help")
	}
	full := p.Name + " " + name
	flags := flag.NewFlagSet(full, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed below, once
	run := command.New(flags)
	err := p.parse(command, flags, rest)
	if errors.Is(err, flag.ErrHelp) {
		p.commandHelp(command, output.Stdout)
		return ExitOK
	}
	exit := ExitUsage
	if err == nil {
		exit, err = run(ctx, output)
	}
	if err != nil {
		return p.failed(output, full, err, full+" --help")
	}
	return exit
}

func isHelp(argument string) bool {
	return slices.Contains([]string{"help", "--help", "-help", "-h"}, argument)
}

func (p Program) command(name string) (Command, bool) {
	i := slices.IndexFunc(p.Commands, func(c Command) bool { return c.Name == name })
	if i < 0 {
		return Command{}, false
	}
	return p.Commands[i], true
}

// failed prints an error and returns its exit code.
func (p Program) failed(output Output, name string, err error, help string) Exit {
	usage, is := errors.AsType[*usageError](err)
	hint := ""
	if is && usage.hint {
		hint = fmt.Sprintf(". Run '%s' for usage.", help)
	}
	_, _ = fmt.Fprintf(output.Stderr, "%s: %v%s\n", name, err, hint)
	if is {
		return ExitUsage
	}
	return ExitFailed
}

// parse reads the flags. Its error is [flag.ErrHelp] or a usage error.
func (p Program) parse(c Command, flags *flag.FlagSet, arguments []string) error {
	if err := flags.Parse(arguments); err != nil {
		return plainly(flags, err)
	}
	if flags.NArg() > 0 {
		hint := ""
		if _, is := p.command(flags.Arg(0)); is {
			hint = ": the command comes before the flags"
		}
		return hintf("unexpected argument %q%s", flags.Arg(0), hint)
	}
	var unknown error
	flags.Visit(func(f *flag.Flag) {
		if !slices.ContainsFunc(c.Groups, func(g Group) bool { return slices.Contains(g.Flags, f.Name) }) {
			unknown = hintf("unknown flag %s", spelled(f.Name))
		}
	})
	return unknown
}

// The error texts of package flag, whose errors have no types.
var (
	undefined = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	unvalued  = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	invalid   = regexp.MustCompile(`(?s)^invalid (?:boolean )?value ("(?:[^"\\]|\\.)*") for (?:flag )?-([^:]+): (.*)$`)
)

// plainly converts an error of package flag to the style of the other errors.
func plainly(flags *flag.FlagSet, err error) error {
	text := err.Error()
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	if found := undefined.FindStringSubmatch(text); found != nil {
		return hintf("unknown flag %s", spelled(found[1]))
	}
	if found := unvalued.FindStringSubmatch(text); found != nil {
		return hintf("%s needs a value", spelled(found[1]))
	}
	if found := invalid.FindStringSubmatch(text); found != nil {
		return Usagef("%s %s: %s", spelled(found[2]), found[1], requirement(flags.Lookup(found[2]), found[3]))
	}
	return hintf("%w", err)
}

// requirement returns what a flag's value must be. For other types it is in the error.
func requirement(f *flag.Flag, text string) string {
	value, ok := f.Value.(flag.Getter)
	if !ok {
		return text
	}
	switch kind := value.Get(); kind.(type) {
	case bool:
		return "must be true or false"
	case time.Duration:
		return "must be a duration, such as 30s or 5m"
	case float64:
		return "must be a number"
	default:
		if kind != nil && reflect.TypeOf(kind).Kind() == reflect.Int {
			return "must be a whole number"
		}
		return text
	}
}

// spelled returns a flag as users write it.
func spelled(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + strings.TrimPrefix(name, "-")
}
