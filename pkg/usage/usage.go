// SPDX-License-Identifier: Apache-2.0

// Package usage prints what a program takes, its flags in groups.
package usage

import (
	"flag"
	"fmt"
	"io"
)

// Group is some flags that belong together.
type Group struct {
	Title string
	Flags []string
}

// Print writes an introduction and all flags, by groups. Flags that no group has
// come last, as others.
func Print(w io.Writer, introduction string, flags *flag.FlagSet, groups ...Group) {
	_, _ = fmt.Fprintln(w, introduction) // who asked has gone, or has not
	grouped := map[string]bool{}
	for _, group := range groups {
		printGroup(w, group.Title, flags, group.Flags)
		for _, name := range group.Flags {
			grouped[name] = true
		}
	}
	var others []string
	flags.VisitAll(func(f *flag.Flag) {
		if !grouped[f.Name] {
			others = append(others, f.Name)
		}
	})
	printGroup(w, "Others", flags, others)
}

// printGroup prints some flags as [flag.FlagSet.PrintDefaults] does.
func printGroup(w io.Writer, title string, flags *flag.FlagSet, names []string) {
	some := flag.NewFlagSet("", flag.ContinueOnError)
	some.SetOutput(w)
	for _, name := range names {
		if f := flags.Lookup(name); f != nil {
			some.Var(f.Value, f.Name, f.Usage)
			some.Lookup(name).DefValue = f.DefValue
		}
	}
	if len(names) > 0 {
		_, _ = fmt.Fprintf(w, "\n%s:\n", title)
		some.PrintDefaults()
	}
}
