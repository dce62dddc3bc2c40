package environment

import (
	"crypto/rand"
	"encoding/hex"
	"math/big"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// NameRule says what a name may look like. Source: RFC 1123 section 2.1, a DNS label.
const NameRule = "1 to 63 of a-z, 0-9 and '-', with no '-' at either end"

// IDLength is the length of an id in hexadecimal digits.
const IDLength = 12

// CheckName tells whether name can be an environment's or a network's, at the
// given field. A name that is all digits and letters a-f and as long as an id is
// refused, since it could be taken for one. Kinds: Invalid.
func CheckName(name, field string) error {
	if !label(name) {
		return fault.Invalidf("%q cannot be a name: it must be a DNS label, %s", clip(name), NameRule).At(field).Help("for example web-1")
	}
	if ValidID(name) {
		return fault.Invalidf("%q looks like an id, so it cannot be a name", name).At(field).Help("use a name that is not 12 hexadecimal digits")
	}
	return nil
}

// label tells whether s is a DNS label in lower case.
func label(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// clip shortens hostile text for a message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// NewID returns a new random id.
func NewID() string {
	var b [IDLength / 2]byte
	rand.Read(b[:]) // never fails: see its documentation
	return hex.EncodeToString(b[:])
}

// ValidID tells whether s has the form of an id.
func ValidID(s string) bool { return len(s) == IDLength && hexDigits(s) }

// MinPrefix is the shortest beginning of an id that stands for it.
const MinPrefix = 4

// ValidPrefix tells whether s can be the beginning of an id.
func ValidPrefix(s string) bool { return len(s) >= MinPrefix && len(s) <= IDLength && hexDigits(s) }

func hexDigits(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// The words that made-up names are made of: short, easy to say, and no word
// that could offend in front of another.
var (
	qualities = strings.Fields("amber bold brisk calm clear cool crisp deep early fair fast fine fresh glad gold grand green keen kind light lucky mild neat new noble plain prime proud quick quiet rapid ready rich sharp silver smart soft solid steady still sunny swift tall tidy true warm wide wise young")
	things    = strings.Fields("alder ash bay beech birch brook cairn cedar cliff cloud cove creek dale dune elm fern field fir fjord ford glade glen grove heath hill holm isle lake larch leaf linden marsh meadow mesa moor oak peak pine plain pond reed ridge river rock shore slate spring stone vale wave willow")
)

// MakeName makes up a name that taken does not know: two words, and a number
// where all two words are taken too often.
func MakeName(taken func(string) bool) string {
	for tries := 0; ; tries++ {
		name := qualities[pick(len(qualities))] + "-" + things[pick(len(things))]
		if tries >= 16 {
			name += "-" + strconv.Itoa(pick(1000000))
		}
		if !taken(name) {
			return name
		}
	}
}

func pick(n int) int {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic("environment: the system gives no random numbers: " + err.Error()) // crypto/rand documents that it never fails
	}
	return int(i.Int64())
}
