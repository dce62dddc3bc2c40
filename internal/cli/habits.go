package cli

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/strata-project/strata/internal/fault"
)

// habits are what docker's users type; they are not listed in the help.
func (a *app) habits() []*cobra.Command {
	as := func(use string, c *cobra.Command) *cobra.Command {
		c.Use, c.Hidden, c.Aliases = use, true, nil
		return c
	}
	return []*cobra.Command{
		as("images", a.templateLsCommand()),
		as("pull REF", a.templatePullCommand()),
		as("push TEMPLATE [TARGET]", a.templatePushCommand()),
		as("rmi TEMPLATE...", a.templateRmCommand()),
		as("tag TEMPLATE NAME", a.templateTagCommand()),
		as("unpause NAME...", a.resumeCommand()),
	}
}

// elsewhere are commands of docker, incus, virsh and systemctl whose arguments or results
// are not those of a command here, and what to use for each instead.
var elsewhere = map[string]string{
	"attach-disk":      "`strata disk attach`",
	"attach-interface": "`strata card attach`",
	"autostart":        "`strata set NAME restart=always`",
	"build":            "`strata template build`",
	"change-media":     "`strata insert` and `strata eject`",
	"compose":          "`strata apply`",
	"config":           "`strata set` to change, and `strata show` to see",
	"container":        "said without that word, such as `strata ls`",
	"copy":             "`strata clone` for an environment, and `strata cp` for files",
	"define":           "`strata apply`",
	"delete":           "`strata rm`",
	"destroy":          "`strata kill`",
	"detach-disk":      "`strata disk detach`",
	"detach-interface": "`strata card detach`",
	"disable":          "`strata set NAME restart=no`",
	"domifaddr":        "`strata show`",
	"dominfo":          "`strata show`",
	"domrename":        "`strata rename`",
	"domstats":         "`strata stats`",
	"dumpxml":          "`strata export-config`",
	"edit":             "`strata set`, or `strata apply` with a file",
	"enable":           "`strata set NAME restart=always`",
	"export":           "`strata cp NAME:/ -` for an environment's files, and `strata template export` for a template",
	"file":             "`strata cp`",
	"history":          "`strata template show`",
	"image":            "`strata template`",
	"import":           "`strata template import`",
	"init":             "`strata create`",
	"inject-nmi":       "`strata nmi`",
	"launch":           "`strata run -d`",
	"list-units":       "`strata ls`",
	"load":             "`strata template import`",
	"login":            "`docker login`, whose credentials strata uses, for a registry, and `strata console -it` for a system",
	"managedsave":      "`strata suspend`",
	"migrate":          "`strata move` to another stratum; to another host there is none yet",
	"monitor":          "`strata events`",
	"nodeinfo":         "`strata host capacity`",
	"port":             "`strata show`",
	"poweroff":         "`strata stop`",
	"profile":          "`strata apply` with a file",
	"prune":            "`strata template prune`",
	"publish":          "`strata commit`",
	"reboot":           "`strata restart`",
	"restore":          "`strata resume`",
	"save":             "`strata template export` for a template, and `strata suspend` for what runs",
	"screenshot":       "`strata screen`",
	"send-key":         "`strata key`",
	"setmem":           "`strata set NAME memory=SIZE`",
	"setvcpus":         "`strata set NAME cpus=NUMBER`",
	"shell":            "`strata exec -it NAME sh`",
	"shutdown":         "`strata stop`",
	"status":           "`strata show`",
	"terminate":        "`strata kill`",
	"undefine":         "`strata rm`",
	"update":           "`strata set`",
	"vncdisplay":       "`strata vnc`",
	"volume":           "a folder of the host: `strata run -v`",
}

// flagsElsewhere are flags by which others make environments, and what to use for each.
var flagsElsewhere = map[string]string{
	"blkio-weight":       "--io-weight",
	"cdrom":              "--iso",
	"cpu-quota":          "--cpus, in processors",
	"cpu-shares":         "--cpu-weight, of which 100 is the usual one",
	"device-read-bps":    "--io-read",
	"device-read-iops":   "--io-read-ops",
	"device-write-bps":   "--io-write",
	"device-write-iops":  "--io-write-ops",
	"graphics":           "--console graphical",
	"init":               "not needed: strata's agent is process 1, and waits for orphans",
	"memory-reservation": "--memory-guarantee, which is kept",
	"memory-swap":        "--swap, which is beside --memory and not the sum of both",
	"mount":              "--volume for a folder of the host, and --tmpfs",
	"net":                "--network",
	"os-variant":         "--os",
	"pids-limit":         "--pids",
	"platform":           "`strata template pull --platform`, ahead of it",
	"ram":                "--memory",
	"storage-opt":        "--disk",
	"vcpus":              "--cpus",
}

// unknownFlag says that a command has no such flag, and what may have been meant.
func unknownFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && cmd.Flags().Lookup("network") != nil { // it makes an environment
		if here, ok := flagsElsewhere[unknown.GetSpecifiedName()]; ok {
			return fault.Invalidf("unknown flag: --%s", unknown.GetSpecifiedName()).Help("what others call so is %s", here)
		}
	}
	return usage(cmd, err)
}
