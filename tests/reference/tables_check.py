"""Recomputes the tables that `vgg experiment` wrote from the posteriors files and run directories in the same folder.

    vgg experiment table3 --profile smoke --out DIR
    python3 tables_check.py DIR

Needs numpy, scipy and safetensors; does not use vgg. For every DIR/*.json that is a table with runs, computes

- from the posteriors files: the mean over the networks of a row, top-1 and top-5 errors (a label that ties with other
  classes ranks after them), Wilson intervals by scipy, and the numbers of evaluated and skipped images;
- from run.json, result.json and metrics.jsonl of each network: S, Q, protocol, seed, epochs and weights;
- from the paper: the paper's columns;

and compares them with the JSON file and with each cell of the CSV and Markdown files. Prints the number of comparisons
and the differences, and exits with 1 if there are any.
"""

import csv
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from scipy.stats import binomtest

JITTER, THREE = [256, 512], [256, 384, 512]
LOW, HIGH = [224, 256, 288], [352, 384, 416]

# S, Q, top-1 error, top-5 error and test-set top-5 error in %, in the order of the paper's rows.
PAPER = {
    "table3": [
        ([256], [256], 29.6, 10.4), ([256], [256], 29.7, 10.5), ([256], [256], 28.7, 9.9),
        ([256], [256], 28.1, 9.4), ([384], [384], 28.1, 9.3), (JITTER, [384], 27.3, 8.8),
        ([256], [256], 27.0, 8.8), ([384], [384], 26.8, 8.7), (JITTER, [384], 25.6, 8.1),
        ([256], [256], 27.3, 9.0), ([384], [384], 26.9, 8.7), (JITTER, [384], 25.5, 8.0),
    ],
    "table4": [
        ([256], LOW, 28.2, 9.6),
        ([256], LOW, 27.7, 9.2), ([384], HIGH, 27.8, 9.2), (JITTER, THREE, 26.3, 8.2),
        ([256], LOW, 26.6, 8.6), ([384], HIGH, 26.5, 8.6), (JITTER, THREE, 24.8, 7.5),
        ([256], LOW, 26.9, 8.7), ([384], HIGH, 26.7, 8.6), (JITTER, THREE, 24.8, 7.5),
    ],
    "table5": [(JITTER, THREE, *errors) for errors in
               [(24.8, 7.5), (24.6, 7.5), (24.4, 7.2), (24.8, 7.5), (24.6, 7.4), (24.4, 7.1)]],
    "table6": [([], [], 24.7, 7.5, 7.3), (JITTER, THREE, 24.0, 7.1, 7.0),
               (JITTER, THREE, 23.9, 7.2), (JITTER, THREE, 23.7, 6.8, 6.8)],
    "table7": [
        (JITTER, THREE, 23.7, 6.8, 6.8), (JITTER, THREE, 24.4, 7.1, 7.0), ([], [], 24.7, 7.5, 7.3),
        ([], [], None, 7.9, 7.9), ([], [], None, 6.7, 6.7), ([], [], None, None, 8.1), ([], [], 27.9, 9.1, 9.1),
        ([], [], None, None, 11.7), ([], [], None, None, 12.5), ([], [], 36.0, 14.7, 14.8), ([], [], 37.5, 16.0, 16.1),
        ([], [], 34.0, 13.2, 13.6), ([], [], 35.7, 14.2), ([], [], 38.1, 16.4, 16.4), ([], [], 40.7, 18.2),
        ([], [], None, None, 11.2),
    ],
}


class Check:
    """Counts the comparisons and collects the differences."""

    def __init__(self):
        self.compared, self.faults = 0, []

    def equal(self, what, ours, expected, tolerance=0.0):
        self.compared += 1
        if isinstance(ours, float) and isinstance(expected, float):
            same = abs(ours - expected) <= tolerance
        else:
            same = ours == expected
        if not same:
            self.faults.append(f"{what}: the file has {ours!r}, recomputed {expected!r}")


def posteriors(path):
    with safe_open(path, "numpy") as file:
        metadata = {key: json.loads(text) for key, text in file.metadata().items()}
        return file.get_tensor("posteriors"), file.get_tensor("labels"), metadata


def wrong(scores, labels, k):
    """The number of top-k errors; a label ranks after other classes of equal score."""
    is_label = np.arange(scores.shape[1])[None, :] == labels[:, None]
    order = np.lexsort((is_label, -scores), axis=1)
    return int(np.sum(~np.any(order[:, :k] == labels[:, None], axis=1)))


