#!/bin/sh
# scripts/roll.sh TAG: on the machine that runs docker-compose.yml, replaces the running version by the image TAG, one
# replica after the other. A version that does not get healthy is taken back. `scripts/roll.sh --back`: to the version before.
# The tag is kept in .env, so that later `docker compose` commands mean the same version.
set -eu
cd "$(dirname "$0")/.."

kept() { sed -n "s/^$1=//p" .env 2>/dev/null | tail -1; }

keep() {
    touch .env
    grep -v "^$1=" .env > .env.new || true
    echo "$1=$2" >> .env.new
    cat .env.new > .env # keeps its owner and mode
    rm .env.new
}

# --wait is until the health check passes. One replica or the other always answers.
replace() {
    export SLIPWAY_TAG="$1"
    here=$(docker compose ps --all --services)
    for service in slipway-more slipway-1 slipway-2 worker research writer mail calendar; do
        echo "$here" | grep -qx "$service" || continue
        docker compose up --detach --no-deps --no-build --wait --wait-timeout 180 "$service" || return 1
    done
}

old=$(docker inspect --format '{{.Config.Image}}' "$(docker compose ps --quiet slipway-1)")
old=${old##*:}
if [ "${1:?usage: scripts/roll.sh TAG, or --back}" = --back ]; then
    new=$(kept SLIPWAY_PREVIOUS_TAG)
    [ -n "$new" ] || { echo "roll: no version before is known" >&2 && exit 1; }
else
    new=$1
    SLIPWAY_TAG=$new docker compose pull --quiet --policy missing slipway-1
    # Only adds, so the old version runs on; where it does not pass, nothing is replaced.
    SLIPWAY_TAG=$new docker compose run --rm --no-deps migrate
fi

echo "roll: from $old to $new"
if ! replace "$new"; then
    echo "roll: $new does not get healthy; back to $old" >&2
    replace "$old"
    exit 1
fi
keep SLIPWAY_TAG "$new"
keep SLIPWAY_PREVIOUS_TAG "$old"
docker compose exec -T nginx nginx -t -q
docker compose exec -T nginx nginx -s reload
echo "roll: $new runs"
