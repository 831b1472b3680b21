#!/bin/sh
set -e
case "$1" in
configure | triggered) "${DPKG_ROOT:-}/usr/lib/haulout/alternatives" install ;;
esac
