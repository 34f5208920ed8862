"""Runs of one protocol side by side, and published numbers beside them. What cannot be compared is not."""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from movies.errors import InputError
from movies.evaluate.report import Report, arrowed, read_report, table, text

PUBLISHED = Path(__file__).parent / "published.toml"


def compare_reports(paths: Sequence[str | Path]) -> str:
    """A Markdown table, a row for each report. Raises InputError naming the first difference in protocol or scenes."""
    if not paths:
        raise InputError("give the report.json files to compare")
    reports = [read_report(path) for path in paths]
    for path, report in zip(paths[1:], reports[1:], strict=True):
        difference = find_difference(reports[0], report)
        if difference:
            raise InputError(f"{paths[0]} and {path} cannot be compared: {difference}")
    return comparison_table(reports)


def find_difference(first: Report, second: Report) -> str:
    """Why two reports must not stand in one table; "" where nothing speaks against it."""
    a, b = first.protocol, second.protocol
    for key in ("id", "version"):
        if a[key] != b[key]:
            return f"protocol {key} {a[key]} against {b[key]}"
    for key, one, other in differing("", a["choices"], b["choices"]):
        return f"protocol {a['id']} with {key} = {one} against {other}"
    if a["digest"] != b["digest"]:
        return f"digests {a['digest']} and {b['digest']} of protocol {a['id']} differ"
    if "lpips" in a and "lpips" in b and a["lpips"] != b["lpips"]:
        return "LPIPS by different weights"
    apart = sorted(set(first.scenes) ^ set(second.scenes))
    if apart:
        return f"only one of them scored {', '.join(apart[:5])}{' ...' if len(apart) > 5 else ''}"
    return ""


def differing(prefix: str, a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Keys of nested tables whose values differ, with these."""
    for key in sorted(a.keys() | b.keys()):
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differing(f"{prefix}{key}.", one, other)
        elif one != other:
            yield f"{prefix}{key}", one, other


def comparison_table(reports: list[Report]) -> str:
    """A column for each report, then what others have published; below, why that may or may not be compared."""
    names = sorted({name for report in reports for name in report.mean})
    protocol, entries = reports[0].protocol, published(reports[0].protocol["id"])
    head = [f"{protocol['id']} v{protocol['version']}", *(f"{report.method['name']}" for report in reports)]
    head += [f"({k}) {entry['method']}" for k, entry in enumerate(entries, 1)]
    rows = [["scenes", *(_scope(report) for report in reports), *("" for _ in entries)]]
    for name in names:
        cells = [report.mean.get(name) for report in reports] + [entry["metrics"].get(name) for entry in entries]
        rows.append([arrowed(name), *(text(cell) for cell in cells)])
    return "\n".join([table(head, rows), *_remarks(reports, entries)])


def _scope(report: Report) -> str:
    return f"{len(report.scenes)}" + (f", {len(report.failed)} FAILED" if report.failed else "")


def _remarks(reports: list[Report], entries: list[dict[str, Any]]) -> list[str]:
    lines = []
    for k, entry in enumerate(entries, 1):
        verdict = "comparable" if entry["comparable"] else "NOT comparable"
        lines.append(f"({k}) {verdict}: {entry['why']} [{entry['source']}]")
    codes = sorted({report.code["sha256"] for report in reports})
    if len(codes) > 1:
        lines.append(f"measured by different versions of the code: {', '.join(codes)}")
    return ["", *lines] if lines else []


def published(protocol: str) -> list[dict[str, Any]]:
    """What others have printed for this protocol's task and data: method, source, metrics, comparable, why."""
    entries = tomllib.loads(PUBLISHED.read_text())["result"]
    return [entry for entry in entries if entry["protocol"] == protocol]
