package nft

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Table is one root's filter in the kernel. It is safe for concurrent use; every
// change is one batch. It works in the network namespace of the thread that made
// the first call, for good.
type Table struct {
	rules Ruleset

	mu   sync.Mutex
	conn *nftables.Conn
}

// Open returns the filter with the given table name; nothing is touched yet.
func Open(table string) *Table { return &Table{rules: Ruleset{Table: table}} }

// Close gives the socket back.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop()
}

func (t *Table) drop() {
	if t.conn != nil {
		_ = t.conn.CloseLasting()
		t.conn = nil
	}
}

// batch runs f and sends what it collected. After any failure the socket is
// closed, since answers that nobody read may still be in it.
func (t *Table) batch(f func(c *nftables.Conn) error) error {
	if t.conn == nil {
		conn, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return fmt.Errorf("open nftables socket: %w", err)
		}
		t.conn = conn
	}
	err := f(t.conn)
	if err == nil {
		err = t.conn.Flush()
	}
	if err != nil {
		t.drop()
	}
	return err
}

func (t *Table) tables() (inet, bridge *nftables.Table) {
	return &nftables.Table{Name: t.rules.Table, Family: nftables.TableFamilyINet},
		&nftables.Table{Name: t.rules.Table, Family: nftables.TableFamilyBridge}
}

func (t *Table) set(s setPlan) *nftables.Set {
	inet, bridge := t.tables()
	set := &nftables.Set{Table: inet, Name: s.name, Interval: s.interval, KeyType: s.key[0], Concatenation: len(s.key) > 1}
	if s.bridge {
		set.Table = bridge
	}
	if len(s.key) > 1 {
		set.KeyType = nftables.MustConcatSetType(s.key...)
	}
	if s.value != nil {
		set.IsMap, set.DataType = true, nftables.MustConcatSetType(s.value...)
	}
	return set
}

func planOf(name string) (setPlan, bool) {
	i := slices.IndexFunc(sets, func(s setPlan) bool { return s.name == name })
	if i < 0 {
		return setPlan{}, false
	}
	return sets[i], true
}

// Present tells whether the kernel has exactly this ruleset.
func (t *Table) Present() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.present()
}

func (t *Table) present() (bool, error) {
	inet, bridge := t.tables()
	for _, table := range []*nftables.Table{inet, bridge} {
		var marked bool
		err := t.batch(func(c *nftables.Conn) error {
			there, err := c.ListTablesOfFamily(table.Family)
			if err != nil || !slices.ContainsFunc(there, func(o *nftables.Table) bool { return o.Name == table.Name }) {
				return err
			}
			found, err := c.GetSets(table)
			marked = slices.ContainsFunc(found, func(s *nftables.Set) bool { return s.Name == t.rules.Mark() })
			return err
		})
		if err != nil {
			return false, fmt.Errorf("read nft table %s: %w", t.rules.Table, err)
		}
		if !marked {
			return false, nil
		}
	}
	return true, nil
}

// Ensure puts the ruleset in place where the kernel lacks it or has another
// strata's, with the wanted elements. It tells whether it had to; a ruleset that
// is there stays untouched, elements included. wanted is called while no other
// change can happen, so that what it does not know yet comes after.
func (t *Table) Ensure(wanted func() []Element) (made bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if present, err := t.present(); err != nil || present {
		return false, err
	}
	elements := wanted()
	inet, bridge := t.tables()
	err = t.batch(func(c *nftables.Conn) error {
		for _, table := range []*nftables.Table{inet, bridge} {
			c.AddTable(table) // so that there is one to remove
			c.DelTable(table)
			c.AddTable(table)
			if err := c.AddSet(t.set(setPlan{name: t.rules.Mark(), bridge: table == bridge, key: types{tPort}}), nil); err != nil {
				return err
			}
		}
		for _, s := range sets {
			if err := c.AddSet(t.set(s), nil); err != nil {
				return err
			}
		}
		for _, plan := range chains() {
			table := inet
			if plan.bridge {
				table = bridge
			}
			chain := c.AddChain(&nftables.Chain{Name: plan.name, Table: table, Type: plan.kind, Hooknum: plan.hook, Priority: &plan.priority})
			for _, r := range plan.rules {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.exprs})
			}
		}
		return t.put(c, elements, (*nftables.Conn).SetAddElements)
	})
	if err != nil {
		return false, fmt.Errorf("make nft table %s: %w", t.rules.Table, err)
	}
	return true, nil
}

