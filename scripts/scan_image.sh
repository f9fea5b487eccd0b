#!/bin/sh
# scripts/scan_image.sh NAME: fails when Debian has newer packages than the image, security updates among them.
# `make audit` does the same for Python packages.
set -eu
name=${1:?usage: scripts/scan_image.sh NAME}
waiting=$(docker run --rm --user 0 --entrypoint sh "$name" -euc \
    'apt-get -qq update && apt-get --simulate -qq upgrade | sed -n "s/^Inst //p"')
[ -n "$waiting" ] || exit 0
echo "scan: $name lacks these updates; build it on a newer base:" >&2
echo "$waiting" >&2
exit 1