def distinct(values):
    return list(dict.fromkeys(values))


def check_row(check, where, row, folder):
    files, epochs, seeds, missing = [], [], [], False
    for member in row["members"]:
        here = f"{where}, {member['name']}"
        if not member["run"]:
            missing = True
            continue
        run = folder / member["run"]
        values, labels, metadata = posteriors(folder / member["posteriors"])
        files.append((values, labels, metadata))
        plan = json.loads((run / "run.json").read_text())["settings"]
        result = json.loads((run / "result.json").read_text())
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        side = plan["data"]["train_scale"]
        side = [side] if isinstance(side, int) else side
        check.equal(f"{here}: name", member["name"], plan["name"])
        check.equal(f"{here}: config", member["config"], plan["network"]["config"])
        check.equal(f"{here}: S", member["train_scale"], side)
        check.equal(f"{here}: Q", member["test_scales"], metadata["evaluation"]["test_scales"])
        check.equal(f"{here}: protocol", member["protocol"], metadata["evaluation"]["protocol"])
        check.equal(f"{here}: weights", result["weights"], metadata["weights"])
        check.equal(f"{here}: epochs", [m["epoch"] for m in metrics], list(range(1, result["epochs"] + 1)))
        check.equal(f"{here}: images", metadata["paths"], files[0][2]["paths"])
        epochs.append(result["epochs"])
        seeds.append(plan["run"]["seed"])

    members = row["members"]
    common = lambda key: members[0][key] if members and all(m[key] == members[0][key] for m in members) else []
    configs = " + ".join(distinct(m["config"] for m in members))
    labelled = bool(members) and row["config"] != configs
    check.equal(f"{where}: S", row["train_scale"], common("train_scale"))
    check.equal(f"{where}: Q", row["test_scales"], common("test_scales"))
    check.equal(f"{where}: protocol", row["protocol"], " and ".join(distinct(m["protocol"] for m in members)))
    check.equal(f"{where}: run", row["run"], members[0]["run"] if members else "")
    check.equal(f"{where}: epochs", row["epochs"], max(epochs, default=0))
    if members and members[0]["run"]:
        check.equal(f"{where}: seed", row["seed"], seeds[0])
    if missing or not members:
        for key in ["top1_error", "top5_error", "top1_ci", "top5_ci"]:
            check.equal(f"{where}: {key}", row[key], None)
        check.equal(f"{where}: n and skipped", [row["n"], row["skipped"]], [0, 0])
        return labelled, len(files)

    labels = files[0][1]
    mean = np.mean([values.astype(np.float64) for values, _, _ in files], axis=0).astype(np.float32)
    check.equal(f"{where}: n", row["n"], len(labels))
    check.equal(f"{where}: skipped", row["skipped"], len(set(s for f in files for s in f[2]["skipped"])))
    for k, name in [(1, "top1"), (5, "top5")]:
        count = wrong(mean, labels, k)
        check.equal(f"{where}: {name}_error", row[f"{name}_error"], count / len(labels), 1e-12)
        interval = binomtest(count, len(labels)).proportion_ci(0.95, method="wilson")
        for end, ours, expected in zip(["low", "high"], row[f"{name}_ci"], interval, strict=True):
            # vgg rounds z to seven digits.
            check.equal(f"{where}: {name}_ci {end}", ours, float(expected), 1e-7)
    return labelled, len(files)


def check_paper(check, table, rows):
    paper = PAPER.get(table)
    if paper is None:
        for i, row in enumerate(rows):
            for key in ["paper_top1_error", "paper_top5_error", "paper_test_top5_error"]:
                check.equal(f"{table} row {i + 1}: {key}", row[key], None)
        return
    check.equal(f"{table}: rows", len(rows), len(paper))
    for i, (row, theirs) in enumerate(zip(rows, paper)):
        where = f"{table} row {i + 1}"
        check.equal(f"{where}: paper's S", row["paper_train_scale"], theirs[0])
        check.equal(f"{where}: paper's Q", row["paper_test_scales"], theirs[1])
        errors = list(theirs[2:]) + [None] * (5 - len(theirs))
        for key, percent in zip(["top1", "top5", "test_top5"], errors, strict=True):
            expected = None if percent is None else percent / 100
            check.equal(f"{where}: paper_{key}_error", row[f"paper_{key}_error"], expected, 1e-9)


