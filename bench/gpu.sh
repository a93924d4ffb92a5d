#!/usr/bin/env bash
# Everything that needs a CUDA device, in one command: correctness, sanitizers, then measurements.
#
#   bench/gpu.sh [--dry-run] [--quick] [--only=REGEX] [--within=SECONDS] [--pack] [--part=1|2|3] [WHEEL]
#
# Where a machine is lent for minutes: --only runs the steps whose names match, --within gives up on what is not done
# in so many seconds and skips the rest, --pack leaves two files, summary.json and an archive of everything else.
# --part is all of these for one of three calls of ten minutes, each of which may find a bare machine: 1 tests,
# 2 sanitizers and the goals in problem lines, 3 the rivals and the networks. Their records go to folders part1 to part3.
#
# Builds nothing: it installs the WHEEL (default: the newest in dist/) into the Python that PYTHON names, without
# asking an index, and takes torch, numpy, ml_dtypes, pytest and hypothesis from there. OUT (default:
# bench/record/<device>) receives summary.json with a status per step, a log of each, and the records; rivals.jsonl has
# the goals beside the figures, and logs/rivals.txt the same as a table. Without a device, or with --dry-run, every step
# says SKIPPED and the exit status is 0; otherwise it is the number of steps that failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

python=${PYTHON:-python3}
# Toolkits are often installed without being found.
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
usage="usage: bench/gpu.sh [--dry-run] [--quick] [--only=REGEX] [--within=SECONDS] [--pack] [--part=1|2|3] [WHEEL]"
parts=(
    "^(install|machine|info|tests|memcheck)$"
    "^(install|racecheck|initcheck|synccheck|roofline|goals-.*)$"
    "^(install|rivals|.*-bf16|.*-f32)$"
)
dry=0 preset=full seconds=300 wheel='' only=. within=0 pack=0 part=''
for word in "$@"; do
    case $word in
    --dry-run) dry=1 ;;
    --quick) preset=quick seconds=30 ;;
    --only=*) only=${word#*=} ;;
    --within=*) within=${word#*=} ;;
    --pack) pack=1 ;;
    --part=[123])
        part=${word#*=}
        preset=quick seconds=20 within=570 pack=1 only=${parts[part - 1]}
        ;;
    -*)
        echo "$usage" >&2
        exit 2
        ;;
    *) wheel=$word ;;
    esac
done

device='' why=''
if [[ $dry == 1 ]]; then
    why="dry run"
else
    device=$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")' \
        2>/dev/null) || device=
    [[ -n $device ]] || why="no CUDA device"
fi
folder=$(tr -cs 'a-zA-Z0-9\n' '-' <<<"${device:-none}" | tr '[:upper:]' '[:lower:]')
out=${OUT:-bench/record/${folder#nvidia-}}${part:+/part$part}
if [[ -z $why ]]; then
    mkdir -p "$out/logs" || exit 1
    out=$(cd "$out" && pwd)
fi

failed=0 lines=()

# note NAME STATUS SECONDS WHY
note() {
    lines+=("{\"step\": \"$1\", \"status\": \"$2\", \"seconds\": $3, \"why\": \"$4\"}")
    printf '%-12s %-8s %6s s  %s\n' "$1" "$2" "$3" "$4"
}

# step NAME COMMAND...: runs it in the time that is left, keeps its output, goes on in any case.
step() {
    local name=$1 begun=$SECONDS left=$((within > 0 ? within - SECONDS : 86400))
    shift
    [[ $name =~ $only ]] || return 0
    [[ $part == 3 && $name == goals-* ]] && return 0 # those of the second
    if [[ -n $why ]]; then
        note "$name" SKIPPED 0 "$why"
    elif ((left < 5)); then
        note "$name" SKIPPED 0 "no time is left"
    elif [[ $1 != env ]] && ! command -v "$1" >/dev/null; then
        note "$name" SKIPPED 0 "$1 is not installed"
    elif timeout -k 5 "$left" "$@" >"$out/logs/$name.txt" 2>&1; then
        note "$name" passed $((SECONDS - begun)) ""
    else
        failed=$((failed + 1))
        note "$name" FAILED $((SECONDS - begun)) "see logs/$name.txt"
    fi
}

tests=("$python" -m pytest -q -p no:cacheprovider -m cuda)
bench=(env STRIATE_CUDA=1 "$python" -m striate.bench)
if [[ -z $wheel ]]; then
    wheel=$(find dist -name 'striate-*.whl' -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -1 | cut -d' ' -f2-)
fi

step install "$python" -m pip install --quiet --no-index --no-deps --force-reinstall "${wheel:-no wheel in dist}"
step machine nvidia-smi -q
step info "${bench[@]}" info
# Equality on integers, graphs, streams, torch.compile: what the tests on the host promise, on the device.
step tests "${tests[@]}" tests/test_cuda_*.py tests/test_parity.py
# Without torch's cache every tensor is an allocation of its own, past whose end memcheck sees. All tools but initcheck,
# which must see whoever writes, look at our kernels alone.
for tool in memcheck racecheck initcheck synccheck; do
    ours=(--kernel-name kns=striate_kernel)
    [[ $tool == initcheck ]] && ours=()
    if command -v compute-sanitizer >/dev/null; then
        step "$tool" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 1 \
            --launch-timeout 600 "${ours[@]}" "${tests[@]}" tests/test_cuda_device.py -k sample
    else
        step "$tool" compute-sanitizer
    fi
done
step rivals env STRIATE_CUDA=1 "$python" bench/gpu_rivals.py --json "$out/rivals.jsonl"
step roofline "${bench[@]}" roofline --fresh --device cuda
for family in goals replknet_31b slak_tiny convnext_tiny unireplknet_t multiresnet causal_short pool dcls; do
    for dtype in f32 bf16; do
        step "$family-$dtype" "${bench[@]}" bench "$family" --device cuda --dtype "$dtype" --buffers cold \
            --preset "$preset" --seconds "$seconds" --vs torch,channels_last,compile,cudnn,fft \
            --json "$out/$family-$dtype.jsonl"
    done
done

if [[ -z $why ]]; then
    commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
    {
        printf '{"device": "%s", "commit": "%s", "wheel": "%s", "steps": [\n' "$device" "$commit" "${wheel##*/}"
        between=
        for line in "${lines[@]}"; do
            printf '%s  %s' "$between" "$line"
            between=$',\n'
        done
        printf '\n]}\n'
    } >"$out/summary.json"
    if [[ $pack == 1 ]]; then
        tar -czf "$out.tar.gz" -C "$out" --exclude=summary.json . && rm -rf "$out/logs" "$out"/*.jsonl &&
            mv "$out.tar.gz" "$out/records.tar.gz"
    fi
    echo "records: $out"
fi
exit "$failed"
