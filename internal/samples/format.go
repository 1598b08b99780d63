package samples

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Format is what the user says of a file: the name of a format, and what looking at the
// file does not settle.
type Format map[string]string

// options are the words of a Format beside names of formats, each with the value it takes and
// the word that it contradicts.
var options = map[string]struct{ value, not string }{
	"bits": {"", "bytes"}, "bytes": {"", "bits"},
	"rate": {"", "amount"}, "amount": {"", "rate"},
	"start": {"", "end"}, "end": {"", "start"},
	"dmy": {"", "mdy"}, "mdy": {"", "dmy"},
	"decimal": {"point or comma", ""},
	"time":    {"COLUMN", ""}, "in": {"COLUMN", ""}, "out": {"COLUMN", ""},
	"port": {"NAME", ""}, "net": {"PREFIX", ""}, "if": {"INDEX", ""},
}

// has reports whether any of some options is given.
func (f Format) has(options ...string) bool {
	return slices.ContainsFunc(options, func(o string) bool { _, has := f[o]; return has })
}

// Set adds a list of these, separated by commas, for a flag.
func (f Format) Set(text string) error {
	for _, word := range strings.Split(text, ",") {
		key, value, given := strings.Cut(word, "=")
		option, known := options[key]
		switch {
		case slices.ContainsFunc(formats, func(x format) bool { return x.name == word }):
			if f["name"] != "" && f["name"] != word {
				return fmt.Errorf("%s and %s: give one", f["name"], word)
			}
			f["name"] = word
			continue
		case !known:
			var names []string
			for _, x := range formats {
				names = append(names, x.name)
			}
			return fmt.Errorf("%q is neither a format (%s) nor one of %s", word, strings.Join(slices.Compact(names), ", "),
				strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		case option.value != "" && value == "":
			return fmt.Errorf("%s: want %s=%s", key, key, option.value)
		case option.value == "" && given:
			return fmt.Errorf("%s takes no value", key)
		case option.not != "" && f.has(option.not):
			return fmt.Errorf("%s and %s: give one", option.not, key)
		case key == "decimal":
			marks := map[string]string{"point": ".", "comma": ","}
			if value = marks[value]; value == "" {
				return fmt.Errorf("%s: want decimal=point or decimal=comma", word)
			}
		}
		f[key] = value
	}
	return nil
}
