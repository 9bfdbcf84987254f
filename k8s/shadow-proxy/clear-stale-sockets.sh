#!/bin/sh
# Run before NGINX starts (as /docker-entrypoint.d/ does in its official image). A killed NGINX leaves its sockets in
# a volume that outlives the container, and the next one could not bind to them.
set -eu
rm -f "${EDGE_RUN_DIR}/hop.sock" "${EDGE_RUN_DIR}/relay.sock"
