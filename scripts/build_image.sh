#!/bin/sh
# scripts/build_image.sh NAME: builds the image on the newest base, by its digest, with the labels that tell where it is from.
# PYTHON_IMAGE names another base, and nothing is pulled then; SOURCE is the repository's address.
set -eu
cd "$(dirname "$0")/.."
name=${1:?usage: scripts/build_image.sh NAME}
tag=docker.io/library/python:3.12-slim
base=${PYTHON_IMAGE:-}
if [ -z "$base" ]; then
    docker pull --quiet "$tag" >/dev/null
    base=$(docker image inspect --format '{{index .RepoDigests 0}}' "$tag")
fi

label() { printf -- '--label=org.opencontainers.image.%s' "$1"; }
set -- "$(label "revision=$(git rev-parse HEAD)")" "$(label "created=$(date -u +%Y-%m-%dT%H:%M:%SZ)")" "$(label "base.name=$tag")"
case $base in *@sha256:*) set -- "$@" "$(label "base.digest=${base#*@}")" ;; esac
[ -z "${SOURCE:-}" ] || set -- "$@" "$(label "source=$SOURCE")"
docker build --build-arg "PYTHON_IMAGE=$base" "$@" --tag "$name" .
