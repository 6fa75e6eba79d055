// SPDX-License-Identifier: Apache-2.0

package plainyaml

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
)

// ErrShape is wrapped by an error of [Explain] if the whole text has the wrong type: for example,
// it is a string or a list and not an object. Then it is another kind of file, not one with
// an error.
var ErrShape = errors.New("it has the wrong type")

// shapeError is an [ErrShape] with its own text.
type shapeError string

func (e shapeError) Error() string { return string(e) }

// Is makes it an ErrShape.
func (shapeError) Is(target error) bool { return target == ErrShape }

// Explain converts an error of encoding/json, sigs.k8s.io/json or a YAML decoder to one line for
// people: the field, its type, and the type that it must have. The line has no names of Go
// types and no strings of the text, which may be a file that was given by mistake. Explain
// returns other errors, its own errors and nil unchanged.
func Explain(err error) error {
	if wrong, is := errors.AsType[*stdjson.UnmarshalTypeError](err); is {
		return explainType(wrong)
	}
	if wrong, is := errors.AsType[*stdjson.UnsupportedValueError](err); is {
		return fmt.Errorf("it has the value %s, which JSON does not have", wrong.Str)
	}
	if wrong, is := errors.AsType[*yamlv3.TypeError](err); is {
		faults := make([]string, len(wrong.Errors))
		for i, fault := range wrong.Errors {
			faults[i] = explainYAML(fault)
		}
		return errors.New(strings.Join(faults, "; "))
	}
	if err != nil && badKey.MatchString(err.Error()) {
		return errors.New("the key of a field is neither a string, a number nor a boolean")
	}
	return err
}

// badKey matches errors of YAML decoders (sigs.k8s.io/yaml, convertToJSONableObject; go.yaml.in)
// that quote the key and the value in Go syntax.
var badKey = regexp.MustCompile("unsupported map key of type|invalid map key: ")

func explainType(wrong *stdjson.UnmarshalTypeError) error {
	given, wanted := givenJSON(wrong.Value), wantedType(wrong.Type)
	switch {
	case wrong.Field != "":
		return fmt.Errorf("%s is %s, expected %s", wrong.Field, given, wanted)
	case wanted == anObject:
		return shapeError(fmt.Sprintf("it is %s, expected %s", given, wanted))
	}
	return fmt.Errorf("a value is %s, expected %s", given, wanted) // of a type with its own decoder
}

// The names of types for people.
const (
	anObject  = "an object"
	aList     = "a list"
	aString   = "a string"
	aBoolean  = "true or false"
	aNumber   = "a number"
	anInteger = "a whole number"
)

// givenJSON converts encoding/json's name of a value.
func givenJSON(value string) string {
	kind, number, _ := strings.Cut(value, " ")
	switch {
	case kind == "object":
		return anObject
	case kind == "array":
		return aList
	case kind == "string":
		return aString
	case kind == "bool":
		return "a boolean"
	case kind == "number" && number != "":
		return "the number " + number
	}
	return "a " + kind
}

// wantedType names the JSON type for a Go type.
func wantedType(of reflect.Type) string {
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	switch of.Kind() {
	case reflect.String:
		return aString
	case reflect.Bool:
		return aBoolean
	case reflect.Slice, reflect.Array:
		if of.Elem().Kind() == reflect.Uint8 {
			return aString // base64
		}
		return aList
	case reflect.Float32, reflect.Float64:
		return aNumber
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("%s of %d bits", anInteger, of.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("%s of %d bits, not negative", anInteger, of.Bits())
	default:
		return anObject
	}
}

// The errors in a [yamlv3.TypeError], which are texts.
var (
	mistyped     = regexp.MustCompile("(?s)^(line \\d+): cannot unmarshal (!!\\w+)(?: `.*`)? into (.*)$")
	unknownField = regexp.MustCompile(`^(line \d+): field (.*) not found in type .*$`)
)

func explainYAML(fault string) string {
	if found := unknownField.FindStringSubmatch(fault); found != nil {
		return fmt.Sprintf("%s: unknown field %s", found[1], found[2])
	}
	found := mistyped.FindStringSubmatch(fault)
	if found == nil {
		return fault
	}
	given, known := map[string]string{
		"!!map": anObject, "!!seq": aList, "!!str": aString, "!!bool": "a boolean", "!!int": aNumber, "!!float": aNumber,
		"!!null": "null", "!!timestamp": "a date",
	}[found[2]]
	if !known {
		given = "of type " + found[2]
	}
	text := found[1] + ": it is " + given
	if wanted := wantedName(found[3]); wanted != "" {
		text += ", expected " + wanted
	}
	return text
}

// wantedName names the JSON type for the name of a Go type; empty if it is not known.
func wantedName(of string) string {
	of = strings.TrimPrefix(of, "*")
	switch {
	case of == "string":
		return aString
	case of == "bool":
		return aBoolean
	case strings.HasPrefix(of, "float"):
		return aNumber
	case strings.HasPrefix(of, "int"), strings.HasPrefix(of, "uint"):
		return anInteger
	case strings.HasPrefix(of, "[]"):
		return aList
	case strings.HasPrefix(of, "map["), strings.HasPrefix(of, "struct"):
		return anObject
	}
	return ""
}
