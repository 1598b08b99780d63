#!/usr/bin/env bash
# VDE's wirefilter as a stage: loss, delay, duplicates, noise, bandwidth. The
# arguments are its own, see wirefilter(1).
#
#   tunread -offload=false tap0 | wirefilter.sh -l 2 -d 50+10 | tunwrite tap1
#
# VDE knows frames of up to 1521 bytes and no offload: hence -offload=false, and
# keep the MTU at 1500. What it holds back at the end of the input is let out for
# a second, or for what $LINGER says; longer delays want more.
#
# Needs Debian's vde2, and vde-adapter on the PATH:
#
#   go build -o /usr/local/bin/ ./examples/vde-adapter
set -o pipefail
vde-adapter -linger "${LINGER-1s}" to | wirefilter "$@" | vde-adapter from
