#!/bin/sh
# Gives haulout the names of mariadb-backup and mbstream as alternatives (install), or takes them
# away (remove). Where another package has programs of these names, nothing is touched.
set -e

root=${DPKG_ROOT:-}
bin=/usr/bin
man=/usr/share/man/man1
ours=/usr/lib/haulout/bin
links="$bin/mariadb-backup $bin/mariabackup $bin/mbstream $man/mariadb-backup.1.gz $man/mbstream.1.gz"

case "$1" in
install)
    for name in mariadb-backup mariabackup mbstream; do
        if [ -e "$root$bin/$name" ] && [ ! -L "$root$bin/$name" ]; then
            echo "$bin/$name of another package stays; to replace it, install haulout-mariadb-backup"
            exit 0
        fi
    done
    update-alternatives --install $bin/mariadb-backup mariadb-backup $ours/mariadb-backup 50 \
        --slave $bin/mariabackup mariabackup $ours/mariabackup \
        --slave $man/mariadb-backup.1.gz mariadb-backup.1.gz $man/haulout-mariadb-backup.1.gz
    update-alternatives --install $bin/mbstream mbstream $ours/mbstream 50 \
        --slave $man/mbstream.1.gz mbstream.1.gz $man/haulout-mbstream.1.gz
    ;;
remove)
    # A package that came after us may have brought links of its own in these places, which
    # update-alternatives would take for ours.
    for link in $links; do
        case $(readlink "$root$link" || :) in
        '' | /etc/alternatives/*) ;;
        *) cp -P "$root$link" "$root$link.haulout-kept" ;;
        esac
    done
    update-alternatives --remove mariadb-backup $ours/mariadb-backup
    update-alternatives --remove mbstream $ours/mbstream
    for link in $links; do
        if [ -L "$root$link.haulout-kept" ]; then
            mv -fT "$root$link.haulout-kept" "$root$link"
        fi
    done
    ;;
*)
    echo "usage: $0 install|remove" >&2
    exit 2
    ;;
esac
