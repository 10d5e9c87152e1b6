#!/usr/bin/env bash
# Try to break it for HOURS or MINUTES: the simulator with new seeds all the time, and by turns the randomised tests and kills
# of a real mount. Every seed is printed before it runs; the first failure ends it with the command that repeats it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
end=$(awk -v minutes="${MINUTES:-}" -v hours="${HOURS:-1}" -v now="$(date +%s)" \
    'BEGIN { printf "%d", now + (minutes == "" ? hours * 60 : minutes) * 60 }')
left() { awk -v end="$end" -v now="$(date +%s)" 'BEGIN { print (end - now) / 60 }'; }

while [ "$(date +%s)" -lt "$end" ]; do
    minutes=$(awk -v left="$(left)" 'BEGIN { print left < 15 ? left : 15 }')
    "$python" -m tests.sim --minutes "$(awk -v all="$minutes" 'BEGIN { print all / 2 }')"
    "$python" -m tests.sim --eager --minutes "$(awk -v all="$minutes" 'BEGIN { print all / 2 }')"
    [ "$(date +%s)" -lt "$end" ] || break
    export CIAOSFS_SEED=$((RANDOM * 32768 + RANDOM))
    export CIAOSFS_MODEL_SEEDS=$CIAOSFS_SEED
    export CIAOSFS_SOAK=1 # the full product of what is otherwise sampled
    tests="tests/model tests/contract tests/crash tests/mount"
    echo "CIAOSFS_SOAK=1 CIAOSFS_SEED=$CIAOSFS_SEED CIAOSFS_MODEL_SEEDS=$CIAOSFS_SEED $python -m pytest -x -q $tests"
    # shellcheck disable=SC2086 # words
    "$python" -m pytest -x -q $tests
    if [ -w /dev/fuse ]; then
        "$python" -m tools.crashloop --times 20 --seed "$CIAOSFS_SEED" >/dev/null
    fi
done
