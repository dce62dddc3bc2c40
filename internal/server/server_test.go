package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/server"
	"github.com/strata-project/strata/internal/server/servertest"
)

// rig is a server on a unix socket with the fake engine behind it.
type rig struct {
	*testing.T
	engine *servertest.Engine
	server *server.Server
	socket string
	http   *http.Client
}

func start(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "srv") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{T: t, engine: servertest.New(), socket: filepath.Join(dir, "s.sock")}
	l, err := server.Listen(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	r.server = server.New(r.engine, slog.New(slog.DiscardHandler))
	h := r.server.HTTP()
	go h.Serve(l)
	t.Cleanup(func() { h.Close() })
	r.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", r.socket)
	}}}
	t.Cleanup(r.http.CloseIdleConnections)
	return r
}

// do sends a request and returns the status and the body.
func (r *rig) do(method, path, body string) (int, string) {
	r.Helper()
	req, err := http.NewRequest(method, "http://strata"+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	if body == "" {
		req.Body = nil
	}
	answer, err := r.http.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// refused sends a request that must fail and returns its fault.
func (r *rig) refused(method, path, body string, status int) api.Error {
	r.Helper()
	got, text := r.do(method, path, body)
	var e api.Error
	if err := json.Unmarshal([]byte(text), &e); err != nil || got != status {
		r.Fatalf("%s %s %s = %d %s; want %d and a fault", method, path, body, got, text, status)
	}
	return e
}

func (r *rig) create(spec string) api.Environment {
	r.Helper()
	status, text := r.do("POST", "/v1/environments", spec)
	var e api.Environment
	if err := json.Unmarshal([]byte(text), &e); err != nil || status != 201 {
		r.Fatalf("create = %d %s", status, text)
	}
	return e
}

func TestGeneratedFilesAreWhatTheCodeSays(t *testing.T) {
	s := server.New(servertest.New(), slog.New(slog.DiscardHandler))
	description, err := s.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var reference bytes.Buffer
	if err := s.Reference(&reference); err != nil {
		t.Fatal(err)
	}
	for _, kind := range fault.Kinds() {
		if status := fmt.Sprintf("%s %d", kind, kind.HTTP()); !strings.Contains(reference.String(), status) {
			t.Errorf("the reference lacks %s", status)
		}
	}
	for path, got := range map[string][]byte{"api/openapi.json": description, "docs/reference/api.md": reference.Bytes()} {
		want, err := os.ReadFile(filepath.Join("..", "..", path))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is stale (%v): run `make generate`", path, err)
		}
	}
}

func TestEveryFailureIsDescribed(t *testing.T) {
	text, err := server.New(servertest.New(), slog.New(slog.DiscardHandler)).OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					}
				}
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil || len(doc.Paths) == 0 {
		t.Fatalf("%d paths, %v", len(doc.Paths), err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			for status, answer := range op.Responses {
				if failure := status == "default"; !failure && status >= "400" {
					t.Errorf("%s %s has a status of its own for a failure: %s", method, path, status)
				} else if failure && answer.Content["application/json"].Schema.Ref != "#/components/schemas/Error" {
					t.Errorf("%s %s fails with %+v", method, path, answer)
				}
			}
			if _, ok := op.Responses["default"]; !ok {
				t.Errorf("%s %s never fails", method, path)
			}
		}
	}
}

// operations returns every operation of the description: method, path, and whether it has a JSON body.
func operations(t *testing.T, r *rig) (all [][3]string) {
	_, text := r.do("GET", "/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody struct {
				Content map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			kind := ""
			for k := range op.RequestBody.Content {
				kind = k
			}
			all = append(all, [3]string{strings.ToUpper(method), path, kind})
		}
	}
	slices.SortFunc(all, func(a, b [3]string) int { return strings.Compare(a[1]+a[0], b[1]+b[0]) })
	return all
}

func TestEveryRouteRefusesWhatItDoesNotKnow(t *testing.T) {
	r := start(t)
	all := operations(t, r)
	if len(all) < 35 {
		t.Fatalf("only %d routes are described", len(all))
	}
	for _, op := range all {
		method, path := op[0], strings.NewReplacer("{ref}", "x", "{name}", "x").Replace(op[1])
		if strings.Contains(op[1], "{ref}") && !strings.Contains(path, "/x") {
			t.Errorf("%s has no parameter", op[1])
		}
		e := r.refused(method, path+"?nonsense=1", "", 400)
		if e.Kind != "invalid" || e.Field != "nonsense" || e.Hint == "" {
			t.Errorf("%s %s with an unknown query parameter: %+v", method, path, e)
		}
		if op[2] != "application/json" {
			continue
		}
		e = r.refused(method, path, `{"nonsense": 1}`, 400)
		faults := append([]api.Error{e}, e.Also...)
		if !slices.ContainsFunc(faults, func(e api.Error) bool {
			return e.Kind == "invalid" && e.Field == "nonsense" && strings.HasPrefix(e.Hint, "known fields are ")
		}) {
			t.Errorf("%s %s with an unknown field: %+v", method, path, e)
		}
	}
}

