package spec

import (
	"strconv"

	"github.com/strata-project/strata/internal/keeper/wire"
)

// AppendMessage appends m as JSON to b.
func AppendMessage(b []byte, m wire.Message) []byte {
	b = AppendText(append(b, `{"type":`...), m.Type)
	if m.Status != 0 {
		b = strconv.AppendInt(append(b, `,"status":`...), int64(m.Status), 10)
	}
	if f := m.Fault; f != nil {
		b = AppendText(append(b, `,"fault":{"kind":`...), f.Kind)
		if f.Field != "" {
			b = AppendText(append(b, `,"field":`...), f.Field)
		}
		b = AppendText(append(b, `,"message":`...), f.Message)
		if f.Hint != "" {
			b = AppendText(append(b, `,"hint":`...), f.Hint)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// AppendText appends text as a JSON string to b. Invalid UTF-8 is passed on as it is.
func AppendText(b []byte, text string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
