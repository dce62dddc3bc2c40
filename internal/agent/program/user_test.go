package program

import (
	"slices"
	"strings"
	"testing"
)

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n# comment\n\nbroken\nhuge:x:99999999999:1::/:\n7:x:77:78::/seven:\nbig:x:70000:1::/:\nshort:x:5:6\n"
	testGroup  = "root:x:0:\nwheel:x:10:root,alice\nalice:x:1000:\nstaff:x:50:alice,bob\nbad:x:y:alice\nbig:x:70000:alice\n"
)

func TestFindAccount(t *testing.T) {
	for name, want := range map[string]account{
		"root":        {0, 0, []uint32{10}, "/root"},
		"0":           {0, 0, []uint32{10}, "/root"},
		"alice":       {1000, 1000, []uint32{10, 50}, "/home/alice"},
		"1000":        {1000, 1000, []uint32{10, 50}, "/home/alice"},
		"alice:":      {1000, 1000, []uint32{10, 50}, "/home/alice"},
		"alice:staff": {1000, 50, nil, "/home/alice"},
		"alice:51":    {1000, 51, nil, "/home/alice"},
		":50":         {0, 50, nil, "/root"},
		"1234":        {1234, 0, nil, ""},
		"1234:5678":   {1234, 5678, nil, ""},
		"65535:65535": {65535, 65535, nil, ""},
		"7":           {77, 78, nil, "/seven"}, // a name goes before a number
		"short":       {5, 6, nil, ""},
	} {
		got, err := findAccount(name, testPasswd, testGroup)
		if err != nil || got.uid != want.uid || got.gid != want.gid || got.home != want.home || !slices.Equal(got.groups, want.groups) {
			t.Errorf("%s is %+v, %v; want %+v", name, got, err, want)
		}
	}
	for name, words := range map[string]string{
		"bob": "unable to find user bob", "alice:nobody": "unable to find group nobody", "huge": "malformed", "65536": "65535", "4294967295": "65535",
		"1:65536": "65535", "big": "65535", "alice:bad": "malformed", "-1": "unable to find user", "alice:staff:x": "unable to find group staff:x",
	} {
		if got, err := findAccount(name, testPasswd, testGroup); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s is %+v, %v; want a fault with %q", name, got, err, words)
		}
	}
}

func FuzzFindAccount(f *testing.F) {
	f.Add("alice:staff", testPasswd, testGroup)
	f.Add("7", "7:7:7:7:7:7:7\n", ":::\n7:7:7")
	f.Fuzz(func(t *testing.T, name, passwd, group string) {
		who, err := findAccount(name, passwd, group)
		if err == nil && (who.uid > maxID || who.gid > maxID || len(who.groups) > maxGroups) {
			t.Errorf("%+v is out of range", who)
		}
		for _, g := range who.groups {
			if g > maxID {
				t.Errorf("group %d is out of range", g)
			}
		}
	})
}
