"""Writes what the campaign of faults has tried into docs/reliability.md: make soak, then python docs/reliability.py.

The tests of tests/reliability note each case in build/reliability.jsonl (tests/conftest.py); of a case that was run
more than once the last run counts. A fault without a case is shown as not run.
"""

import json
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "reliability.md"
CASES = REPOSITORY / "build" / "reliability.jsonl"
MARK = "<!-- cases: by docs/reliability.py -->\n"
END = "<!-- end of the cases -->\n"
FOLDER = "tests/reliability"
FAULTS = {  # what is done; the test
    "kill -9 at moments of a run": (
        "once within each node at a random moment and once after it; each next run resumes and is killed later",
        f"{FOLDER}/test_ended_runs.py",
    ),
    "kill -9 between two effects of a push": (
        "before each change that the Pusher makes to the disk or to the metadata store",
        f"{FOLDER}/test_ended_runs.py",
    ),
    "SIGINT at moments of a run": ("within each node at a random moment", f"{FOLDER}/test_ended_runs.py"),
    "SIGTERM at moments of a run": ("within each node at a random moment", f"{FOLDER}/test_ended_runs.py"),
    "SIGHUP at moments of a run": ("within each node at a random moment", f"{FOLDER}/test_ended_runs.py"),
    "disk full in each node": ("a tmpfs that is full when the node starts", f"{FOLDER}/test_full_disk.py"),
    "artifacts and caches deleted between runs": (
        "outputs of each node, their files alone, metadata store, caches, push folder",
        f"{FOLDER}/test_deleted_files.py",
    ),
    "mutated settings files": (
        "one to four random changes of a valid file each",
        "tests/modules/settings/test_yaml_data.py",
    ),
    "bad data": ("faults of files, bytes, rows, columns, values and formats", f"{FOLDER}/test_bad_data.py"),
}


def read_cases() -> list[dict]:
    """Returns the last run of each case: test, fault, tried, ok, and why it is known to fail."""
    lines = CASES.read_text(encoding="utf-8").splitlines() if CASES.exists() else []
    return list({case["test"]: case for case in map(json.loads, lines)}.values())


def table(cases: list[dict]) -> str:
    """Returns the table of the faults, and the list of the cases that are not ok."""
    lines = ["| fault | what is done | tried | ok | test |", "|---|---|---|---|---|"]
    unknown = {case["fault"] for case in cases} - set(FAULTS)
    if unknown:
        raise ValueError(f"FAULTS: found no entry for {sorted(unknown)}; add one")
    for fault, (what, test) in FAULTS.items():
        own = [case for case in cases if case["fault"] == fault]
        tried, ok = (sum(case[key] for case in own) for key in ("tried", "ok"))
        counts = f"{tried:,} | {ok:,}" if own else "not run | "
        lines.append(f"| {fault} | {what} | {counts} | [{Path(test).name}](../{test}) |")
    failed = [case for case in cases if not case["ok"]]
    if failed:
        lines += ["", "Not ok:", ""]
        lines += [f"- `{case['test'].partition('::')[2]}`: {case['known'] or 'failed'}" for case in failed]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + MARK + table(read_cases()) + END + after, encoding="utf-8")
