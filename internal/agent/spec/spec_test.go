package spec_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/keeper/wire"
	vm "github.com/strata-project/strata/internal/vmagent/spec"
)

// fill sets every field of v to something that is not zero.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.String:
		v.SetString("text \"" + string(rune('a'+*n%26)) + "\" \\ \n <&> é 😀 \x01")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n) - 3)
	default:
		v.SetUint(uint64(*n))
	}
}

func TestEveryFieldIsRead(t *testing.T) {
	var want spec.Init
	n := 0
	fill(reflect.ValueOf(&want).Elem(), &n)
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := spec.ReadInit(text)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("read\n%+v\nof\n%+v", *got, want)
	}
	process, err := json.Marshal(want.Main)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := spec.ReadProcess(process); err != nil || !reflect.DeepEqual(p, want.Main) {
		t.Errorf("read\n%+v\nof\n%+v: %v", p, want.Main, err)
	}
}

func TestEveryFieldOfARunIsRead(t *testing.T) {
	var want vm.Run
	n := 0
	fill(reflect.ValueOf(&want).Elem(), &n)
	for _, want := range []vm.Run{want, {}} {
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := spec.ReadRun(text); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("read\n%+v, %v\nof\n%+v", got, err, want)
		}
	}
}

func TestZeroValuesAreRead(t *testing.T) {
	text, _ := json.Marshal(spec.Init{})
	if got, err := spec.ReadInit(text); err != nil || !reflect.DeepEqual(*got, spec.Init{}) {
		t.Errorf("read %+v, %v of %s", got, err, text)
	}
}

func TestMalformedSpecsAreRefused(t *testing.T) {
	for _, text := range []string{
		``, `{`, `{}x`, `[]`, `{"hostname"}`, `{"hostname":}`, `{"hostname":"x}`, `{"hostname":1}`, `{"root":"1"}`, `{"root":1.5}`, `{"root":01}`,
		`{"root":99999999999999999999}`, `{"nonesuch":1}`, `{"hostname":"a",}`, `{"seccomp":"abc"}`, `{"seccomp":"a==="}`, `{"seccomp":"ab=c"}`, `{"devices":["a",]}`,
		`{"hostname":"\q"}`, `{"hostname":"\u12"}`, `{"links":[["a"]]}`, `{"mask":{}}`, "{\"hostname\":\"a\nb\"}",
	} {
		if got, err := spec.ReadInit([]byte(text)); err == nil {
			t.Errorf("%s was read as %+v", text, got)
		}
	}
}

func TestMessagesAreJSON(t *testing.T) {
	for _, want := range []wire.Message{
		{Type: wire.Started}, {Type: wire.Ended, Status: 0x8b}, {Type: wire.Ended, Status: -1},
		{Type: wire.Failed, Fault: &wire.Failure{Kind: "missing", Field: "command", Message: "exec: \"x\\y\x00\x1f\x7f\": é", Hint: "do"}},
	} {
		text := spec.AppendMessage(nil, want)
		var got wire.Message
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s reads %+v, %v; want %+v", text, got, err, want)
		}
		if kind, err := spec.ReadType(text); err != nil || kind != want.Type {
			t.Errorf("the type of %s is %q, %v", text, kind, err)
		}
	}
}

// FuzzReadProcess: what encoding/json reads strictly is read the same way, and
// nothing is read that is no JSON.
func FuzzReadProcess(f *testing.F) {
	text, _ := json.Marshal(wire.Process{Args: []string{"a", "b\u2028"}, Seccomp: []byte("12345678"), Rlimits: []wire.Rlimit{{Type: 7, Soft: 1, Hard: 1<<64 - 1}}})
	f.Add(text)
	f.Add([]byte(`{"args":["\ud83d\ude00","\ud83d","\/"],"capabilities":[-1],"tty":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := spec.ReadProcess(text)
		if err != nil || !utf8.Valid(text) {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%q is no JSON and was read", text)
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := spec.ReadProcess(again); err != nil || !reflect.DeepEqual(got, second) {
			t.Fatalf("%s reads %+v, then %+v: %v", text, got, second, err)
		}
	})
}
