#!/usr/bin/env bash
# Checks and measures a GPU: the program's self-test, its benchmark, and PyTorch's on the same machine.
#
#     check.sh BIN [OUT] [STAGE...]
#
# BIN is the program `vgg`, built anywhere; OUT a folder for what is found, `gpu-check` without one. Stages are selftest,
# bench, pytorch and table; without any, all of them, which takes some ten minutes. The machine needs the NVIDIA driver
# and, for the comparison and for CUDA's libraries if there is no toolkit, a Python with PyTorch.
set -uo pipefail
bin=$(realpath "$1")
out=${2:-gpu-check}
stages=${*:3}
stages=${stages:-selftest bench pytorch table}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
# Compiled kernels and chosen engines stay with the results, for the next stage.
XDG_CACHE_HOME=$(realpath "$out")/cache
export XDG_CACHE_HOME
failed=0

python=$(command -v python3 || command -v python || true)
if [ -n "$python" ] && ! "$bin" doctor --json | grep -q '"device": "cuda'; then
    # The libraries that came with PyTorch, for a machine without a toolkit.
    wheels=$("$python" -c 'import glob, site; print(":".join(p for s in site.getsitepackages() for p in glob.glob(s + "/nvidia/*/lib")))' 2>/dev/null)
    export VGG_CUDA_PATH="${VGG_CUDA_PATH:-}${VGG_CUDA_PATH:+:}$wheels"
fi

selftest() {
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader | tee "$out/nvidia-smi.txt"
    "$bin" doctor --json >"$out/doctor.json"
    "$bin" gpu-selftest --cudnn-properties "$out/cudnn-properties.json" >"$out/selftest.txt" 2>"$out/selftest.err" ||
        failed=1
    grep FAILED "$out/selftest.txt"
    tail -n 1 "$out/selftest.txt" "$out/selftest.err"
}

bench() {
    for batch in 64 256; do
        for mode in infer train; do
            "$bin" bench --device cuda --config D --mode $mode --batch $batch --samples 30 --layers --json \
                >"$out/vgg-$mode-$batch.json" 2>"$out/vgg-$mode-$batch.err" ||
                { tail -n 2 "$out/vgg-$mode-$batch.err"; failed=1; }
        done
    done
}

pytorch() {
    if [ -n "$python" ] && "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        "$python" "$here/pytorch_vgg.py" >"$out/pytorch.jsonl" 2>"$out/pytorch.err" || tail -n 3 "$out/pytorch.err"
    else
        echo "PyTorch is not here or sees no GPU: nothing to compare with"
    fi
}

table() {
    if [ -n "$python" ]; then
        "$python" "$here/table.py" "$out" | tee "$out/table.md"
    fi
}

for stage in $stages; do
    case $stage in
        selftest | bench | pytorch | table) echo "== $stage" && "$stage" ;;
        *) echo "there is no stage $stage" && exit 2 ;;
    esac
done
exit $failed