func TestWhatIsWrongWithARequestIsSaidAllAtOnce(t *testing.T) {
	r := start(t)
	for what, c := range map[string]struct {
		body string
		want []api.Error
	}{
		"a value that is not one of a few": {`{"template":"busybox","kind":"robot"}`, []api.Error{
			{Kind: "invalid", Field: "kind", Message: `"robot" is not accepted`, Hint: "accepted: app, system"}}},
		"a size that is none": {`{"template":"busybox","resources":{"memory":"12Q"}}`, []api.Error{
			{Kind: "invalid", Field: "resources.memory", Message: `"12Q" is not a size`, Hint: "write a number with K, M, G or T, such as 512M or 10G"}}},
		"a required field": {`{"template":"busybox","volumes":[{"target":"/a"}]}`, []api.Error{{Kind: "invalid", Field: "volumes[0].source", Message: "it is required"}}},
		"a field inside a list": {`{"template":"busybox","ports":[{"host_port":1,"port":2},{"host_port":0,"port":70000}]}`, []api.Error{
			{Kind: "invalid", Field: "ports[1].host_port", Message: "0 is not accepted", Hint: "accepted: number >= 1"}}},
		"a large bound": {`{"template":"busybox","resources":{"pids":4194305}}`, []api.Error{
			{Kind: "invalid", Field: "resources.pids", Message: "4194305 is not accepted", Hint: "accepted: number <= 4194304"}}},
		"two things": {`{"template":"busybox","nmae":"x","tty":"yes"}`, []api.Error{
			{Kind: "invalid", Field: "nmae"}, {Kind: "invalid", Field: "tty", Message: `"yes" is not accepted`, Hint: "accepted: boolean"}}},
		"the case of a field": {`{"template":"busybox","Name":"x"}`, []api.Error{{Kind: "invalid", Field: "Name", Message: "there is no such field"}}},
		"no JSON":             {`{"template":`, []api.Error{{Kind: "invalid", Field: "body", Hint: "send one JSON object"}}},
	} {
		e := r.refused("POST", "/v1/environments", c.body, 400)
		got := append([]api.Error{e}, e.Also...)
		for _, want := range c.want {
			if !slices.ContainsFunc(got, func(e api.Error) bool {
				return e.Kind == want.Kind && e.Field == want.Field && (want.Message == "" || e.Message == want.Message) && (want.Hint == "" || e.Hint == want.Hint)
			}) {
				t.Errorf("%s: got %+v; want %+v", what, got, want)
			}
		}
	}
	long := `{"template":"` + strings.Repeat("x", 5<<20) + `"}`
	if e := r.refused("POST", "/v1/environments", long, 400); !strings.Contains(e.Message, "too large") {
		t.Errorf("a body of 5 MiB: %+v", e)
	}
}

func TestQuantitiesAreReadAsNumbersAndText(t *testing.T) {
	r := start(t)
	e := r.create(`{"template":"busybox","name":"q","resources":{"memory":"512M","cpus":0.5,"disk":1073741824},"stop_grace":"1m30s","health":{"test":["CMD","x"],"interval":5}}`)
	if e.Spec.Resources.Memory != 512<<20 || e.Spec.Resources.CPUs != 500 || e.Spec.Resources.Disk != 1<<30 || e.Spec.StopGrace.String() != "1m30s" || e.Spec.Health.Interval.String() != "5s" {
		t.Errorf("%+v", e.Spec)
	}
	if e := r.refused("PATCH", "/v1/environments/q", `{"memory":"lots"}`, 400); e.Field != "memory" {
		t.Errorf("%+v", e)
	}
	if status, text := r.do("PATCH", "/v1/environments/q", `{"memory":"1G"}`); status != 200 || !strings.Contains(text, "1073741824") {
		t.Errorf("%d %s", status, text)
	}
}

