"""Print a table of audits in run folders, and one of the costs of their checks.

unperturbed audit runs/at; unperturbed audit runs/fgsm; python studies/audited_networks.py runs/at runs/fgsm
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any


def row(name: str, audit: dict[str, Any]) -> str:
    """Return a table row: accuracies, verdict, failed checks with what they measured, and processor seconds."""
    accuracies = (f"{audit[key]['value']:.1%}" for key in ("clean", "claimed", "headline"))
    causes = f": {', '.join(audit['causes'])}" if audit["causes"] else ""
    evidence = "; ".join(f"{c['name']}: {c['measured']}" for c in audit["checks"] if c["verdict"] == "fail")
    skipped = ", ".join(check["name"] for check in audit["checks"] if check["reason"] in ("budget", "error"))
    cells = (*accuracies, audit["verdict"] + causes, evidence or "all checks pass", skipped, f"{audit['seconds']:.0f}")
    return f"| {name} | " + " | ".join(cells) + " |"


def main(folders: list[str]) -> None:
    """Print both tables."""
    audits = {Path(folder).name: json.loads((Path(folder) / "audit.json").read_text()) for folder in folders}
    print("| network | clean | suite | headline | verdict | evidence | not run | seconds |\n" + "|---" * 8 + "|")
    for name, audit in audits.items():
        print(row(name, audit))
    costs = dict[str, list[float]]()
    for audit in audits.values():
        for name, seconds in audit["costs"].items():
            costs.setdefault(name, []).append(seconds)
        for check in audit["checks"]:
            costs.setdefault(f"`{check['name']}`", []).append(check["seconds"])
    print("\n| part | median seconds | most |\n|---|---|---|")
    for name, seconds in sorted(costs.items(), key=lambda item: -median(item[1])):
        print(f"| {name} | {median(seconds):.1f} | {max(seconds):.1f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
