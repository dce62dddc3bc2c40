package treat

import (
	"reflect"
	"testing"
)

func TestASpecIsReadAsItWasWritten(t *testing.T) {
	s := Spec{Program: "/usr/sbin/e2fsck", Args: []string{"-p", "", "a b"}, Image: "/a b/disk", Folder: "/a b", Filter: []byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}}
	if got, err := decode(s.Encode()); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWhatIsNoSpecIsRefused(t *testing.T) {
	good := Spec{Program: "/usr/sbin/e2fsck", Image: "/disk", Filter: make([]byte, instruction)}.Encode()
	for n := range len(good) {
		if s, err := decode(good[:n]); err == nil {
			t.Errorf("%q is read as %+v", good[:n], s)
		}
	}
	for sentence, change := range map[string]struct {
		at   int
		text string
	}{
		"a relative program":    {2, "e2fsck"},
		"a relative image":      {3, "disk"},
		"a relative folder":     {4, "root"},
		"no filter":             {5, ""},
		"a part of a filter":    {5, "0600"},
		"a filter of no number": {5, "06000000000000zz"},
	} {
		args := append([]string(nil), good...)
		args[change.at] = change.text
		if s, err := decode(args); err == nil {
			t.Errorf("%s: it is read as %+v", sentence, s)
		}
	}
}
