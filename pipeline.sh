#!/usr/bin/env bash
# Puts the tools together: one pipeline of processes in each direction.
set -u -o pipefail

usage() {
	cat <<'END'
usage: pipeline.sh demo
       pipeline.sh run TAP0 TAP1 [-in STAGES] [-out STAGES]

demo  Shapes real TCP between two network namespaces and draws the rate as it
      happens. Takes half a minute, and leaves nothing behind.

run   Runs both pipelines between two taps that exist, until one of them ends or
      a signal comes:
          in:   tunread TAP0 | STAGES | tunwrite TAP1
          out:  tunread TAP1 | STAGES | tunwrite TAP0
      STAGES is any shell pipeline; the tools of this project are found in it
      without a path. Without -in or -out there is nothing between.

Both need root, and Go unless the tools are built already.

  sudo ./pipeline.sh demo
  sudo ./pipeline.sh run tap0 tap1 -in 'quotagate -rate 100Mbit/s | bytehist'
END
}

say() { printf 'pipeline.sh: %s\n' "$*" >&2; }
die() { say "$1"; [ $# -lt 2 ] || say "hint: $2"; exit "${3:-1}"; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
bin=$here/bin
tools=(tunread tunwrite quotagate bytehist framepcap)

# build makes what is missing or older than its source. sudo may have left out
# where Go is.
build() {
	PATH=$bin:$PATH:/usr/local/go/bin:/usr/lib/go/bin
	if [ -f "$here/go.mod" ] && command -v go >/dev/null; then
		# Stamping asks git, which refuses a clone that belongs to somebody else.
		(cd "$here" && go build -buildvcs=false -o bin/ "${tools[@]/#/./}" "$@") || die "the tools do not build"
	fi
	local t
	for t in "${tools[@]}"; do
		command -v "$t" >/dev/null || die "no $t" "install Go (https://go.dev/dl), or put the tools on the PATH"
	done
}

# --- pipelines -------------------------------------------------------------

state=$(mktemp -d "${TMPDIR:-/tmp}/pipeline.XXXXXX") || exit 1
jobs_running=() # process groups

# start NAME SOURCE REST runs SOURCE | REST in a process group of its own, and
# notes the process of the source: ending that one lets the others drain.
start() {
	local name=$1 source=$2 rest=$3
	set -m # a process group for each
	bash -o pipefail -c "bash -c 'echo \$\$ >\"$state/$name.source\"; exec $source' </dev/null | $rest" &
	jobs_running+=("$!")
	set +m
}

# stop ends what start began: first the sources, and after a while all else.
stop() {
	local f pid
	for f in "$state"/*.source; do
		[ -s "$f" ] && kill -TERM "$(<"$f")" 2>/dev/null
	done
	for pid in "${jobs_running[@]}"; do
		for _ in {1..40}; do
			kill -0 -- "-$pid" 2>/dev/null || break
			sleep 0.05
		done
		kill -KILL -- "-$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	jobs_running=()
	rm -f "$state"/*.source
}

# --- run -------------------------------------------------------------------

run() {
	local in='' out='' taps=()
	while [ $# -gt 0 ]; do
		case $1 in
		-in | --in) [ $# -ge 2 ] || die "-in wants stages" "$0 -h" 2; in=$2; shift ;;
		-out | --out) [ $# -ge 2 ] || die "-out wants stages" "$0 -h" 2; out=$2; shift ;;
		-*) die "there is no flag $1" "$0 -h" 2 ;;
		*) taps+=("$1") ;;
		esac
		shift
	done
	[ ${#taps[@]} -eq 2 ] || die "run wants two taps, ${#taps[@]} given" "$0 -h" 2
	build
	trap 'stop; rm -rf "$state"' EXIT
	trap 'asked=1' INT TERM HUP
	local asked='' a b status=0
	printf -v a %q "${taps[0]}"
	printf -v b %q "${taps[1]}"
	start in "tunread $a" "${in:+$in | }tunwrite $b"
	start out "tunread $b" "${out:+$out | }tunwrite $a"
	# A signal ends the wait; otherwise it ends with the first pipeline.
	wait -n "${jobs_running[@]}" || status=$?
	if [ -n "$asked" ]; then
		exit 0
	elif [ "$status" -eq 0 ]; then
		say "one pipeline has ended; the other goes with it"
	else
		say "one pipeline has failed; the other goes with it"
	fi
	exit "$status"
}

# --- demo ------------------------------------------------------------------
#
#   network namespace NET                             network namespace HOST
#   the server            tap0                  tap1            the client
#   10.77.0.1              │                     │               10.77.0.2
#                          └─ tunread, quotagate, bytehist, tunwrite ─┘

demo() {
	[ $# -eq 0 ] || die "demo takes no arguments" "$0 -h" 2
	[ "$(id -u)" -eq 0 ] || die "the demonstration makes network namespaces, which needs root" "sudo $0 demo"
	[ -c /dev/net/tun ] || die "no /dev/net/tun" "modprobe tun; a container needs --device /dev/net/tun"
	command -v ip >/dev/null || die "no ip" "install iproute2"
	build ./internal/demo
	net=fp-net-$$ host=fp-host-$$ server=''
	trap clean EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP

	local quota=75MB window=5s
	{ ip netns add "$net" && ip netns add "$host"; } || die "no network namespaces here"
	tap "$net" tap0 10.77.0.1/24
	tap "$host" tap1 10.77.0.2/24
	local from_net="ip netns exec $net tunread tap0" to_host="ip netns exec $host tunwrite tap1"
	local from_host="ip netns exec $host tunread tap1" to_net="ip netns exec $net tunwrite tap0"
	start in "$from_net" "quotagate -quota $quota -window $window -metrics $state/gate | bytehist -every 1h -o $state/hist | $to_host"
	start out "$from_host" "quotagate -quota $quota -window $window | bytehist -every 1h -o /dev/null | $to_net"
	ip netns exec "$net" "$bin/demo" serve 10.77.0.1:7 &
	server=$!
	cat <<END

  tunread tap0 | quotagate -quota $quota -window $window | bytehist | tunwrite tap1
  tunread tap1 | quotagate -quota $quota -window $window | bytehist | tunwrite tap0

END
	# In the background, or a signal would have to wait for it.
	ip netns exec "$host" "$bin/demo" -port 400Mbit/s -quota $quota -window $window watch 10.77.0.1:7 &
	client=$!
	wait -n "$client" "${jobs_running[@]}" || die "the demonstration has failed"
	kill -0 "$client" 2>/dev/null && die "a pipeline has ended too early"
	stop
	printf '\nThe bytes that went by, as bytehist saw them:\n\n'
	cat "$state/hist"
}

# tap NAMESPACE NAME ADDRESS makes a tap. A short transmit queue keeps what waits
# in it short.
tap() {
	{
		ip -n "$1" tuntap add dev "$2" mode tap multi_queue vnet_hdr &&
			ip -n "$1" addr add "$3" dev "$2" &&
			ip -n "$1" link set "$2" txqueuelen 256 up
	} || die "cannot make $2"
}

clean() {
	trap '' INT TERM HUP
	[ -z "${client-}" ] || kill "$client" 2>/dev/null
	[ -z "$server" ] || kill "$server" 2>/dev/null
	stop
	wait 2>/dev/null
	ip netns del "$net" 2>/dev/null
	ip netns del "$host" 2>/dev/null
	rm -rf "$state"
}

trap 'rm -rf "$state"' EXIT
case ${1-} in
run | demo) "$@" ;;
-h | --help | help) usage ;;
'') usage >&2; exit 2 ;;
*) die "there is no command $1" "$0 -h" 2 ;;
esac
