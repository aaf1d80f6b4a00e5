#!/bin/sh
# Reloads HAProxy and waits until it has done so. Usage: haproxy-reload.sh PIDFILE
#
# A signal that comes while HAProxy is still at the last one may be lost, and nobody would know: this ends with 0 only once a new
# worker is there, and `roundsman render` tries again what ends otherwise. Where systemd runs HAProxy, `systemctl reload haproxy` waits as well.
set -eu

master=$(cat "$1")
workers() { grep -ls "^PPid:[[:space:]]*$master\$" /proc/[0-9]*/status | tr '\n' ' '; }

before=" $(workers)"
kill -USR2 "$master"
tries=0
while [ "$tries" -lt 50 ]; do
    for worker in $(workers); do
        case "$before" in *" $worker "*) ;; *) exit 0 ;; esac
    done
    sleep 0.1
    tries=$((tries + 1))
done
echo "HAProxy ($master) has not reloaded within 5 s" >&2
exit 1