func (t *Table) put(c *nftables.Conn, elements []Element, do func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	bySet := map[string][]nftables.SetElement{}
	for _, e := range elements {
		bySet[e.Set] = append(bySet[e.Set], nftables.SetElement{Key: []byte(e.Key), Val: []byte(e.Value), IntervalEnd: e.End})
	}
	for _, s := range sets { // in a fixed order
		if len(bySet[s.name]) == 0 {
			continue
		}
		if err := do(c, t.set(s), bySet[s.name]); err != nil {
			return err
		}
	}
	return nil
}

// Missing tells whether err means that the ruleset, or an element, is not there.
func Missing(err error) bool { return errors.Is(err, unix.ENOENT) }

// Change takes elements out and puts others in, in one batch. Putting in what is
// there already is no error; taking out what is not there is, and then nothing
// of the batch happened: see Missing.
func (t *Table) Change(out, in []Element) error {
	if len(out)+len(in) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.change(out, in)
}

func (t *Table) change(out, in []Element) error {
	err := t.batch(func(c *nftables.Conn) error {
		if err := t.put(c, out, (*nftables.Conn).SetDeleteElements); err != nil {
			return err
		}
		return t.put(c, in, (*nftables.Conn).SetAddElements)
	})
	if err != nil {
		return fmt.Errorf("change nft table %s: %w", t.rules.Table, err)
	}
	return nil
}

// Elements returns what the sets and maps hold.
func (t *Table) Elements() ([]Element, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.elements()
}

func (t *Table) elements() ([]Element, error) {
	var found []Element
	for _, s := range sets {
		err := t.batch(func(c *nftables.Conn) error {
			held, err := c.GetSetElements(t.set(s))
			if s.interval {
				slices.SortFunc(held, alongRanges)
			}
			for _, e := range held {
				if s.interval && e.IntervalEnd && strings.Trim(string(e.Key), "\x00") == "" {
					continue // the kernel's own: from nought to the first range
				}
				found = append(found, Element{Set: s.name, Key: string(e.Key), Value: string(e.Val), End: e.IntervalEnd})
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read nft set %s: %w", s.name, err)
		}
	}
	return found, nil
}

// alongRanges orders the elements that make ranges so that each range's two follow each
// other, its first key before its end. Where one range begins at another's end, Linux 6.18
// takes both out in no other order: ENOENT.
func alongRanges(a, b nftables.SetElement) int {
	if order := bytes.Compare(a.Key, b.Key); order != 0 || a.IntervalEnd == b.IntervalEnd {
		return order
	}
	if a.IntervalEnd {
		return -1
	}
	return 1
}

// Elsewhere returns the name of another root's table that publishes p, "" where
// there is none.
func (t *Table) Elsewhere(p Publish) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := map[string]bool{}
	for _, e := range p.Elements() {
		keys[e.Set+e.Key] = true
	}
	holder := ""
	err := t.batch(func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
		if err != nil {
			return err
		}
		for _, table := range tables {
			if table.Name == t.rules.Table || table.Name != rootTable && !strings.HasPrefix(table.Name, rootTable+"-") {
				continue
			}
			for _, name := range []string{Any4, Any6, At4, At6} {
				plan, _ := planOf(name)
				set := t.set(plan)
				set.Table = table
				held, err := c.GetSetElements(set)
				if err != nil {
					return nil // not a table like ours, or on its way out
				}
				for _, e := range held {
					if keys[name+string(e.Key)] {
						holder = table.Name
					}
				}
			}
		}
		return nil
	})
	return holder, err
}

// rootTable is the table of the installed root; private ones add a hyphen and their tag.
const rootTable = "strata"

// Match makes the sets and maps hold exactly the wanted elements, and returns
// how many were missing and how many too many. wanted is called as Ensure does.
func (t *Table) Match(wanted func() []Element) (added, removed int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	held, err := t.elements()
	if err != nil {
		return 0, 0, err
	}
	out, in := Difference(held, wanted())
	if len(out)+len(in) == 0 {
		return 0, 0, nil
	}
	return len(in), len(out), t.change(out, in)
}

// Difference returns what must go out of held and into it to make it wanted. A
// key whose value differs goes out and in.
func Difference(held, wanted []Element) (out, in []Element) {
	has, wants := map[Element]bool{}, map[Element]bool{}
	for _, e := range held {
		has[e] = true
	}
	for _, e := range wanted {
		if !has[e] && !wants[e] {
			in = append(in, e)
		}
		wants[e] = true
	}
	for _, e := range held {
		if !wants[e] {
			out = append(out, e)
		}
	}
	return out, in
}

// Destroy removes all tables; it is no error when they are gone.
func (t *Table) Destroy() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	inet, bridge := t.tables()
	err := t.batch(func(c *nftables.Conn) error {
		for _, table := range []*nftables.Table{inet, bridge, t.rates()} {
			c.AddTable(table)
			c.DelTable(table)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove nft table %s: %w", t.rules.Table, err)
	}
	return nil
}
