"""What ``replay-run`` does: read, simulate, judge, write, print."""

from __future__ import annotations

import json
from pathlib import Path

from simulator.replay.published_run import read_published_run
from simulator.replay.replay import Replay, replay
from traces.files import whole_folder, write_json
from traces.run_record import FILES

DOCUMENT, REPORT, RECORD = "replay.json", "report.html", "run"


def replay_run(
    folder: Path,
    output: Path,
    *,
    profile: Path | None,
    device: str | None,
    model: str | None,
    strict: bool = False,
    as_json: bool = False,
) -> Replay:
    """Replay the published run ``folder``; write record, figures and report to ``output``, and print the errors.

    Raises
    ------
    InputError
        If anything asked for is wrong; nothing is written then.
    """
    from simulator.replay.report import write_report
    from simulator.replay.table import print_replay
    from traces.command_line import new_console

    published = read_published_run(folder)
    with whole_folder(output, marker=DOCUMENT, is_ours=_is_ours) as target:
        result = replay(published, target / RECORD, profile=profile, device=device, model=model, strict=strict)
        write_json(target / DOCUMENT, result.as_dict())
        write_report(target / REPORT, result)
    if as_json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        print_replay(result, new_console())
        print(f"Report: {output / REPORT}")
    return result


def _is_ours(entry: Path) -> bool:
    if entry.name == RECORD and entry.is_dir():
        return {path.name for path in entry.iterdir()} <= set(FILES)
    return entry.name in (DOCUMENT, REPORT)
