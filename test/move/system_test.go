package move

import (
	"strings"
	"testing"

	"github.com/strata-project/strata/test/bed"
)

// changesSystem has a folder of the template under another name, one that is new in its
// place, files and users of its own, and a service that notes each end in order.
const changesSystem = `mv /usr/share/doc /usr/share/papers; rm -r /usr/share/zoneinfo; mkdir /usr/share/zoneinfo; echo one > /usr/share/zoneinfo/one
	useradd -u 1500 -m anna; su anna -c 'echo hers > /home/anna/hers'; head -c 32M /dev/urandom > /data
	printf '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c "echo orderly >> /root/ends"\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/mark.service
	systemctl daemon-reload; systemctl enable --now mark 2>/dev/null; sync`

// lookSystem prints all of the system that a move might change. Of its limits it sees the
// disk everywhere, and the memory not in a zone on a host with cgroup v1.
const lookSystem = `cat /proc/1/comm /home/anna/hers /usr/share/zoneinfo/one; ls /usr/share/zoneinfo; ls /usr/share/papers | sha256sum; test ! -e /usr/share/doc
	stat -c '%n %U %u %g %a' /home/anna/hers /etc/shadow /usr/bin/su /usr/share/papers; sha256sum /data; systemctl is-active mark; echo $A
	stat -c '%U %u:%g' /volume/hers; cat /volume/hers; find /usr /etc -xdev -printf '%p %s %m %U %G %l\n' | sort | sha256sum
	hostname -I | cut -d' ' -f1; ` + diskAndCard

// booted is what a system may write while it boots, its journal above all. Its disk and its
// template have more in them.
const booted = 24 << 20

func TestMovingASystemInEveryDirection(t *testing.T) {
	b := newBed(t, bed.MachineKernel)
	b.Run("run", "-d", "--name", "deb", "--memory", "600M", "--disk", "2G", "-e", "A=b", "-v", openFolder(t)+":/volume", bed.Debian(t, b))
	ready := func() {
		t.Helper()
		until(t, "it is ready", func() bool { return show(t, b, "deb").Ready })
	}
	ready()
	b.Run("exec", "deb", "sh", "-ec", changesSystem)
	b.Run("exec", "deb", "sh", "-ec", "su anna -c 'echo shared > /volume/hers'")
	l := begin(t, b, "deb", lookSystem)
	for i, to := range everyDirection {
		l.rehearsed()
		before := take(t, b)
		move(t, b, "deb", to)
		ready()
		notCopied(t, b, to, before, booted)
		l.same(to)
		if got := strings.Count(b.Run("exec", "deb", "cat", "/root/ends"), "orderly"); got != i+1 {
			t.Errorf("at %s it has ended %d times in order; want %d", to, got, i+1)
		}
	}
	b.Run("rm", "-f", "deb")
}
