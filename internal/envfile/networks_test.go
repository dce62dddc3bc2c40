package envfile

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

const nets = `project: shop
networks:
- {name: back, isolated: true, ipv4: 10.7.0.9/24}
- name: front
environments:
- {name: db, template: busybox, network: back}
- {name: web, template: busybox, network: front}
- {name: job, template: busybox, network: there}
`

func TestNetworksOfAFile(t *testing.T) {
	there := []api.Network{{Name: "default"}, {Name: "there"}}
	back := api.Network{Name: "back", Isolated: true, IPv4: "10.7.0.0/24", Project: "shop"}
	old := api.Network{Name: "old", Project: "shop"}
	with := func(more ...api.Network) []api.Network { return append(append([]api.Network{}, there...), more...) }
	for name, c := range map[string]struct {
		text  string
		have  []api.Network
		prune bool
		want  string // NAME ACTION of each
		fails string // what the refusal says
	}{
		"those that are missing are made":          {text: nets, have: there, want: "back create, front create"},
		"those that are there are left":            {text: nets, have: with(back, api.Network{Name: "front"}), want: "back none, front none"},
		"what the file no longer has stays":        {text: nets, have: with(back, api.Network{Name: "front"}, old), want: "back none, front none"},
		"with prune it goes":                       {text: nets, have: with(back, api.Network{Name: "front"}, old), prune: true, want: "back none, front none, old remove"},
		"but not another's":                        {text: nets, have: with(back, api.Network{Name: "front"}, api.Network{Name: "other", Project: "b"}), prune: true, want: "back none, front none"},
		"another subnet is refused":                {text: nets, have: with(api.Network{Name: "back", Isolated: true, IPv4: "10.8.0.0/24"}), fails: "strata.yaml:3:3: the network back has the subnet 10.8.0.0/24, and not 10.7.0.0/24"},
		"one that is not isolated is refused":      {text: nets, have: with(api.Network{Name: "back", IPv4: "10.7.0.0/24"}), fails: "3:3: the network back is not isolated"},
		"another project's is refused":             {text: nets, have: with(api.Network{Name: "front", Project: "b"}), fails: `4:3: the network front is of the project "b"`},
		"an environment on none that is described": {text: strings.Replace(nets, "network: there", "network: away", 1), have: there, fails: `8:43: there is no network "away"`},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Read([]byte(c.text), "strata.yaml", "/")
			if err != nil {
				t.Fatal(err)
			}
			p, err := New(f, nil, Options{Prune: c.prune, Networks: c.have})
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) || fault.All(err)[0].Hint == "" {
					t.Errorf("%v; want %s", err, c.fails)
				}
				return
			}
			var got []string
			for _, n := range p.Networks {
				got = append(got, n.Name+" "+n.Action)
				if n.Name == "back" && n.Action == Create && !reflect.DeepEqual(n.Make, back) {
					t.Errorf("asked for %+v", n.Make)
				}
			}
			if err != nil || strings.Join(got, ", ") != c.want {
				t.Errorf("%v, %v; want %s", got, err, c.want)
			}
		})
	}
	for text, says := range map[string]string{
		"{name: default}":              "is there without a file",
		"{name: A}":                    "cannot be a name",
		"{name: a, ipv4: 10.7.0.0}":    "2:28: \"10.7.0.0\" is not a subnet",
		"{name: a, ipv6: 10.7.0.0/24}": "is not a subnet",
		"{name: a}, {name: a}":         "2:30: the network a is described a second time",
		"{name: a, bridge: x}":         "\"bridge\" is not a field of networks[0]",
		"{name: a, isolated: perhaps}": "2:32",
	} {
		_, err := Read([]byte("environments: [{name: w, template: x}]\nnetworks: ["+text+"]\n"), "f", "/")
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %s", text, err, says)
		}
	}
}

// some sets about half of what is in v, otherwise as fill does.
func some(v reflect.Value, f field, n *int, random *rand.Rand) {
	if v.Kind() == reflect.Struct {
		if _, ok := quantities[v.Type()]; !ok {
			for _, inner := range fieldsOf(v.Type()) {
				if inner.required || random.IntN(2) == 0 {
					some(v.FieldByIndex(inner.index), inner, n, random)
				}
			}
			return
		}
	}
	fill(v, f, n)
}

// TestWhatIsExportedIsWhatThereIs: of any environments, the exported file, read again and
// compared with them, asks for nothing.
func TestWhatIsExportedIsWhatThereIs(t *testing.T) {
	const seed = 5
	random := rand.New(rand.NewPCG(seed, seed))
	for range 300 {
		var have []api.Environment
		n := random.IntN(1000)
		for range 1 + random.IntN(3) {
			var e Entry
			some(reflect.ValueOf(&e.Spec).Elem(), field{}, &n, random)
			e.Foreign = nil
			if e.Health != nil && e.Health.Retries != 0 {
				e.Health.Retries = 5
			}
			e.Log.Files, e.Restart.Max = e.Log.Files%9, e.Restart.Max%9
			e.Template = "busybox"
			for i := range e.Ports {
				e.Ports[i].HostPort, e.Ports[i].Port = e.Ports[i].HostPort|1, e.Ports[i].Port|1
			}
			for i := range e.Volumes {
				e.Volumes[i].Source = "/" + e.Volumes[i].Source
			}
			if random.IntN(2) == 0 {
				e.Network = "back"
			} else {
				e.Network = ""
			}
			stratum := []string{"zone", "guest", "machine"}[random.IntN(3)]
			if e.Stratum != "" {
				stratum = e.Stratum
			}
			have = append(have, api.Environment{Name: e.Name, State: api.Running, Stratum: stratum, Spec: e.Spec, DiskSize: int64(e.Resources.Disk)})
		}
		networks := []api.Network{{Name: "default"}, {Name: "back", IPv4: "10.7.0.0/24", IPv6: "fd00::/64", Isolated: random.IntN(2) == 0}}
		f, _, err := Of(have)
		if err != nil {
			t.Fatal(err)
		}
		f = f.WithNetworks(networks)
		text, err := f.Write()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Read(text, "strata.yaml", "/here")
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		p, err := New(again, have, Options{Networks: networks})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for _, s := range p.Steps {
			if s.Action != None || s.Start {
				t.Fatalf("%+v of\n%s", s, text)
			}
		}
		for _, s := range p.Networks {
			if s.Action != None {
				t.Fatalf("%+v of\n%s", s, text)
			}
		}
	}
}
