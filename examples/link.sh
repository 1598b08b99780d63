#!/usr/bin/env bash
# A link between two machines that is nothing but pipes: what the tap here sends
# comes out of the tap there, and the other way round, over any command that
# carries bytes both ways.
#
#   link.sh TAP COMMAND [ARGUMENT...]   the stream goes through COMMAND
#   link.sh TAP                         it goes through stdin and stdout
#
# Over ssh, from one side; over TCP, one command on each; beside other filters:
#
#   link.sh tap0 ssh -C root@other link.sh tap0
#
#   link.sh tap0 socat - TCP-LISTEN:7000,reuseaddr,nodelay
#   link.sh tap0 socat - TCP:other:7000,nodelay
#
#   link.sh tap0 sh -c 'quotagate -rate 10Mbit/s | ssh root@other link.sh tap0'
#
# Whole Ethernet frames cross, of any size, and super-frames as one: set the MTU of
# the taps as you like. tunread and tunwrite are on the PATH of both. ssh encrypts and knows who is there, a bare socket does not.
set -o pipefail

[ $# -gt 0 ] || {
	echo 'usage: link.sh TAP [COMMAND [ARGUMENT...]]' >&2
	exit 2
}
tap=$1
shift

if [ $# -gt 0 ]; then
	# At a signal the source stops, and the others come to the end of their input.
	trap 'asked=1; kill "$source" 2>/dev/null' INT TERM HUP
	tunread "$tap" | "$@" | tunwrite "$tap" &
	source=$(jobs -p) # of a pipeline, its first process
	wait "$!" # with the status of the whole pipeline, which a second wait has not
	status=$?
	[ -n "${asked-}" ] || exit "$status"
	wait "$!" # the signal has ended the first
	exit 0    # COMMAND may have taken it for a failure
else
	# The first to end takes the other along.
	trap 'kill -KILL "${both[@]}" 2>/dev/null' EXIT
	trap 'exit 0' INT TERM HUP
	exec 3<&0 # in the background stdin would be /dev/null
	tunread "$tap" &
	both=("$!")
	tunwrite "$tap" <&3 &
	both+=("$!")
	wait -n
fi
