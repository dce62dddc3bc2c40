package guestagent

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// refusal is an agent's error. Source: QEMU, docs/interop/qmp-spec, "error".
type refusal struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// fault is the refusal in strata's words.
func (r *refusal) fault(command string) error {
	if r.Class == "CommandNotFound" {
		return fault.Unablef("the guest agent inside does not do %s", command).Help("it may be told not to (BLOCK_RPCS or blacklist in its configuration), or be too old")
	}
	return &Refused{Command: command, Words: clean(r.Desc, maxWords)}
}

// Refused is what an agent says of a command that it could not do.
type Refused struct {
	Command string
	Words   string // bounded and printable
}

// Error implements error.
func (r *Refused) Error() string { return "the guest agent refuses " + r.Command + ": " + r.Words }

// Bounds of words that an agent says. Unit: bytes.
const (
	maxWords = 400
	maxName  = 64
)

var (
	errDeep    = errors.New("it nests too deeply")
	errNeither = errors.New("it is neither a result nor an error")
)

// decode reads one answer: its result into result (nil: it is thrown away), or what the
// agent refused.
func decode(text []byte, result any) (*refusal, error) {
	if !shallow(text) {
		return nil, errDeep
	}
	var a struct {
		Return json.RawMessage `json:"return"`
		Error  *refusal        `json:"error"`
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, short(err)
	}
	if a.Error != nil {
		return a.Error, nil
	}
	if a.Return == nil {
		return nil, errNeither
	}
	if result == nil {
		return nil, nil
	}
	return nil, short(json.Unmarshal(a.Return, result))
}

// short keeps what a decoder says of hostile text from repeating much of it.
func short(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(clean(err.Error(), maxWords))
}

// shallow tells whether no value in text is nested deeper than maxDepth.
func shallow(text []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}

// clean makes words of an agent's printable, and no longer than so many bytes.
func clean(text string, most int) string {
	text = fault.Printable(strings.ToValidUTF8(text[:min(len(text), 4*most)], "?"))
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}
