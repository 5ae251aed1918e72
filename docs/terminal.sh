#!/usr/bin/env bash
# Draws docs/terminal.svg, the picture in the README, from what bin/norion really prints.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/bin:$PATH" go run ./docs/house/picture docs/terminal.svg \
	'norion run smollm2:135m --temp 0 -n 60 "Why is the sky blue?"' \
	'norion run smollm2:135m --raw --temp 0 -n 5 "One, two, three,"' \
	'norion list' \
	'norion show smollm2:135m | grep -E "^(name|digest|architecture|parameters|context|KV)"'
