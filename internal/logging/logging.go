// SPDX-License-Identifier: Apache-2.0

// Package logging defines the flags of a program's log, creates its logger, and detects
// terminals with colours.
package logging

import (
	"errors"
	"flag"
	"io"
	"log/slog"
	"strings"
)

// Options are the flags of a program's log. The zero value is JSON with level info and above.
type Options struct {
	format logFormat
	level  logLevel
}

// Flags defines --log-format and --log-level.
func (o *Options) Flags(flags *flag.FlagSet) {
	flags.TextVar(&o.format, "log-format", o.format, "`format` of the log: json or text")
	flags.TextVar(&o.level, "log-level", o.level, "lowest `level` of logged messages: debug, info, warn or error")
}

// New returns the logger of a program.
func New(w io.Writer, o Options) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.Level(o.level)}
	if o.format == logText {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// logFormat and logLevel can be the values of flags.
type (
	logFormat int
	logLevel  slog.Level
)

const (
	logJSON logFormat = iota
	logText
)

// MarshalText implements [encoding.TextMarshaler].
func (f logFormat) MarshalText() ([]byte, error) {
	if f == logText {
		return []byte("text"), nil
	}
	return []byte("json"), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *logFormat) UnmarshalText(text []byte) error {
	switch string(text) {
	case "json":
		*f = logJSON
	case "text":
		*f = logText
	default:
		return errors.New("must be json or text")
	}
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (l logLevel) MarshalText() ([]byte, error) {
	return []byte(strings.ToLower(slog.Level(l).String())), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. It accepts upper case, too.
func (l *logLevel) UnmarshalText(text []byte) error {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(level.String(), string(text)) {
			*l = logLevel(level)
			return nil
		}
	}
	return errors.New("must be debug, info, warn or error")
}
