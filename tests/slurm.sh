#!/usr/bin/env bash
# A SLURM of one node on this machine, for tests/test_slurm.py; as root, on Debian:
#   apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
#   bash tests/slurm.sh && pytest -m slow tests/test_slurm.py && bash tests/slurm.sh stop
set -euo pipefail
state=/var/spool/slurm-here
if [ "${1:-start}" = stop ]; then
    scontrol shutdown
    kill "$(cat /run/munge/munged.pid)"
    exit
fi
host=$(hostname -s)
mkdir -p /run/munge "$state/controller" "$state/node" /etc/slurm
[ -f /etc/munge/munge.key ] || mungekey
chown munge: /etc/munge/munge.key /run/munge
munge -n > /dev/null 2>&1 || runuser -u munge -- munged
cat > /etc/slurm/slurm.conf <<CONF
ClusterName=here
SlurmctldHost=$host
AuthType=auth/munge
SlurmUser=root
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/node
SlurmctldLogFile=$state/controller.log
SlurmdLogFile=$state/node.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
$(slurmd -C | head -1) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
slurmctld
slurmd
for _ in $(seq 30); do
    if sinfo --noheader --states=idle --format=%D | grep -q 1; then exit; fi
    sleep 1
done
echo "no idle node: see $state/*.log" >&2
exit 1
