#!/bin/sh
# Checks norion on a machine with a GPU: docs/gpu-check.md. Run at the top of the repository after
# `CUDA=1 make build peers`. It writes the reports to the directory OUT (gpu-check) and changes
# nothing else but norion's home.
set -u
out=${OUT:-gpu-check}
mkdir -p "$out"
. third_party/dist/goenv
step() { echo; echo "\$ $*"; "$@"; }

step nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
step bin/norion version
step bin/norion devices
bin/norion devices --json >"$out/devices.json"
for model in smollm2:135m gemma3:270m; do
	step bin/norion pull "$model"
	step bin/norion plan "$model" --ctx 8192
	step bin/norion plan "$model" --ctx 8192 --verify
	for where in --gpu-layers=-1 --cpu; do
		step bin/norion run "$model" "Name three colours of the rainbow." --temp 0 -n 32 "$where"
	done
done
step go test -tags="$NORION_TAGS" -run '^TestGPU' -v ./runtime/engine
step go test -tags="$NORION_TAGS" -short ./runtime/llama
bench() {
	name=$1
	shift
	echo
	echo "\$ norion bench $*"
	bin/norion bench "$@" --peer --html "$out/$name.html"
}
bench speed -m smollm2:135m,gemma3:270m -p 512 -n 128 -r 2
bench concurrency concurrency -m smollm2:135m
bench reuse reuse -m smollm2:135m --pattern fan-out-16,restart
