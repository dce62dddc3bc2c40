#!/bin/sh
# Installs strata's agent, which is beside this file, into this Linux system.
set -e
here=${1:-$(dirname "$0")}
place=/usr/local/lib/strata
[ "$(id -u)" = 0 ] || { echo "this takes root" >&2; exit 1; }
mkdir -p "$place"
if [ "$here" != "$place" ]; then rm -f "$place/agent.new"; cp "$here/agent" "$place/agent.new"; fi
chmod 755 "$place/agent.new"
mv "$place/agent.new" "$place/strata-vmagent"
modprobe virtio_console 2>/dev/null || true
if [ -d /run/systemd/system ]; then
	cat >/etc/systemd/system/strata-agent.service <<UNIT
[Unit]
Description=strata's agent
Documentation=https://github.com/strata-project/strata

[Service]
ExecStart=$place/strata-vmagent installed
Restart=always
RestartSec=5
KillMode=process
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
UNIT
	systemctl daemon-reload
	systemctl enable strata-agent.service
	systemctl restart strata-agent.service
	echo "it is a service of systemd: strata-agent.service"
else
	for p in /proc/[0-9]*; do
		if [ "$(readlink "$p/exe" 2>/dev/null)" = "$place/strata-vmagent" ] || [ "$(readlink "$p/exe" 2>/dev/null)" = "$place/strata-vmagent (deleted)" ]; then
			kill "${p#/proc/}" 2>/dev/null || true
		fi
	done
	setsid "$place/strata-vmagent" installed </dev/null >/dev/null 2>&1 &
	echo "no systemd is here: it runs until this system ends; have its init start: $place/strata-vmagent installed"
fi
