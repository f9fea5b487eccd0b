#!/bin/sh
# scripts/deploy.sh COMMIT, or --back: scripts/roll.sh on another machine, by SSH. DEPLOY_TARGET is its user@host, where
# ~/slipway is a clone; DEPLOY_KEY is a private key, DEPLOY_KNOWN_HOSTS the machine's line for ~/.ssh/known_hosts.
set -eu
what=${1:?usage: scripts/deploy.sh COMMIT, or --back}
case $what in
--back) then='exec scripts/roll.sh --back' ;;
*[!0-9a-f]*) echo "deploy: $what is not a commit" >&2 && exit 2 ;;
*) then="git fetch --quiet origin && git checkout --quiet --detach $what && exec scripts/roll.sh $what" ;;
esac
: "${DEPLOY_TARGET:?}" "${DEPLOY_KEY:?}" "${DEPLOY_KNOWN_HOSTS:?}"
case $DEPLOY_TARGET in -*) echo "deploy: DEPLOY_TARGET is not user@host" >&2 && exit 2 ;; esac

umask 077
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf '%s\n' "$DEPLOY_KEY" > "$folder/key"
printf '%s\n' "$DEPLOY_KNOWN_HOSTS" > "$folder/known_hosts"
ssh -i "$folder/key" -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 \
    -o StrictHostKeyChecking=yes -o "UserKnownHostsFile=$folder/known_hosts" \
    "$DEPLOY_TARGET" "cd slipway && $then"
