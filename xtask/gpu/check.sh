#!/usr/bin/env bash
# Checks and measures a GPU: the program's self-test, its benchmark, and PyTorch's on the same machine.
#
#     check.sh BIN [OUT]
#
# BIN is the program `vgg`, built anywhere; OUT a folder for what is found, `gpu-check` without one. The machine needs the
# NVIDIA driver and, for the comparison and for CUDA's libraries if there is no toolkit, a Python with PyTorch.
set -uo pipefail
bin=$(realpath "$1")
out=${2:-gpu-check}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

python=$(command -v python3 || command -v python || true)
if [ -n "$python" ] && ! "$bin" doctor --json | grep -q '"device": "cuda'; then
    # The libraries that came with PyTorch, for a machine without a toolkit.
    wheels=$("$python" -c 'import glob, site; print(":".join(p for s in site.getsitepackages() for p in glob.glob(s + "/nvidia/*/lib")))' 2>/dev/null)
    export VGG_CUDA_PATH="${VGG_CUDA_PATH:-}${VGG_CUDA_PATH:+:}$wheels"
fi

nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader | tee "$out/nvidia-smi.txt"
"$bin" doctor --json >"$out/doctor.json"
echo "== self-test"
"$bin" gpu-selftest --cudnn-properties "$out/cudnn-properties.json" >"$out/selftest.txt" 2>"$out/selftest.err"
selftest=$?
grep FAILED "$out/selftest.txt"
tail -n 1 "$out/selftest.txt" "$out/selftest.err"

echo "== benchmark"
failed=0
for batch in 64 256; do
    for mode in infer train; do
        "$bin" bench --device cuda --config D --mode $mode --batch $batch --samples 30 --layers --json \
            >"$out/vgg-$mode-$batch.json" 2>"$out/vgg-$mode-$batch.err" || { cat "$out/vgg-$mode-$batch.err"; failed=1; }
    done
done
if [ -n "$python" ] && "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    "$python" "$here/pytorch_vgg.py" >"$out/pytorch.jsonl" 2>"$out/pytorch.err" || tail -n 3 "$out/pytorch.err"
else
    echo "PyTorch is not here or sees no GPU: nothing to compare with"
fi
[ -n "$python" ] && "$python" "$here/table.py" "$out" | tee "$out/table.md"
exit $((selftest + failed > 0))
