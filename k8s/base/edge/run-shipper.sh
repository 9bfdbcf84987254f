#!/bin/sh
# Runs rsyslog, from the edge's log files to Kafka, with the parameters of the environment. Becomes the shipper container's
# first process.
set -eu

files=${EDGE_FILES_DIR:-/etc/edge/files}
conf=$SHIP_WORK_DIR/rsyslog.conf

names=$(env | sed -n 's/^\(SHIP_[A-Z_]*\)=.*/${\1}/p' | tr '\n' ' ')
envsubst "$names" <"$files/rsyslog.conf.template" >"$conf"
if grep -o '\${SHIP_[A-Z_]*}' "$conf" >&2; then
  echo 'shipper: no value for these' >&2
  exit 1
fi
exec rsyslogd -n -i NONE -f "$conf"
