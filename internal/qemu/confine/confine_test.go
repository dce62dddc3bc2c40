package confine

import (
	"reflect"
	"testing"
)

func TestASpecIsReadAsItWasWritten(t *testing.T) {
	for sentence, s := range map[string]Spec{
		"a small one": {Program: "/usr/bin/qemu", User: 7, First: 5, Last: 5},
		"a full one": {
			Program: "/usr/bin/qemu", Args: []string{"-name", "", "guest=a b"}, User: 1 << 31, Groups: []uint32{5, 106}, First: 5, Last: 20,
			Devices: []string{"/dev/kvm"}, Show: []Shown{{"/a", "/b"}, {"/c d", "/e"}}, Files: true, Tied: true,
		},
	} {
		got, err := decode(s.Encode())
		if len(got.Args) == 0 {
			got.Args = nil
		}
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: got %+v, %v", sentence, got, err)
		}
	}
}

func TestWhatIsNoSpecIsRefused(t *testing.T) {
	good := Spec{Program: "/usr/bin/qemu", User: 7, First: 5, Last: 6, Groups: []uint32{1}, Devices: []string{"/dev/kvm"}, Show: []Shown{{"/a", "/b"}}}.Encode()
	for n := range len(good) {
		if s, err := decode(good[:n]); err == nil {
			t.Errorf("%q is read as %+v", good[:n], s)
		}
	}
	for sentence, change := range map[string]struct {
		at   int
		text string
	}{
		"root":                {3, "0"},
		"more than an id":     {3, "99999999999"},
		"less than an id":     {3, "-1"},
		"a relative program":  {2, "qemu"},
		"standard streams":    {4, "2"},
		"an end before begin": {5, "4"},
		"more than there are": {6, "400000000"},
		"no number":           {6, "x"},
	} {
		args := append([]string(nil), good...)
		args[change.at] = change.text
		if s, err := decode(args); err == nil {
			t.Errorf("%s: it is read as %+v", sentence, s)
		}
	}
}