func TestFaultsOfTheEngineKeepTheirKind(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"one"}`)
	for _, c := range []struct {
		method, path, body string
		status             int
		kind               string
	}{
		{"GET", "/v1/environments/none", "", 404, "missing"},
		{"POST", "/v1/environments", `{"template":"busybox","name":"one"}`, 409, "conflict"},
		{"POST", "/v1/environments/one/pause", "", 409, "conflict"},
		{"GET", "/v1/templates/a%2Fb", "", 404, "missing"},
		{"GET", "/v1/nonsense", "", 404, "missing"},
		{"POST", "/v1/info", "", 404, "missing"},
		{"GET", "/v1/environments/none/logs", "", 404, "missing"},
		{"GET", "/v1/environments/none/files?path=/x", "", 404, "missing"},
		{"POST", "/v1/environments/one/stop?grace=soon", "", 400, "invalid"},
		{"POST", "/v1/environments/one/attach", "", 400, "invalid"},
	} {
		if e := r.refused(c.method, c.path, c.body, c.status); e.Kind != c.kind || e.Message == "" {
			t.Errorf("%s %s: %+v; want kind %s", c.method, c.path, e, c.kind)
		}
	}
}

func TestAPanicIsAnInternalFaultOfOneRequest(t *testing.T) {
	r := start(t)
	r.engine.Panic = "boom"
	if e := r.refused("GET", "/v1/info", "", 500); e.Kind != "internal" || strings.Contains(e.Message, "boom") {
		t.Errorf("%+v", e)
	}
	r.engine.Panic = nil
	if status, _ := r.do("GET", "/v1/info", ""); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}

func TestAnAnswerThatIsNotWholeIsBrokenOff(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"broken","command":["echo","half a log"]}`)
	r.do("POST", "/v1/environments/broken/start", "")
	r.do("POST", "/v1/environments/broken/wait", "")
	r.do("POST", "/v1/templates/busybox/tag", `{"name":"broken"}`)
	for what, c := range map[string]struct {
		path, want string
		panics     any
	}{
		"a copy":        {"/v1/environments/broken/files?path=/broken", "half", nil},
		"an export":     {"/v1/templates/broken/export", "half", nil},
		"a log":         {"/v1/environments/broken/logs", `"data":"aGFsZiBhIGxvZwo="`, nil},
		"after a panic": {"/v1/environments/broken/files?path=/broken", "", "boom"},
	} {
		r.engine.Panic = c.panics
		answer, err := r.http.Get("http://strata" + c.path)
		if err != nil {
			if c.panics == nil {
				t.Errorf("%s: %v; want what was written before", what, err)
			}
			continue
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err == nil || answer.StatusCode != 200 || !strings.Contains(string(text), c.want) {
			t.Errorf("%s: %d, %d bytes, %v; want 200, %s and a break", what, answer.StatusCode, len(text), err, c.want)
		}
	}
}

func TestTheDaemonsEndIsNotTheEndOfALog(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"up","command":["sleep"]}`)
	r.do("POST", "/v1/environments/up/start", "")
	for text := ""; text == ""; { // until it has said so
		_, text = r.do("GET", "/v1/environments/up/logs", "")
	}
	answer, err := r.http.Get("http://strata/v1/environments/up/logs?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	r.server.End()
	if text, err := io.ReadAll(answer.Body); err == nil || !strings.Contains(string(text), `"data":"dXAK"`) {
		t.Errorf("a log that was followed ended as if it were whole: %q", text)
	}
	if e := r.refused("GET", "/v1/environments/up/logs?follow=true&tail=0", "", 503); e.Kind != "busy" || e.Hint == "" {
		t.Errorf("of which nothing was sent: %+v", e)
	}
}

// upgrade opens a bare connection, sends a request by hand, and returns the
// answer's head and what follows it.
func (r *rig) upgrade(path, body, early string) (string, *bufio.Reader, net.Conn) {
	r.Helper()
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: strata\r\nConnection: Upgrade\r\nUpgrade: strata-stream\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s%s",
		path, len(body), body, early)
	in := bufio.NewReader(conn)
	head := ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return head, in, conn
		}
		if line == "\r\n" {
			return head, in, conn
		}
		head += line
	}
}

func TestAnUpgradedConnectionSpeaksFrames(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"echo","command":["cat"],"stdin":true}`)
	head, in, conn := r.upgrade("/v1/environments/echo/attach?start=true", "", "")
	if !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "Upgrade: strata-stream") {
		t.Fatalf("head = %q", head)
	}
	stream.Write(conn, stream.Stdin, []byte("there and back"))
	stream.Write(conn, stream.CloseStdin, nil)
	frames := stream.NewReader(in)
	if typ, p, err := frames.Next(); err != nil || typ != stream.Stdout || string(p) != "there and back" {
		t.Errorf("first frame: %v %q %v", typ, p, err)
	}
	if typ, p, err := frames.Next(); err != nil || typ != stream.Exit || !bytes.Equal(p, []byte{0, 0, 0}) {
		t.Errorf("last frame: %v %v %v", typ, p, err)
	}
}

