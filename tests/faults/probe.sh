#!/bin/sh
# What jobs of a trial run: it writes down its own start and end, so that the truth does not depend on the scheduler.
#
#   probe.sh FOLDER NAME SLEEP_S EXIT_STATUS
#
# One line of JSON for each edge, on disk before it goes on, in FOLDER/<node>.jsonl; the node is the host's name.
folder=$1 name=$2 sleep_s=$3 status=$4
node=$(cat /proc/sys/kernel/hostname)
file=$folder/$node.jsonl
read -r token </proc/sys/kernel/random/uuid

line() {
    read -r boot _ </proc/uptime
    echo "{\"edge\":\"$1\",$2\"token\":\"$token\",\"wall_s\":$(date +%s.%N),\"boot_s\":$boot$3}" >>"$file"
    sync -d "$file"
}

line start "\"name\":\"$name\",\"job\":\"$CRONKEEPER_JOB_ID\",\"run\":\"$CRONKEEPER_RUN_ID\",\"fire_time\":\"$CRONKEEPER_FIRE_TIME\",\
\"attempt\":\"$CRONKEEPER_ATTEMPT\",\"shard\":\"$CRONKEEPER_SHARD\",\"worker\":\"$CRONKEEPER_WORKER\",\"fence\":\"$CRONKEEPER_FENCE\",\
\"node\":\"$node\",\"pid\":\"$$\"," ""
[ "$sleep_s" = 0 ] || sleep "$sleep_s"
line end "" ",\"exit\":$status"
exit "$status"
