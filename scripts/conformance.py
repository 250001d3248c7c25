"""Hold every bundled storage driver against its definition on each file system, and write down
what came of it.

    scripts/conformance.py [DRIVER…] [--on ext4,xfs,btrfs] [--examples N]

Each run is ``stowage conform storage``; its outcome goes to ``docs/conformance/``, a summary and a
badge for each driver and file system. ``docs/conformance.md`` is made of all summaries, old ones
included, by ``scripts/reference.py``, which this calls in the end. Needs root.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from stowage.registry import Registry
from stowage.testing.conform import Report, find_properties
from stowage.testing.conform.badge import badge
from stowage.testing.conform.page import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "conformance"
BACKINGS = ("ext4", "xfs", "btrfs")
#: Whose drivers are held by default; the template and the broken ones are not.
OWNERS = ("stowage ", "stowage-btrfs ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("drivers", nargs="*")
    parser.add_argument("--on", default=",".join(BACKINGS))
    parser.add_argument("--examples")
    asked = parser.parse_args()
    failed = []
    for driver in asked.drivers or bundled():
        for backing in asked.on.split(","):
            report = run(driver, backing, asked.examples)
            if report is None or not report.passed:
                failed.append(f"{driver} on {backing}")
    subprocess.run([sys.executable, ROOT / "scripts" / "reference.py"], check=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def bundled() -> list[str]:
    """Return the storage drivers that come from us, by their own names."""
    registry = Registry()
    ours = [one for one in registry.plugins("storage") if one.owner.startswith(OWNERS)]
    return sorted({registry.canonical_name("storage", one.name) for one in ours})


def run(driver: str, backing: str, examples: str | None) -> Report | None:
    """Run one driver on one file system and keep the outcome."""
    command = [sys.executable, "-m", "stowage", "conform", "storage", driver]
    command += ["--on", backing, "--format", "json"]
    command += ["--examples", examples] if examples else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        print(f"{driver} on {backing}: {done.stderr.strip()}", file=sys.stderr)
        return None
    report = Report.from_json(done.stdout)
    print(f"{driver} on {backing}: {report.summary}", flush=True)
    for outcome in report.outcomes:
        if outcome.status == "failed":
            print(f"  {outcome.name} {outcome.text}\n    {outcome.message}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    stem = f"{driver}-{backing}"
    (RESULTS / f"{stem}.json").write_text(json.dumps(summary(report, backing), indent=1) + "\n")
    (RESULTS / f"{stem}.svg").write_text(badge(report))
    return report


def summary(report: Report, backing: str) -> dict[str, Any]:
    """What the table needs of a report; times and texts are left out."""
    return {
        "driver": report.driver,
        "backing": backing,
        "kernel": report.kernel,
        "version": report.version,
        "seed": report.seed,
        "examples": report.examples,
        "capabilities": report.capabilities,
        "outcomes": {
            outcome.name: f"skipped: {outcome.reason}"
            if outcome.status == "skipped"
            else outcome.status
            for outcome in report.outcomes
        },
    }


# --- the page --------------------------------------------------------------------------------


def page() -> str:
    """Return docs/conformance.md, made of the summaries."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    drivers = sorted({result["driver"] for result in results})
    parts = ["# Conformance", _preface(results)]
    for family in dict.fromkeys(one.family for one in find_properties()):
        rows = [
            [one.name, one.text, *(_cell(one.name, driver, results) for driver in drivers)]
            for one in find_properties()
            if one.family == family
        ]
        heading = FAMILIES.get(family, family.capitalize())
        parts += [f"## {heading}", _table(["", "What must hold", *drivers], rows)]
    return "\n\n".join(parts)


def _preface(results: list[dict[str, Any]]) -> str:
    kernels = sorted({result["kernel"] for result in results})
    runs = [
        f"- {result['driver']} on {result['backing']}:"
        f" ![{result['driver']} on {result['backing']}]"
        f"(conformance/{result['driver']}-{result['backing']}.svg)"
        for result in results
    ]
    return "\n".join(
        [
            "Every property of the conformance kit, and what came of it for each bundled driver.",
            "`stowage conform storage NAME` says the same on your machine, of any driver;",
            "`make conform` runs all of them and writes this page.",
            "",
            f"Linux {', '.join(kernels) or 'none yet'}. ✓ held; ✗ failed; n/a: it does not apply,"
            " by the capability that is (not) declared. In brackets, on which file systems.",
            "",
            *runs,
        ]
    )


def _cell(name: str, driver: str, results: list[dict[str, Any]]) -> str:
    said: dict[str, list[str]] = {}
    for result in results:
        if result["driver"] == driver:
            status = result["outcomes"].get(name, "not run")
            said.setdefault(_mark(status), []).append(result["backing"])
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{mark} ({', '.join(where)})" for mark, where in said.items())


def _mark(status: str) -> str:
    if status.startswith("skipped: "):
        reason = status.removeprefix("skipped: ").removeprefix("capability ")
        return f"n/a: {reason}"
    return {"held": "✓", "failed": "✗"}.get(status, status)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


if __name__ == "__main__":
    sys.exit(main())
