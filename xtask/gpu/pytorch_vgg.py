"""VGG-16 in PyTorch on a GPU, as fast as PyTorch does it: a line of JSON for each case.

channels_last, bf16 (autocast in training), cuDNN's own search for algorithms, fused SGD; eager and compiled.
"""

import json
import sys
import time

import torch
from torch import nn

BLOCKS = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]
BATCHES = [64, 256]
SECONDS = 4.0


def network():
    layers, inputs = [], 3
    for count, outputs in BLOCKS:
        for _ in range(count):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2, 2))
    layers += [nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    layers += [nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers).cuda().to(memory_format=torch.channels_last)


def inference(batch, compiled):
    net = network().eval().bfloat16()
    x = torch.randn(batch, 3, 224, 224, device="cuda").bfloat16().to(memory_format=torch.channels_last)
    run = torch.compile(net, mode="max-autotune") if compiled else net

    def sample():
        with torch.inference_mode():
            run(x)

    return sample


def training(batch, compiled):
    net = network()
    x = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    y = torch.randint(0, 1000, (batch,), device="cuda")
    run = torch.compile(net, mode="max-autotune") if compiled else net
    sgd = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4, fused=True)

    def sample():
        with torch.autocast("cuda", torch.bfloat16):
            loss = nn.functional.cross_entropy(run(x), y)
        loss.backward()
        sgd.step()
        sgd.zero_grad(set_to_none=True)

    return sample


def median_ms(sample):
    for _ in range(8):
        sample()
    torch.cuda.synchronize()
    times, end = [], time.time() + SECONDS
    while time.time() < end or len(times) < 5:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        sample()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return sorted(times)[len(times) // 2]


def main():
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for batch in BATCHES:
        for mode, make in [("infer", inference), ("train", training)]:
            for compiled in [False, True]:
                torch.manual_seed(0)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                row = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
                row |= {"mode": mode, "batch": batch, "compiled": compiled}
                try:
                    ms = median_ms(make(batch, compiled))
                    row |= {"ms": ms, "images_per_s": batch / ms * 1e3}
                    row["peak_bytes"] = torch.cuda.max_memory_allocated()
                except Exception as error:  # one case that fails leaves the others
                    row["error"] = str(error).splitlines()[0]
                print(json.dumps(row), flush=True)
                torch.compiler.reset()


if __name__ == "__main__":
    sys.exit(main())
