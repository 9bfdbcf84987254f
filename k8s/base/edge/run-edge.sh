#!/bin/sh
# Runs NGINX with the parameters of a folder (a file each, as a ConfigMap is mounted), takes up changed ones by a reload,
# and rotates the log. The edge container's first process.
#
# A change that NGINX refuses, a name that does not resolve among them, is said on stderr, changes nothing, and is tried
# again every ten rounds.
set -eu

parameters=${EDGE_PARAMETERS_DIR:-/etc/edge/parameters}
files=${EDGE_FILES_DIR:-/etc/edge/files}
ship_dir=${EDGE_SHIP_DIR:-/var/lib/ship}   # rsyslog's work folder: says which log file it reads
log_bytes=${EDGE_LOG_BYTES:-134217728}     # rotate a log at this size, once the shipper has read the one before
log_bytes_max=${EDGE_LOG_BYTES_MAX:-1610612736} # rotate it at this size in any case: what the shipper has not read is lost
poll_s=${EDGE_POLL_S:-1}
drain_s=${EDGE_DRAIN_S:-65}                # at a stop, longest wait for requests under way

say() { printf 'edge: %s\n' "$*" >&2; }
value() { cat "$parameters/$1"; }

# The folder that the parameters lie in now. A mounted ConfigMap is changed as a whole, by a link `..data` to another
# folder: read from one of them, values of before and after are never mixed.
present() {
  if [ -e "$parameters/..data" ]; then readlink -f "$parameters/..data"; else echo "$parameters"; fi
}

run_dir=$(value EDGE_RUN_DIR)
conf=$run_dir/nginx.conf
pid=

fingerprint() { cat "$1"/EDGE_* | cksum; }

# The configuration made of the template and the parameters in the folder $1, into the file $2.
render() (
  names=
  for file in "$1"/EDGE_*; do
    name=${file##*/}
    text=$(cat "$file") || exit 1
    case $text in
      *'$'* | *'
'*) say "$name holds a line break or a dollar sign"; exit 1 ;;
    esac
    export "$name=$text"
    names="$names \${$name}"
  done
  envsubst "$names" <"$files/nginx.conf.template" >"$2" || exit 1
  missing=$(grep -o '\${EDGE_[A-Z_]*}' "$2" | sort -u | tr '\n' ' ') || true
  [ -z "$missing" ] || { say "no value for $missing"; exit 1; }
)

accepted() { nginx -t -q -e stderr -c "$1"; }

# Makes the parameters in the folder $1 the configuration.
applied=
apply() {
  render "$1" "$conf.next" && accepted "$conf.next" && mv -f "$conf.next" "$conf" && applied=$(fingerprint "$1")
}

refused=
rounds=0
reload_if_changed() {
  folder=$(present)
  now=$(fingerprint "$folder")
  [ "$now" != "$applied" ] || return 0
  rounds=$((rounds + 1))
  [ "$now" != "$refused" ] || [ "$rounds" -ge 10 ] || return 0
  if apply "$folder"; then
    kill -HUP "$pid"
    say "reloaded; canary $(value EDGE_CANARY), weight $(value EDGE_CANARY_WEIGHT)"
  else
    say "the changed parameters are NOT in force: NGINX goes on with those before"
    refused=$now
    rounds=0
  fi
}

# The shipper reads the present file of the log $1, so it has read the one before to its end: there is a state of its about
# this inode, and newer than what was last written to the one before (inodes are used again).
shipper_is_at() {
  inode=$(stat -c %i "$1")
  for state in "$ship_dir/imfile-state:$inode" "$ship_dir/imfile-state:$inode:"*; do
    [ -e "$state" ] || continue
    { [ -e "$1.1" ] && [ ! "$state" -nt "$1.1" ]; } || return 0
  done
  return 1
}

rotate_if_large() {
  for parameter in "$parameters"/EDGE_*_LOG; do
    log=$(cat "$parameter")
    [ -f "$log" ] || continue # the error log is no file
    size=$(stat -c %s "$log")
    [ "$size" -ge "$log_bytes" ] || continue
    if ! shipper_is_at "$log"; then
      [ "$size" -ge "$log_bytes_max" ] || continue
      say "LOST: the shipper is too far behind; lines of $log.1 that it has not read are dropped"
    fi
    mv -f "$log" "$log.1"
    kill -USR1 "$pid"
  done
}

stopping=
stop() {
  [ -n "$stopping" ] || say "stopping: requests under way are finished"
  stopping=yes
}
trap stop TERM INT QUIT

EDGE_RUN_DIR=$run_dir sh "$files/clear-stale-sockets.sh"
apply "$(present)" || { say "cannot start"; exit 1; }
nginx -e stderr -c "$conf" -g 'daemon off;' &
pid=$!

while [ -z "$stopping" ] && kill -0 "$pid" 2>/dev/null; do
  sleep "$poll_s" &
  wait $! || true # a signal ends the wait, not the script
  [ -n "$stopping" ] || { reload_if_changed; rotate_if_large; }
done

if [ -n "$stopping" ]; then
  kill -QUIT "$pid" 2>/dev/null || true
  waited=0
  while kill -0 "$pid" 2>/dev/null && [ "$waited" -lt "$drain_s" ]; do
    sleep 1
    waited=$((waited + 1))
  done
  kill -TERM "$pid" 2>/dev/null || true
fi
code=0
wait "$pid" || code=$?
exit "$code"
