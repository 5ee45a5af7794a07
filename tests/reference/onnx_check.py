"""Runs the files that `vgg convert --to onnx` and `--to onnx-dense` write in ONNX Runtime, and compares with vgg.

Writes no fixtures. Needs onnx, onnxruntime, numpy, Pillow, safetensors, and the vgg binary.

Run: python3 onnx_check.py path/to/vgg [WIDTH] [CROP] [CONFIG...]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from safetensors.numpy import load_file

from hashed import unit


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def main():
    vgg = Path(sys.argv[1]).resolve()
    width, crop = (sys.argv[2:4] + ["0.125", "64"][len(sys.argv) - 2 :])[:2]
    configs = sys.argv[4:] or ["A", "A-LRN", "B", "C", "D", "E", "B-5x5"]
    crop = int(crop)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)

        def run(*args):
            subprocess.run([vgg, *map(str, args)], check=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        sides = [(crop, crop), (crop + 96, crop + 40)]
        for i in range(2):
            for split in ["train", "val"]:
                place = folder / "set" / split / f"class{i}"
                place.mkdir(parents=True)
                h, w = sides[i]
                pixels = np.floor((unit(f"pixels{i}", h * w * 3) + 1) * 128).astype(np.uint8).reshape(h, w, 3)
                Image.fromarray(pixels).save(place / "image.png")
        for config in configs:
            head = ["--head", "4096,4096"] if float(width) == 1 else ["--head", "64,64"]
            run("init", "--config", config, "--width", width, "--crop", crop, "--classes", 2, *head, "--init", "glorot-normal", "--out", f"{config}.safetensors")
            for form, protocol in [("onnx", "centre"), ("onnx-dense", "dense")]:
                run("convert", f"{config}.safetensors", f"{config}-{form}.onnx", "--to", form)
                path = str(folder / f"{config}-{form}.onnx")
                onnx.checker.check_model(path, full_check=True)
                session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                meta = session.get_modelmeta().custom_metadata_map
                mean = np.array(json.loads(meta["mean_rgb"]), dtype=np.float32)
                scale = json.loads(meta["pixel_scale"]) / np.array(json.loads(meta["std_rgb"]), dtype=np.float32)
                for i in range(2):
                    side = min(sides[i])
                    # vgg refuses an existing posteriors file of a different evaluation, so each one has its own path.
                    out = folder / f"{config}-{form}-{side}.posteriors"
                    run("evaluate", "--weights", f"{config}.safetensors", "--dataset", "set", "--protocol", protocol,
                        "--test-scales", side, "--flip", "false", "--posteriors", out, "--device", "cpu")
                    ours = load_file(out)["posteriors"][i]
                    image = np.asarray(Image.open(folder / "set/val" / f"class{i}" / "image.png"))
                    if form == "onnx":
                        top, left = ((s - crop) // 2 for s in image.shape[:2])
                        image = image[top : top + crop, left : left + crop]
                    x = ((image.astype(np.float32) - mean) * scale).transpose(2, 0, 1)[None]
                    scores = session.run(None, {"image": np.repeat(x, 3, 0)})[0]
                    assert np.array_equal(scores[0], scores[2]) or np.allclose(scores[0], scores[2], atol=1e-6)
                    theirs = softmax(scores[0].reshape(2, -1).mean(1).astype(np.float64))
                    assert 1e-30 < ours.min() < 0.499, ours
                    worst = max(worst, np.abs(np.log(ours) - np.log(theirs)).max())
            print(config, f"largest difference in log posteriors so far {worst:.1e}", flush=True)
    assert worst < 1e-4
    print("ok")


main()
