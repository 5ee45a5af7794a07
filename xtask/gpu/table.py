"""The table of a GPU check, in Markdown, from the files in a folder: ours beside PyTorch's, then our layers."""

import json
import sys
from pathlib import Path


def load(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def main(folder):
    theirs = {}
    if (folder / "pytorch.jsonl").exists():
        for line in (folder / "pytorch.jsonl").read_text().splitlines():
            row = json.loads(line)
            theirs[row["mode"], row["batch"], row["compiled"]] = row
    ours = {(m, b): load(folder / f"vgg-{m}-{b}.json") for b in (64, 256) for m in ("infer", "train")}
    print("| VGG-16, bf16 | vgg, images/s | GiB | PyTorch eager | compiled | vgg / best |\n|---|---|---|---|---|---|")
    for (mode, batch), figures in ours.items():
        rates = [theirs.get((mode, batch, compiled), {}).get("images_per_s") for compiled in (False, True)]
        best = max((rate for rate in rates if rate), default=None)
        rate = figures and figures["images_per_s"]
        cells = [f"{rate:.0f}" if rate else "failed"]
        cells.append(f"{figures['peak_tensor_bytes'] / 2**30:.1f}" if figures else "")
        cells += [f"{r:.0f}" if r else "-" for r in rates]
        cells.append(f"{rate / best:.2f}" if rate and best else "-")
        print(f"| {mode}, batch {batch} | " + " | ".join(cells) + " |")
    figures = ours["train", 256] or ours["train", 64]
    if not figures:
        return
    limits = f"{figures['limit_gflops'] / 1e3:.0f} TFLOP/s, {figures['limit_read_gb_per_s'] / 1e3:.2f} TB/s"
    print(f"\nCeilings: {limits}; {figures['device']}; training, batch {figures['batch']}:\n")
    print("| layer | pass | microseconds | TFLOP/s | of its limit |\n|---|---|---|---|---|")
    for row in figures["layers"]:
        flops, limit = row["effective_gflops"], row["direct_limit_ratio"]
        cells = [row["layer"], row["pass"], f"{row['ms'] * 1e3:.0f}", f"{flops / 1e3:.1f}" if flops else ""]
        print("| " + " | ".join(cells + [f"{limit:.2f}" if limit else ""]) + " |")
    print("\n| convolution | place of its engine in cuDNN's list | microseconds when timed |\n|---|---|---|")
    for engine in figures["engines"]:
        print(f"| {engine['convolution']} | {engine['place']} | {engine['microseconds']:.0f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