func TestExecTakesItsProgramInTheBody(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"up","command":["sleep"]}`)
	r.do("POST", "/v1/environments/up/start", "")
	_, in, _ := r.upgrade("/v1/environments/up/exec", `{"command":["err","well"]}`, "")
	frames := stream.NewReader(in)
	if typ, p, err := frames.Next(); err != nil || typ != stream.Stderr || string(p) != "well\n" {
		t.Errorf("first frame: %v %q %v", typ, p, err)
	}
	head, _, _ := r.upgrade("/v1/environments/up/exec", `{"command":[]}`, "")
	if !strings.HasPrefix(head, "HTTP/1.1 400 ") {
		t.Errorf("without a command: %q", head)
	}
}

func TestExecThatIsLeftAlone(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"up","command":["sleep"]}`)
	for _, c := range []struct {
		body   string
		status int
	}{{`{"command":["err","well"]}`, http.StatusConflict}, {`{"command":[]}`, http.StatusBadRequest}, {`{"command":["cat"],"stdin":true}`, http.StatusBadRequest}} {
		if status, text := r.do("POST", "/v1/environments/up/exec?detach=true", c.body); status != c.status {
			t.Errorf("%s of what does not run: %d %s", c.body, status, text)
		}
	}
	r.do("POST", "/v1/environments/up/start", "")
	if status, text := r.do("POST", "/v1/environments/up/exec?detach=true", `{"command":["err","well"]}`); status != http.StatusNoContent || text != "" {
		t.Errorf("%d %q", status, text)
	}
}

func TestAFaultAfterTheUpgradeIsAFrame(t *testing.T) {
	r := start(t)
	_, in, _ := r.upgrade("/v1/environments/none/attach", "", "")
	typ, p, err := stream.NewReader(in).Next()
	var e api.Error
	if json.Unmarshal(p, &e); err != nil || typ != stream.Failure || e.Kind != "missing" {
		t.Errorf("frame: %v %s %v", typ, p, err)
	}
}

