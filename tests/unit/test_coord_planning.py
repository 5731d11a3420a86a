"""The coordinator's pure parts: names of znodes, and the planning of many writes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronkeeper.coord import paths
from cronkeeper.coord.assignments import plan_moves
from cronkeeper.coord.requests import MAX_MULTI_BYTES, MAX_OPS, Check, Create, Delete, Put, Write, batches, plan_writes
from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.errors import WireFormatError

task_ids = st.builds(TaskId, st.integers(1, 10**17), st.integers(0, 9999))
run_keys = st.builds(RunKey, task_ids, st.integers(0, 10**14), st.integers(1, 9999))
znodes = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(run_keys)
def test_a_claims_name_leads_back_to_its_key(key: RunKey) -> None:
    path = paths.claim(key)
    assert paths.claim_key(paths.name(path)) == key
    assert paths.parent(path) == f"/claims/{key.task.bucket}"


def test_a_first_claim_is_named_by_task_and_fire_time() -> None:
    key = RunKey(TaskId(17, 2), 1_700_000_000_000, 1)
    assert paths.name(paths.claim(key)) == "17.2@1700000000000"
    assert paths.name(paths.claim(RunKey(key.task, key.fire_ms, 3))) == "17.2@1700000000000-3"


@given(run_keys)
def test_a_queued_runs_name_is_its_id(key: RunKey) -> None:
    assert RunKey.parse(paths.name(paths.queued(key))) == key


@pytest.mark.parametrize("name", ["", "x", "1.0", "1.0@", "1.0@5-0", "1.0@5-", "0.0@5", "1.0@5-1x", "../x@5"])
def test_other_names_are_no_claims(name: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        paths.claim_key(name)


@pytest.mark.parametrize("worker", ["", "..", "a/b", "/", "-x", "a b", "ä"])
def test_no_path_is_made_of_what_is_no_worker(worker: str) -> None:
    for path in (paths.worker, paths.node, paths.assigned_folder, paths.owned_folder):
        with pytest.raises(ValueError, match="not a worker id"):
            path(worker)


def test_candidates_are_ordered_by_the_servers_number() -> None:
    token = "0123456789abcdef" * 2
    name = paths.name(paths.candidate_prefix(token)) + "0000000042"
    assert paths.candidate_token(name) == token
    assert paths.candidate_order(name) == 42
    with pytest.raises(ValueError, match="not a candidate"):
        paths.candidate_order("42")


def apply(tree: dict[str, bytes], writes: list[Write]) -> dict[str, bytes]:
    """Do the writes as a server would, failing where it would."""
    tree = dict(tree)
    for write in writes:
        if isinstance(write, Create):
            assert write.path not in tree
            assert paths.parent(write.path) in tree, f"{write.path} before its folder"
            tree[write.path] = write.data
        elif isinstance(write, Put):
            assert write.path in tree
            tree[write.path] = write.data
        else:
            assert not any(path.startswith(write.path + "/") for path in tree), f"{write.path} is not empty"
            del tree[write.path]
    return tree


def with_folders(items: set[str]) -> dict[str, bytes]:
    return dict.fromkeys({"/"} | items | {above for path in items for above in paths.ancestors(path)}, b"old")


@given(st.sets(znodes), st.dictionaries(znodes, st.binary(max_size=3)))
def test_upserts_reach_the_wanted_tree_from_any_tree(existing: set[str], upserts: dict[str, bytes]) -> None:
    # What is wanted is never also the folder of something else that is wanted.
    upserts = {path: data for path, data in upserts.items() if not any(o.startswith(path + "/") for o in upserts)}
    tree = with_folders(existing)
    after = apply(tree, plan_writes(upserts, (), set(tree)))
    assert {path: after[path] for path in upserts} == upserts
    assert {path: data for path, data in after.items() if path in tree and path not in upserts} == {
        path: data for path, data in tree.items() if path not in upserts
    }
    again = plan_writes(upserts, (), set(after))
    assert all(isinstance(write, Put) for write in again)


@given(st.sets(znodes))
def test_deletes_empty_folders_before_they_remove_them(existing: set[str]) -> None:
    tree = with_folders(existing)
    doomed = [path for path in tree if path.startswith("/a")]
    after = apply(tree, plan_writes({}, [*doomed, "/z/not/there"], set(tree)))
    assert set(after) == set(tree) - set(doomed)


@given(st.lists(st.integers(0, 60_000), max_size=300), st.sampled_from([None, "/leader/x"]))
def test_batches_keep_order_and_bounds_and_check_their_guard(sizes: list[int], guard: str | None) -> None:
    writes: list[Write] = [Create(f"/tasks/{n}", b"x" * size) for n, size in enumerate(sizes)]
    multis = batches(writes, guard)
    head = [] if guard is None else [Check(guard)]
    assert [op for multi in multis for op in multi.ops if op not in head] == writes
    for multi in multis:
        assert 1 <= len(multi.ops) <= MAX_OPS
        assert list(multi.ops[: len(head)]) == head
        assert sum(len(op.data) for op in multi.ops if isinstance(op, Create)) <= MAX_MULTI_BYTES
    assert (len(multis) == 0) == (not writes and guard is None)


def test_too_large_a_payload_is_refused() -> None:
    with pytest.raises(WireFormatError, match="/tasks/1"):
        batches([Delete("/x"), Create("/tasks/1", b"x" * 262_145)], None)


workers = st.sampled_from(["w1", "w2"])
few_tasks = st.builds(TaskId, st.integers(1, 8), st.just(0))
slots = st.builds(paths.assigned, workers, few_tasks)


def listing(tree: dict[str, bytes], wanted: list[str]) -> dict[str, tuple[str, ...] | None]:
    def names(folder: str) -> tuple[str, ...] | None:
        return tuple(paths.name(p) for p in tree if paths.parent(p) == folder) if folder in tree else None

    buckets = {paths.parent(path) for path in wanted}
    return {folder: names(folder) for folder in buckets | {paths.parent(bucket) for bucket in buckets}}


def promises(tree: dict[str, bytes]) -> dict[str, tuple[int, int]]:
    """Return for each folder and bucket how many names it promises and how many it has."""
    folders = [path for path in tree if path.startswith("/assign/") and paths.depth(path) < 4]
    have = {folder: sum(paths.parent(path) == folder for path in tree) for folder in folders}
    return {folder: (json.loads(tree[folder])["count"], have[folder]) for folder in folders}


@given(st.lists(st.tuples(st.sets(slots), st.sets(slots)), min_size=1, max_size=5))
def test_moves_leave_counts_that_are_true_and_that_are_never_too_high(steps: list[tuple[set[str], set[str]]]) -> None:
    tree = {"/": b"", "/assign": b""}
    expected: set[str] = set()
    for assign, revoke in steps:
        upserts, deletes = dict.fromkeys(sorted(assign), b"a"), sorted(revoke - assign)
        writes = plan_moves(upserts, deletes, listing(tree, [*upserts, *deletes]))
        for length in range(len(writes) + 1):
            for folder, (promised, there) in promises(apply(tree, writes[:length])).items():
                assert promised <= there, f"{folder} after {length} of {writes}"
        tree = apply(tree, writes)
        expected = (expected | assign) - (revoke - assign)
        assert {path for path in tree if paths.depth(path) == 4} == expected
        assert all(promised == there for promised, there in promises(tree).values())
        again = plan_moves(upserts, deletes, listing(tree, [*upserts, *deletes]))
        assert apply(tree, again) == tree


def test_a_count_is_mended_by_the_next_move_in_its_bucket() -> None:
    path = paths.assigned("w1", TaskId(1, 0))
    bucket = paths.parent(path)
    tree = {"/": b"", "/assign": b"", "/assign/w1": b'{"count":1,"v":1}', bucket: b'{"count":1,"v":1}'}
    after = apply(tree, plan_moves({path: b"a"}, [], listing(tree, [path])))
    assert promises(after)[bucket] == (1, 1)
