package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestTableIsTotal(t *testing.T) {
	words, exits := map[string]bool{}, map[int]bool{}
	for k := range kinds {
		row := table[k]
		if row.word == "" || row.http < 400 || row.http > 599 || row.exit <= 0 || row.exit >= 125 {
			t.Errorf("kind %d has an incomplete row: %+v", k, row)
		}
		if words[row.word] || exits[row.exit] {
			t.Errorf("kind %s shares its word or exit status with another", k)
		}
		words[row.word], exits[row.exit] = true, true
		if got, ok := ParseKind(row.word); !ok || got != k {
			t.Errorf("ParseKind(%q) = %v, %v; want %v", row.word, got, ok, k)
		}
	}
	if _, ok := ParseKind("nonsense"); ok {
		t.Error("ParseKind accepts a word that is no kind")
	}
	if got := Kind(200).String(); got != "internal" {
		t.Errorf("a kind out of range reads %q; want internal", got)
	}
}

func TestWrapKeepsWhatTheCallerNeeds(t *testing.T) {
	inner := Invalidf("%q is no size", "12Q").At("disk").Help("write 10G")
	err := Wrap(inner, "create %s", "web")
	all := All(err)
	if len(all) != 1 {
		t.Fatalf("All returned %d faults; want 1", len(all))
	}
	got := all[0]
	if got.Kind != Invalid || got.Field != "disk" || got.Hint != "write 10G" || got.Message != `create web: "12Q" is no size` {
		t.Errorf("Wrap lost something: %+v", got)
	}
	if !errors.Is(err, inner) {
		t.Error("the cause is not reachable")
	}
	if Wrap(nil, "x") != nil {
		t.Error("Wrap(nil) is not nil")
	}
}

func TestJoin(t *testing.T) {
	if Join(nil, nil) != nil {
		t.Error("Join of nils is not nil")
	}
	a, b := Invalidf("a"), Conflictf("b")
	err := fmt.Errorf("outside: %w", Join(a, nil, Join(b, fs.ErrNotExist)))
	all := All(err)
	if len(all) != 3 || all[0].Message != "outside: a" || all[1].Message != "outside: b" || all[1].Kind != Conflict || all[2].Kind != Internal {
		t.Fatalf("All = %v", all)
	}
	if all := All(Join(a, b)); len(all) != 2 || all[0] != a || all[1] != b {
		t.Errorf("All of what nothing stands around = %v", all)
	}
	if KindOf(err) != Invalid {
		t.Errorf("KindOf = %v; want the first fault's", KindOf(err))
	}
}

func TestWhatStandsAroundSeveralFaultsIsKept(t *testing.T) {
	a, b := Invalidf("a").At("x"), Missingf("b").Help("make it")
	all := All(Wrap(Wrap(Join(a, b), "inner"), "outer"))
	if len(all) != 2 || all[0].Message != "outer: inner: a" || all[0].Kind != Invalid || all[0].Field != "x" ||
		all[1].Message != "outer: inner: b" || all[1].Kind != Missing || all[1].Hint != "make it" {
		t.Errorf("wrapped: %v", all)
	}
	if !errors.Is(all[1], b) {
		t.Error("the cause of one of several is not reachable")
	}
	all = All(fmt.Errorf("outer: %w", fmt.Errorf("inner: %w, sadly", Join(a, b))))
	if len(all) != 2 || all[0].Message != "outer: inner: a, sadly" || all[0].Field != "x" || all[1].Message != "outer: inner: b, sadly" || all[1].Hint != "make it" {
		t.Errorf("wrapped by another package: %v", all)
	}
	all = All(errors.Join(Join(a, b), errors.New("and c")))
	if len(all) != 2 || all[0].Message != "a\nand c" || !errors.Is(all[1], b) {
		t.Errorf("beside another error: %v", all)
	}
	if all = All(&opaque{Join(a, b)}); len(all) != 1 || all[0].Message != "opaque" || all[0].Field != "x" || !errors.Is(all[0], b) {
		t.Errorf("told in other words: %v", all)
	}
	err := Busyf("outer: %w", Join(a, b))
	if all = All(fmt.Errorf("doing: %w", err)); len(all) != 1 || all[0].Message != "doing: outer: x: a; b" || all[0].Kind != Busy {
		t.Errorf("as one, wrapped by another package: %v", all)
	}
	all = All(err)
	if len(all) != 1 || all[0] != err || KindOf(err) != Busy || KindOf(Wrap(err, "doing")) != Busy {
		t.Errorf("as one: %v, %v", all, KindOf(err))
	}
}

// opaque wraps an error without its words.
type opaque struct{ err error }

func (*opaque) Error() string   { return "opaque" }
func (o *opaque) Unwrap() error { return o.err }

func TestKindOfForeignErrors(t *testing.T) {
	for err, want := range map[error]Kind{
		context.DeadlineExceeded:                   Busy,
		fmt.Errorf("x: %w", fs.ErrPermission):      Internal,
		fmt.Errorf("x: %w", Missingf("no such y")): Missing,
	} {
		if got := KindOf(err); got != want {
			t.Errorf("KindOf(%v) = %v; want %v", err, got, want)
		}
	}
	if Is(nil, Internal) {
		t.Error("nil is taken for a fault")
	}
}