func TestFramesBeforeTheUpgradeAreRefused(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"echo","command":["cat"]}`)
	head, _, _ := r.upgrade("/v1/environments/echo/attach?start=true", "", string([]byte{byte(stream.CloseStdin), 0, 0, 0, 0}))
	if !strings.HasPrefix(head, "HTTP/1.1 400 ") {
		t.Errorf("head = %q; want 400", head)
	}
}

func TestEventsAreSentAsTheyHappen(t *testing.T) {
	r := start(t)
	req, _ := http.NewRequest("GET", "http://strata/v1/events?type=environment&name=b", nil)
	answer, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("content type %q", kind)
	}
	r.create(`{"template":"busybox","name":"a"}`)
	b := r.create(`{"template":"busybox","name":"b"}`)
	line, err := bufio.NewReader(answer.Body).ReadString('\n')
	var e api.Event
	if jerr := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &e); err != nil || jerr != nil || e.ID != b.ID || e.Action != "create" {
		t.Errorf("event %q: %v %v", line, err, jerr)
	}
	r.server.End()
	if _, err := io.ReadAll(answer.Body); err != nil {
		t.Errorf("at the daemon's end: %v", err)
	}
}

func TestEventsOfSeveralOperations(t *testing.T) {
	r := start(t)
	req, _ := http.NewRequest("GET", "http://strata/v1/events?operation=one&operation=two", nil)
	answer, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	for _, id := range []string{"one", "another", "two"} {
		r.engine.Publish(api.Event{Type: "template", Action: "pull", Operation: id})
	}
	lines := bufio.NewScanner(answer.Body)
	for _, want := range []string{"one", "two"} {
		var e api.Event
		for lines.Scan() && lines.Text() == "" { // between events
		}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &e); err != nil || e.Operation != want {
			t.Errorf("event %q of %q, %v; want that of %s", lines.Text(), e.Operation, err, want)
		}
	}
	r.server.End()
}

func TestTheOperationOfARequestIsChecked(t *testing.T) {
	r := start(t)
	req, _ := http.NewRequest("GET", "http://strata/v1/info", nil)
	req.Header.Set(api.OperationHeader, "no\tgood")
	answer, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var e api.Error
	if err := json.NewDecoder(answer.Body).Decode(&e); err != nil || answer.StatusCode != 400 || e.Field != api.OperationHeader {
		t.Errorf("%d %+v %v", answer.StatusCode, e, err)
	}
}

func TestMetrics(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"m","command":["exit","0"]}`)
	r.do("POST", "/v1/environments/m/start", "")
	r.do("GET", "/v1/environments/none", "")
	_, text := r.do("GET", "/metrics", "")
	for _, want := range []string{
		"strata_environments{state=", `strata_starts_total{result="ok"} 1`, "strata_start_seconds_count 1", `strata_failures_total{kind="missing"} 1`,
		"strata_template_bytes 1.048576e+06", "process_resident_memory_bytes", `strata_http_requests_total{route="GET /v1/environments/{ref}",status="404"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// TestMetricsOfWhatRuns has what is held beside what is promised and allowed.
func TestMetricsOfWhatRuns(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"on","command":["sleep"]}`)
	r.do("POST", "/v1/environments/on/start", "")
	_, text := r.do("GET", "/metrics", "")
	of := `{environment="on",stratum="zone"} `
	for _, want := range []string{
		"strata_environment_memory_bytes" + of + "6.7108864e+07", "strata_environment_memory_most_bytes" + of + "1.00663296e+08",
		"strata_environment_memory_guarantee_bytes" + of + "0", "strata_environment_cpu_guarantee_cores" + of + "0", "strata_environment_cpu_limit_cores" + of + "2",
		"strata_environment_processes_limit" + of + "100", "strata_environment_disk_limit_bytes" + of + "1.073741824e+10",
		`strata_host_capacity_memory_bytes{kind="free"} 0`, `strata_host_capacity_cores{kind="guaranteed"} 0`, "strata_host_capacity_waiting 0",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestAClientThatLeavesIsNoFailure(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"on","command":["sleep"]}`)
	r.do("POST", "/v1/environments/on/start", "")
	ctx, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer leave()
	req, _ := http.NewRequestWithContext(ctx, "POST", "http://strata/v1/environments/on/wait?condition=stopped", nil)
	if answer, err := r.http.Do(req); err == nil {
		answer.Body.Close()
		t.Fatalf("the wait was answered: %s", answer.Status)
	}
	const ended = `strata_http_requests_total{route="POST /v1/environments/{ref}/wait"`
	text := ""
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(text, ended); {
		if time.Now().After(deadline) {
			t.Fatal("the request goes on without its client")
		}
		time.Sleep(10 * time.Millisecond)
		_, text = r.do("GET", "/metrics", "")
	}
	if strings.Contains(text, "strata_failures_total{") {
		t.Error("it is counted as a failure")
	}
}

func TestTheSocket(t *testing.T) {
	r := start(t)
	if info, err := os.Stat(r.socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", info.Mode(), err)
	}
	if _, err := server.Listen(r.socket); err == nil || !strings.Contains(err.Error(), "a daemon answers") {
		t.Errorf("a second daemon at the socket: %v", err)
	}
	stale := r.socket + "2"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := server.Listen(stale)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	again.Close()
	file := r.socket + "3"
	os.WriteFile(file, nil, 0o600)
	if _, err := server.Listen(file); err == nil {
		t.Error("a file at the socket's place is taken for a socket")
	}
}

func TestListIsAListEvenWhenItIsEmpty(t *testing.T) {
	r := start(t)
	if _, text := r.do("GET", "/v1/environments", ""); text != "[]\n" {
		t.Errorf("empty list is %q", text)
	}
	r.create(`{"template":"busybox","name":"a","labels":{"x":"1"}}`)
	r.create(`{"template":"busybox","name":"b"}`)
	_, text := r.do("GET", "/v1/environments?all=true&label=x", "")
	var all []api.Environment
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 || all[0].Name != "a" {
		t.Errorf("%v %s", err, text)
	}
	if diff := cmp.Diff("a", all[0].Spec.Name); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkListOf500(b *testing.B) {
	e := servertest.New()
	for i := range 500 {
		if _, err := e.Create(b.Context(), api.Spec{Template: "busybox", Name: fmt.Sprintf("env-%d", i), Command: []string{"sleep", "1000"}}); err != nil {
			b.Fatal(err)
		}
	}
	h := server.New(e, slog.New(slog.DiscardHandler)).Handler()
	for b.Loop() {
		w := &discard{head: http.Header{}}
		r, _ := http.NewRequest("GET", "/v1/environments?all=true", nil)
		h.ServeHTTP(w, r)
		if w.n < 100<<10 {
			b.Fatal(w.n)
		}
	}
}

type discard struct {
	head http.Header
	n    int
}

func (d *discard) Header() http.Header         { return d.head }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { d.n += len(p); return len(p), nil }
