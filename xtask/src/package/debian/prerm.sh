#!/bin/sh
set -e
case "$1" in
remove | deconfigure) "${DPKG_ROOT:-}/usr/lib/haulout/alternatives" remove ;;
esac
