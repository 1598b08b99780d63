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
# the taps as you like. ssh encrypts and knows who is there, a bare socket does not.
set -o pipefail

[ $# -gt 0 ] || {
	echo 'usage: link.sh TAP [COMMAND [ARGUMENT...]]' >&2
	exit 2
}
tap=$1
shift

# When one process ends, or a signal comes, the source stops; then the others come
# to the end of their input.
trap 'kill "${processes[@]}" 2>/dev/null' EXIT
trap 'exit 0' INT TERM HUP

if [ $# -gt 0 ]; then
	tunread "$tap" | "$@" | tunwrite "$tap" &
	mapfile -t processes < <(jobs -p) # of a pipeline, its first: tunread
	wait "$!"
else
	exec 3<&0 # or a job in the background would have /dev/null for it
	tunread "$tap" 3<&- &
	processes=("$!")
	tunwrite "$tap" <&3 &
	processes+=("$!")
	wait -n
fi
