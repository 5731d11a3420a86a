"""What the API adds to a job's JSON. In a module of its own, so that the command line loads nothing else for it."""

#: Fields that the server sets: refused with a hint when they are sent, left out of files that are sent back.
SERVER_FIELDS = frozenset(
    {
        "id",
        "generation",
        "status",
        "status_reason",
        "created_at",
        "updated_at",
        "next_fire",
        "last_run",
        "workers",
        "artifact",
        "holiday_dates",
        "named_dates",
        "sealed",
        "secret_versions",
        "spread",
    }
)
