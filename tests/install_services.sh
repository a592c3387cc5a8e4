#!/usr/bin/env bash
# What tests start for themselves: Valkey or Redis, nginx, openssl, promtool, and Chromium with Chinese letters.
# Installs what is absent when run as root on Debian or Ubuntu; says what is missing otherwise, where the tests
# concerned are skipped.
set -euo pipefail

missing=()
command -v valkey-server >/dev/null || command -v redis-server >/dev/null || missing+=(valkey-server)
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx-light)
command -v openssl >/dev/null || missing+=(openssl)
command -v promtool >/dev/null || missing+=(prometheus)
command -v chromium >/dev/null || missing+=(chromium fonts-noto-cjk fonts-noto-color-emoji)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed: ${missing[*]}. Tests that need them are skipped." >&2
    exit 0
fi

# The packages start a server of their own on a well-known port where they can; tests bring theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
for package in "${missing[@]}"; do
    # Debian 12 has Redis, later releases have Valkey.
    if [ "$package" = valkey-server ] && [ -z "$(apt-cache madison valkey-server)" ]; then
        package=redis-server
    fi
    apt-get install -y -q --no-install-recommends "$package" ||
        echo "could not install $package; tests that need it are skipped." >&2
done