def check_csv(check, table, rows, path):
    """Compares every cell with the JSON file; semicolons separate the elements of lists."""
    cells = list(csv.DictReader(io.StringIO(path.read_text())))
    check.equal(f"{path.name}: rows", len(cells), len(rows))
    for i, (own, row) in enumerate(zip(cells, rows)):
        check.equal(f"{path.name} row {i + 1}: fields", sorted(own), sorted(row))
        for field, text in own.items():
            value, where = row[field], f"{path.name} row {i + 1}: {field}"
            if field == "members":
                expected = ";".join(json.dumps(m, separators=(",", ":"), sort_keys=True) for m in value)
                members = json.loads(f"[{text.replace('};{', '},{')}]")
                text = ";".join(json.dumps(m, separators=(",", ":"), sort_keys=True) for m in members)
                check.equal(where, text, expected)
            elif isinstance(value, list):
                check.equal(where, [float(v) for v in text.split(";") if v], [float(v) for v in value])
            elif isinstance(value, (int, float)):
                check.equal(where, float(text), float(value))
            else:
                check.equal(where, text, value or "")


def percent(share):
    return "" if share is None else f"{100 * share:.1f}"


def scales(sides):
    return f"[{sides[0]};{sides[1]}]" if len(sides) == 2 else ",".join(map(str, sides))


def interval(row):
    ends = row["top1_ci"]
    return "" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}"


def difference(row):
    ours, theirs = row["top1_error"], row["paper_top1_error"]
    return "" if None in (ours, theirs) else f"{100 * (ours - theirs):+.1f}"


def paper_scales(row):
    test = row["paper_test_scales"]
    return f"{scales(row['paper_train_scale'])}, {','.join(map(str, test))}" if test else ""


COLUMNS = {
    "config": lambda row: row["config"],
    "S": lambda row: scales(row["train_scale"]),
    "Q": lambda row: ",".join(map(str, row["test_scales"])),
    "protocol": lambda row: row["protocol"],
    "top-1 error, %": lambda row: percent(row["top1_error"]),
    "95 % interval": interval,
    "top-5 error, %": lambda row: percent(row["top5_error"]),
    "paper: S, Q": paper_scales,
    "paper: top-1, %": lambda row: percent(row["paper_top1_error"]),
    "paper: top-5, %": lambda row: percent(row["paper_top5_error"]),
    "paper: test, top-5, %": lambda row: percent(row["paper_test_top5_error"]),
    "top-1 minus paper": difference,
    "test set: top-5, %": lambda row: "n/a (needs the ILSVRC server)" if row["members"] else "",
    "epochs": lambda row: str(row["epochs"]),
    "note": lambda row: row["note"] or "",
}


def check_markdown(check, rows, path):
    lines = [line[2:-2].split(" | ") for line in path.read_text().splitlines() if re.match(r"\|.*\|$", line)]
    heads, _, *cells = lines
    check.equal(f"{path.name}: rows", len(cells), len(rows))
    for i, (own, row) in enumerate(zip(cells, rows)):
        check.equal(f"{path.name} row {i + 1}: cells", len(own), len(heads))
        for head, text in zip(heads, own):
            check.equal(f"{path.name} row {i + 1}: {head}", text.strip(), COLUMNS[head](row))


def check_table(path):
    document = json.loads(path.read_text())
    if not isinstance(document, dict) or not any("members" in row for row in document.get("rows", [])):
        return None
    table, rows, check = document["table"], document["rows"], Check()
    check.equal(f"{path.name}: table", table, path.stem)
    labelled = files = 0
    for i, row in enumerate(rows):
        label, members = check_row(check, f"{table} row {i + 1}", row, path.parent)
        labelled, files = labelled + label, files + members
    check_paper(check, table, rows)
    check_csv(check, table, rows, path.with_suffix(".csv"))
    check_markdown(check, rows, path.with_suffix(".md"))
    beside = "typed from the paper" if table in PAPER else "none"
    print(f"{table}: {len(rows)} rows ({labelled} with a custom label), {files} posteriors files; the paper's columns: "
          f"{beside}; compared {check.compared} values of JSON, CSV and Markdown, {len(check.faults)} differ")
    for fault in check.faults:
        print(f"  {fault}")
    return not check.faults


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    verdicts = [check_table(path) for path in sorted(Path(sys.argv[1]).glob("*.json"))]
    verdicts = [verdict for verdict in verdicts if verdict is not None]
    if not verdicts:
        sys.exit(f"no table with runs in {sys.argv[1]}")
    print("ok" if all(verdicts) else "FAILED")
    sys.exit(not all(verdicts))


main()
