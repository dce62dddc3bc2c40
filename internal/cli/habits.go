package cli

import "github.com/spf13/cobra"

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
