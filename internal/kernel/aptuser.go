package kernel

import (
	"os"
	"os/user"
	"strconv"
)

// aptUser is who apt downloads as. Source: apt.conf(5), APT::Sandbox::User.
const aptUser = "_apt"

// giveToApt lets apt's own user write to a folder, so that it need not download
// as root. Where there is no such user, it downloads as root.
func giveToApt(dir string) error {
	u, err := user.Lookup(aptUser)
	if err != nil || os.Geteuid() != 0 {
		return nil
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil
	}
	return os.Chown(dir, uid, -1)
}
