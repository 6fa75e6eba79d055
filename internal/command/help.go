// SPDX-License-Identifier: Apache-2.0

package command

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// helpWidth is the maximum length of lines of help, in characters.
const helpWidth = 100

// help prints the help of the program or of a command.
func (p Program) help(arguments []string, output Output) Exit {
	if len(arguments) == 0 || isHelp(arguments[0]) {
		p.programHelp(output.Stdout)
		return ExitOK
	}
	c, known := p.command(arguments[0])
	switch {
	case arguments[0] == "version":
		_, _ = fmt.Fprintf(output.Stdout, "Print the version.\n\nUsage: %s version\n", p.Name)
	case !known:
		return p.failed(output, p.Name+" help", hintf("unknown command %q", arguments[0]), p.Name+" help")
	default:
		p.commandHelp(c, output.Stdout)
	}
	return ExitOK
}

func (p Program) programHelp(w io.Writer) {
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n\nUsage: %s COMMAND [flags]\n\nCommands:\n", p.Summary, p.Name)
	listed := append(slices.Clone(p.Commands),
		Command{Name: "help", Summary: "show this help, or that of a command: help COMMAND"},
		Command{Name: "version", Summary: "print the version"})
	for _, c := range listed {
		fmt.Fprintf(&text, "  %-8s %s\n", c.Name, c.Summary)
	}
	fmt.Fprintf(&text, "\nThe default command is '%s'.\n", p.Default)
	writeExits(&text, Exits())
	fmt.Fprintf(&text, "\nRun '%s COMMAND --help' for the flags and the exit codes of a command.\n", p.Name)
	_, _ = io.WriteString(w, text.String()) // an error cannot be reported
}

func (p Program) commandHelp(c Command, w io.Writer) {
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	c.New(flags) // again, because flags before --help have changed the values
	var text strings.Builder
	writeWrapped(&text, "", c.Description)
	fmt.Fprintf(&text, "\nUsage: %s %s [flags]\n", p.Name, c.Name)
	for _, group := range c.Groups {
		fmt.Fprintf(&text, "\n%s:\n", group.Title)
		for _, name := range group.Flags {
			if f := flags.Lookup(name); f != nil {
				writeFlag(&text, f)
			}
		}
	}
	writeExits(&text, c.Exits)
	_, _ = io.WriteString(w, text.String()) // an error cannot be reported
}

// writeFlag writes a flag: its name and value, then its description.
func writeFlag(text *strings.Builder, f *flag.Flag) {
	value, usage := flag.UnquoteUsage(f)
	fmt.Fprintf(text, "  %s\n", strings.TrimSpace(spelled(f.Name)+" "+value))
	if !slices.Contains([]string{"", "0", "0s", "false"}, f.DefValue) {
		usage += fmt.Sprintf(" (default %s)", defaultValue(f))
	}
	writeWrapped(text, "        ", usage)
}

// defaultValue formats a flag's default, with durations as in [Duration].
func defaultValue(f *flag.Flag) string {
	if value, is := f.Value.(flag.Getter); is {
		if _, is := value.Get().(time.Duration); is {
			if d, err := time.ParseDuration(f.DefValue); err == nil {
				return Duration(d)
			}
		}
	}
	return f.DefValue
}

func writeExits(text *strings.Builder, exits []Exit) {
	text.WriteString("\nExit codes:\n")
	for _, exit := range exits {
		fmt.Fprintf(text, "  %-3d %s\n", exit, exit.Meaning())
	}
}

// writeWrapped writes text in lines of at most [helpWidth] characters. A longer word gets its
// own line. A newline in the text begins a new line.
func writeWrapped(text *strings.Builder, indent, words string) {
	for paragraph := range strings.SplitSeq(words, "\n") {
		line := indent
		for word := range strings.FieldsSeq(paragraph) {
			if len(line) > len(indent) && len(line)+1+len(word) > helpWidth {
				text.WriteString(line + "\n")
				line = indent
			}
			if len(line) > len(indent) {
				line += " "
			}
			line += word
		}
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}
