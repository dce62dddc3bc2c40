package nft

import (
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Rate is the most that a link's environment receives and sends in a second.
// Unit: bytes, headers of IP included; 0: no limit.
type Rate struct {
	In, Out int64
}

// Dropped is how many packets, or pieces of up to 64 KiB that were not yet cut into
// packets, a link's limits have refused.
type Dropped struct {
	In, Out int64
}

// Limits of rates are in a table of their own, which is there only while somebody has
// one: maps from links to chains, and a chain for each link and direction with one rule.
//
//	chain out-sv0123456789aba { limit rate over 1048576 bytes/second burst 131072 bytes counter drop }
//
// What is over the rate is dropped, both ways; the kernel lets through at once what a
// link did not use in the last second. The bridge's hooks are where every frame of a link
// passes, whoever it is for, and this filter is needed for networks anyhow: queueing
// disciplines of the way in (police, ifb) are missing from many kernels.
const (
	ratesIn  = "in" // the maps; they begin the chains' names as well
	ratesOut = "out"

	// rateBurst comes on top of what the kernel lets pass after a quiet second: one
	// piece of the largest size and a second one. Source: net/netfilter/nft_limit.c,
	// nft_limit_init; linux/netdevice.h, GSO_LEGACY_MAX_SIZE.
	rateBurst = 128 << 10
)

func (t *Table) rates() *nftables.Table {
	return &nftables.Table{Name: t.rules.Table + "-rates", Family: nftables.TableFamilyBridge}
}

func rateMap(table *nftables.Table, way string) *nftables.Set {
	return &nftables.Set{Table: table, Name: way, IsMap: true, KeyType: tIf, DataType: nftables.TypeVerdict}
}

func rateChain(way, link string) string { return way + "-" + link }

// ways gives each direction's limit.
func (r Rate) ways() map[string]int64 { return map[string]int64{ratesIn: r.In, ratesOut: r.Out} }

// rateRule drops what is over the limit, and counts it.
func rateRule(limit int64) []expr.Any {
	return all([]expr.Any{
		&expr.Limit{Type: expr.LimitTypePktBytes, Rate: uint64(limit), Unit: expr.LimitTimeSecond, Over: true, Burst: rateBurst},
		&expr.Counter{},
	}, drop)
}

// SetRate limits a link as r says; what r does not limit is not limited any more. A
// limit that is so already keeps its count.
func (t *Table) SetRate(link string, r Rate) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	have, err := t.rateChains()
	if err != nil {
		return err
	}
	return t.setRates(have, map[string]Rate{link: r})
}

// MatchRates makes the limits exactly those wanted, by link.
func (t *Table) MatchRates(wanted map[string]Rate) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	have, err := t.rateChains()
	if err != nil || have == nil && len(wanted) == 0 {
		return err
	}
	change := map[string]Rate{}
	for name := range have {
		if _, link, ok := strings.Cut(name, "-"); ok {
			change[link] = Rate{}
		}
	}
	for link, r := range wanted {
		change[link] = r
	}
	return t.setRates(have, change)
}

