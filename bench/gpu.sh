#!/usr/bin/env bash
# What a CUDA machine can show, a stage at a time; see the text below.
set -euo pipefail

usage() {
    cat <<'TEXT'
bench/gpu.sh STAGE DIR [--device cuda|cpu] [--model PRESET|config.json] [--quick] [--python PROGRAM]

Run on a machine with a GPU, nothing installed but Python with torch, transformers, Triton, numpy, pyarrow,
scikit-learn, typer and rich. Each stage takes less than 8 minutes, writes its files to DIR and prints a short
table last.

  check     versions, clocks, the two ceilings (copies, bf16 matrix products), the tests marked "gpu"
  profile   python -m profiler over the designed grid and whole iterations; the fitted cost model on held-out rows
  kernels   attention backends side by side, as a share of the ceilings; one mixed call against two calls
  engine    decode and prefill iterations against the ceilings; tokens/s beside transformers' generate_batch
  validate  python -m engine validate under orca, vllm and sarathi-serve at three loads (needs simpy and plotly)

--device cpu --quick runs a stage with tiny sizes on a CPU, to see that it works.
TEXT
}

fail() {
    echo "error: $1" >&2
    exit 2
}

[[ $# -ge 1 && $1 != -h && $1 != --help ]] || { usage; exit 0; }
[[ $# -ge 2 && $2 != -* ]] || fail "no folder; expected bench/gpu.sh STAGE DIR"
stage=$1 out=$2
shift 2
device=cuda model=llama-3.1-8b quick=() python=${PYTHON:-python3}
while [[ $# -gt 0 ]]; do
    case $1 in
        --quick) quick=(--quick); shift ;;
        --device | --model | --python)
            [[ $# -ge 2 ]] || fail "$1: no value"
            printf -v "${1#--}" %s "$2"
            shift 2 ;;
        *) fail "unknown option $1" ;;
    esac
done
case $device in
    cuda) dtype=bfloat16 ;;
    cpu) dtype=float32; export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE ;;
    *) fail "--device: unknown device '$device'; expected cuda (CUDA_VISIBLE_DEVICES chooses one) or cpu" ;;
esac

case $stage in
    check | profile | kernels | engine | validate) ;;
    *) fail "unknown stage '$stage'; expected check, profile, kernels, engine or validate" ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$out" || fail "$out: cannot write"
out=$(cd "$out" && pwd)
installed=$(mktemp -d)
trap 'rm -rf "$installed"' EXIT
"$python" "$root/bench/gpu/installed.py" "$installed"
export PYTHONPATH=$installed:$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
cd "$root"

has_quick() { [[ ${#quick[@]} -gt 0 ]]; }

run_check() {
    "$python" bench/gpu/check.py --device "$device" --output "$out/check.json" "${quick[@]}"
    [[ $device != cpu ]] || return 0
    "$python" -m pytest --version >/dev/null 2>&1 || { echo "pytest is not installed: no tests"; return 0; }
    local marked=()
    mapfile -t marked < <(grep -rlE "mark\.gpu" tests)
    "$python" -m pytest -q -m gpu "${marked[@]}" 2>&1 | tee "$out/tests.txt" | tail -n 15
}

run_profile() {
    local budget=300 more=()
    if has_quick; then budget=2 more=(--ops-only); fi
    "$python" -m profiler measure --model "$model" --device "$device" --dtype "$dtype" --budget "$budget" \
        --output "$out/profile" "${more[@]}"
    if ! has_quick; then "$python" -m profiler fit "$out/profile" | tee "$out/fit.txt"; fi
}

run_kernels() {
    "$python" bench/gpu/kernels.py --model "$model" --device "$device" --output "$out/kernels.json" "${quick[@]}"
}

run_engine() {
    local shape=(--batch-sizes 1,32,128 --input-len 512 --output-len 128 --rounds 2)
    if has_quick; then shape=(--batch-sizes 2 --quick); fi
    "$python" bench/gpu/engine.py --model "$model" --device "$device" --output "$out/engine.json" "${quick[@]}"
    "$python" bench/engine_vs_transformers.py --model "$model" --dtype "$dtype" --device "$device" "${shape[@]}" |
        tee "$out/engine_vs_transformers.txt"
}

run_validate() {
    local shape=(--policies orca,vllm,sarathi-serve --num-prompts 256 --budget 120)
    if has_quick; then
        shape=(--policies orca,vllm --loads near:0.9 --num-prompts 4 --length-scale 0.02 --budget 1 --max-num-seqs 4)
    fi
    "$python" -m engine validate --model "$model" --load-format dummy --dtype "$dtype" --device "$device" \
        --output "$out/validation" "${shape[@]}" | tee "$out/validation.txt"
}

"run_$stage"
