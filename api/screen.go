package api

import "github.com/strata-project/strata/internal/unit"

// RFBProtocol is the name in the Upgrade header of a connection on which both sides
// speak RFB, the protocol of VNC, as it is.
const RFBProtocol = "strata-rfb"

// Typing is what is typed on a machine's keyboard: text, and then keys.
type Typing struct {
	Text string        `json:"text,omitempty" maxLength:"16384" doc:"Characters of a US keyboard, newline and tab; at most 4096."`
	Keys []string      `json:"keys,omitempty" maxItems:"256" doc:"Keys by name or character, those that are held together with dashes: f2, ret, ctrl-alt-delete."`
	Pace unit.Duration `json:"pace,omitempty" doc:"From one key to the next, 5ms to 2s. Default: 50ms."`
}

// ScreenMatch is what was waited for on a screen.
type ScreenMatch struct {
	Text  string   `json:"text" doc:"All that is written on the screen."`
	Match []string `json:"match" doc:"What of it matched: all of it, and then each group."`
}