// rateChains lists the chains of the table; nil where there is none.
func (t *Table) rateChains() (have map[string]bool, err error) {
	err = t.batch(func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(nftables.TableFamilyBridge)
		if err != nil {
			return err
		}
		for _, one := range tables {
			if one.Name == t.rates().Name {
				have = map[string]bool{}
			}
		}
		if have == nil {
			return nil
		}
		chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyBridge)
		for _, one := range chains {
			if one.Table.Name == t.rates().Name {
				have[one.Name] = true
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read nft table %s: %w", t.rates().Name, err)
	}
	return have, nil
}

// setRates changes the limits of some links, in one batch; the table goes with the last.
func (t *Table) setRates(have map[string]bool, change map[string]Rate) error {
	left := map[string]bool{}
	for name := range have {
		left[name] = strings.Contains(name, "-")
	}
	type step struct {
		way, link string
		limit     int64
	}
	var steps []step
	for link, r := range change {
		for way, limit := range r.ways() {
			name := rateChain(way, link)
			same := have[name] && limit > 0 && t.limitOf(name) == limit
			if left[name] = limit > 0; !same && (limit > 0 || have[name]) {
				steps = append(steps, step{way, link, limit})
			}
		}
	}
	needed := false
	for _, one := range left {
		needed = needed || one
	}
	if len(steps) == 0 && (needed || have == nil) {
		return nil
	}
	table := t.rates()
	err := t.batch(func(c *nftables.Conn) error {
		if !needed {
			c.DelTable(table)
			return nil
		}
		if have == nil {
			if err := t.makeRates(c); err != nil {
				return err
			}
		}
		for _, s := range steps {
			if err := setRate(c, rateMap(table, s.way), s.link, s.limit, have[rateChain(s.way, s.link)]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("change nft table %s: %w", table.Name, err)
	}
	return nil
}

// makeRates makes the table without anybody's limits.
func (t *Table) makeRates(c *nftables.Conn) error {
	table := t.rates()
	c.AddTable(table)
	for _, one := range []struct {
		way  string
		key  expr.MetaKey
		hook *nftables.ChainHook
	}{{ratesIn, expr.MetaKeyOIFNAME, nftables.ChainHookPostrouting}, {ratesOut, expr.MetaKeyIIFNAME, nftables.ChainHookPrerouting}} {
		links := rateMap(table, one.way)
		if err := c.AddSet(links, nil); err != nil {
			return err
		}
		chain := c.AddChain(&nftables.Chain{Name: one.way, Table: table, Type: nftables.ChainTypeFilter, Hooknum: one.hook, Priority: nftables.ChainPriorityRaw})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: one.key, Register: reg},
			&expr.Lookup{SourceRegister: reg, SetName: links.Name, SetID: links.ID, DestRegister: 0, IsDestRegSet: true}, // the verdict's register
		}})
	}
	return nil
}

// setRate makes, changes or removes the limit of one link and way.
func setRate(c *nftables.Conn, links *nftables.Set, link string, limit int64, there bool) error {
	chain := &nftables.Chain{Name: rateChain(links.Name, link), Table: links.Table}
	element := []nftables.SetElement{{Key: []byte(ifname(link)), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain.Name}}}
	if limit == 0 {
		if err := c.SetDeleteElements(links, []nftables.SetElement{{Key: element[0].Key}}); err != nil {
			return err
		}
		c.FlushChain(chain)
		c.DelChain(chain)
		return nil
	}
	if there {
		c.FlushChain(chain)
	} else {
		c.AddChain(chain)
	}
	c.AddRule(&nftables.Rule{Table: links.Table, Chain: chain, Exprs: rateRule(limit)})
	if there {
		return nil
	}
	return c.SetAddElements(links, element)
}

// limitOf reads the limit of a chain, 0 where there is none.
func (t *Table) limitOf(chain string) int64 {
	limit, _ := t.rateOf(chain)
	return limit
}

// rateOf reads a chain's limit and how many pieces it dropped; it is tolerated that
// there is none.
func (t *Table) rateOf(chain string) (limit, dropped int64) {
	table := t.rates()
	_ = t.batch(func(c *nftables.Conn) error {
		rules, err := c.GetRules(table, &nftables.Chain{Name: chain, Table: table})
		for _, r := range rules {
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case *expr.Limit:
					limit = int64(e.Rate)
				case *expr.Counter:
					dropped = int64(e.Packets)
				}
			}
		}
		return err
	})
	return limit, dropped
}

// Dropped tells what a link's limits have refused since they are what they are; 0
// where there is no limit.
func (t *Table) Dropped(link string) (d Dropped) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, d.In = t.rateOf(rateChain(ratesIn, link))
	_, d.Out = t.rateOf(rateChain(ratesOut, link))
	return d
}
