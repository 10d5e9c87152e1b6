#!/usr/bin/env bash
# The randomised tests with a new seed each time, until HOURS are over or one fails; the seed is printed first.
set -euo pipefail
cd "$(dirname "$0")/.."
end=$(awk -v hours="${HOURS:-1}" -v now="$(date +%s)" 'BEGIN { printf "%d", now + hours * 3600 }')
while [ "$(date +%s)" -lt "$end" ]; do
    export CIAOSFS_SEED=$((RANDOM * 32768 + RANDOM))
    echo "CIAOSFS_SEED=$CIAOSFS_SEED"
    export CIAOSFS_SOAK=1 # the full product of what is otherwise sampled
    targets=()
    for directory in tests/model tests/contract tests/crash tests/mount; do [ -d "$directory" ] && targets+=("$directory"); done
    .venv/bin/python -m pytest -x -q "${targets[@]}"
done
