"""What a history says."""

from __future__ import annotations

from enum import StrEnum


class FaultKind(StrEnum):
    """What can be done to a fleet: a closed list."""

    WORKER_KILLED = "worker_killed"
    NODE_KILLED = "node_killed"
    WORKER_PAUSED = "worker_paused"
    NODE_PAUSED = "node_paused"
    RUNNER_KILLED = "runner_killed"
    LEADER_KILLED = "leader_killed"
    MANAGER_PAUSED = "manager_paused"
    API_KILLED = "api_killed"
    CUT_ZOOKEEPER = "cut_zookeeper"
    CUT_MYSQL = "cut_mysql"
    CUT_ALL = "cut_all"
    CUT_REPLIES = "cut_replies"
    PARTITION = "partition"
    LATENCY = "latency"
    ZOOKEEPER_MEMBER_DOWN = "zookeeper_member_down"
    ZOOKEEPER_QUORUM_LOST = "zookeeper_quorum_lost"
    ZOOKEEPER_WIPED = "zookeeper_wiped"
    MYSQL_DOWN = "mysql_down"
    GALERA_MEMBER_DOWN = "galera_member_down"
    GALERA_NO_PRIMARY = "galera_no_primary"
    S3_DOWN = "s3_down"
    CLOCK_STEPPED = "clock_stepped"
    CLOCK_SKEWED = "clock_skewed"
    DISK_FULL = "disk_full"
    INODES_FULL = "inodes_full"
    CRON_DEAD = "cron_dead"
    CRON_PAUSED = "cron_paused"
    SLOW_DISK = "slow_disk"
    EVERYTHING_KILLED = "everything_killed"
