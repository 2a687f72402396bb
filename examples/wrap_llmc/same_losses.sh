#!/usr/bin/env bash
# Both programs print the same losses, to 1e-5; two ranks those of one that has the batches of both.
#   same_losses.sh BEFORE MAIN [MPIEXEC]
set -euo pipefail
before=$1 main=$2 mpiexec=${3:-}

losses() { "$@" --steps 20 | sed -n 's/.*train loss \([^ ]*\).*/\1/p'; }
compare() {  # name, expected, actual
  paste <(echo "$2") <(echo "$3") | awk -v name="$1" '
    { d = $1 - $2; if (d < 0) d = -d; if (d / $1 > worst) worst = d / $1 }
    $1 !~ /^[0-9.]+$/ || $2 !~ /^[0-9.]+$/ { bad = 1 }
    NR == 1 { first = $1 }
    END { printf "%s: %d steps, loss %s to %s, largest difference %.1e\n", name, NR, first, $1, worst
          exit bad || NR != 20 || worst > 1e-5 || !($1 < first) }'
}

expected=$(losses "$before" --batch 4)
compare "one rank" "$expected" "$(losses "$main" --batch 4)"
if [[ -n $mpiexec ]]; then compare "two ranks" "$expected" "$(losses "$mpiexec" -n 2 "$main" --batch 2)"; fi
