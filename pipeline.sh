#!/usr/bin/env bash
# Puts the tools together: one pipeline of processes in each direction.
set -u -o pipefail

usage() {
	cat <<'END'
usage: pipeline.sh demo
       pipeline.sh run TAP0 TAP1 [-in STAGES] [-out STAGES] [-queues N]
       pipeline.sh up IFACE [-lan IFACE2] [-in STAGES] [-out STAGES]
                      [-confirm TIME] [-fail open|closed] [-foreground] [-user NAME]
       pipeline.sh confirm [IFACE]
       pipeline.sh status [IFACE]
       pipeline.sh down [IFACE]
       pipeline.sh install [DIR]

demo     Shapes real TCP between two network namespaces and draws the rate as it
         happens. Takes half a minute, and leaves nothing behind.
run      Runs both pipelines between two taps that exist, until one of them ends
         or a signal comes:
             in:   tunread TAP0 | STAGES | tunwrite TAP1
             out:  tunread TAP1 | STAGES | tunwrite TAP0
         STAGES is any shell pipeline; the tools of this project are found in it
         without a path. Without -in or -out there is nothing between.
           -queues N      N pipelines in each direction, for machines with many
                          cores: each flow goes through one of them. Stages see in
                          $QUEUE which theirs is, 0 and up, to name their files;
                          gates keep one quota by a ledger
up       Leads the traffic of a network interface through both pipelines. The
         addresses and routes of IFACE move to the host's side of them. With -lan
         IFACE2 the machine stands in the cable between the two, as a bridge.
         Undoes everything if anything fails.
           -confirm TIME  undo it after TIME (60s, 5m) unless confirm comes
           -fail open     if the pipelines end over and over, lead the traffic past
                          them until they do not; closed, the default, does not
           -foreground    stay, until a signal comes; then undo it
           -user NAME     whom the stages run as, without any privilege: nobody by
                          default. Files that they name are in /var/lib/framepipe,
                          which is his, unless they say otherwise
confirm  Keeps what up -confirm made.
status   Shows devices, rates, processes and the state of each gate.
down     Puts addresses, routes, MAC address and flags back as they were, also
         after up was killed.
install  Builds the tools, and copies them, this script, the manual pages and the
         completion to DIR, by default /usr/local.

What makes devices needs root, and all of it Go unless the tools are built already.

  sudo ./pipeline.sh demo
  sudo ./pipeline.sh run tap0 tap1 -in 'quotagate -rate 100Mbit/s | bytehist'
  sudo ./pipeline.sh up eth0 -confirm 60s -out 'quotagate -rate 100Mbit/s'
END
}

# helps ARGUMENTS prints the usage if that is what they ask for.
helps() {
	local arg
	for arg; do
		case $arg in -h | --h | -help | --help) usage; exit ;; esac
	done
}

say() { printf 'pipeline.sh: %s\n' "$*" >&2; }
die() { say "$1"; [ -z "${2-}" ] || say "hint: $2"; exit "${3:-1}"; }

self=$(readlink -f "${BASH_SOURCE[0]}") && here=${self%/*} || exit 1
bin=$here/bin
tools=(tunread tunwrite quotagate bytehist framepcap quotabill)

# build makes what is missing or older than its source, for all users. sudo may have
# left out where Go is.
build() {
	PATH=$bin:$here:$PATH:/usr/local/go/bin:/usr/lib/go/bin
	if [ -f "$here/go.mod" ] && command -v go >/dev/null; then
		# Stamping asks git, which refuses a clone that belongs to somebody else.
		(umask 022 && cd "$here" && go build -buildvcs=false -o bin/ "${tools[@]/#/./}" "$@") || die "the tools do not build"
	fi
	local t
	for t in "${tools[@]}"; do
		command -v "$t" >/dev/null || die "no $t" "install Go (https://go.dev/dl), or put the tools on the PATH"
	done
}

# --- pipelines -------------------------------------------------------------

state='' # a directory: what is known of the pipelines, and of what was there before
jobs_running=() # process groups

# scratch makes the state directory of what is not up; its caller has the traps that
# remove it.
scratch() {
	state=$(mktemp -d "${TMPDIR:-/tmp}/pipeline.XXXXXX") || exit 1
}

# start NAME SOURCE STAGES SINK runs SOURCE | STAGES | SINK in a process group of its own,
# and notes the process of the source: ending that one lets the others drain. STAGES may
# be a list of pipelines, and end in a comment.
start() {
	local name=$1 source=$2 stages=${3:+"{ $3"$'\n''} 6>&- | '} sink=$4
	apart bash -o pipefail -c "bash -c 'echo \$\$ >&6; exec 6>&-; exec $source' </dev/null | $stages$sink 6>&-" 6>"$state/$name.source"
	jobs_running+=("$!")
}

# apart COMMAND... runs it in a process group of its own, in the background. As another
# user it is in another session, too: from our terminal he could type as us (TIOCSTI).
# Without job control setsid makes no process.
apart() {
	[ ${#as_user[@]} -gt 0 ] || set -m
	PIPELINE_STATE=$state "${as_user[@]}" "$@" 8>&- 9>&- &
	set +m
}

as_user=() # what a command is run by

# unprivileged USER has start run all as that user: no capabilities, now or ever, no
# other groups, and no way to get more by running something. The tools may be where
# he cannot go, such as below /root: he is given their directory open.
unprivileged() {
	local uid gid where owner
	uid=$(id -u "$1" 2>/dev/null) || die "there is no user $1" "id $1" 2
	gid=$(id -g "$1")
	owner=$(stat -c %U "$lib_dir" 2>/dev/null) || owner=$1
	if [ "$owner" != "$(id -un "$1")" ] && compgen -G "$run_dir/*/ready" >/dev/null; then
		die "pipelines of another interface run as $owner, and $lib_dir is his" "-user $owner, or PIPELINE_LIB=DIRECTORY"
	fi
	where=$(find "$lib_dir" -mindepth 1 ! -uid "$uid" ! -uid 0 -print -quit 2>/dev/null)
	[ -z "$where" ] || die "$where is somebody else's, and could lead $1 elsewhere" "chown it, or remove it, or PIPELINE_LIB=DIRECTORY"
	where=$(command -v tunread) && exec 7<"${where%/*}" || exit 1
	install -d -o "$uid" -g "$gid" -m 0755 "$lib_dir" && cd "$lib_dir" || exit 1
	[ "$uid" -ne 0 ] || return 0
	PATH=/proc/self/fd/7:$PATH
	command -v setpriv >/dev/null || die "no setpriv" "install util-linux"
	as_user=(setsid setpriv --reuid="$uid" --regid="$gid" --clear-groups --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all)
	"${as_user[@]}" sh -c 'test -r /dev/net/tun && test -w /dev/net/tun' ||
		die "$1 may not open /dev/net/tun" "chmod 0666 /dev/net/tun, as udev has it: the taps belong to $1, and that is what counts; or -user root"
}

# stop ends what start began: first the sources, and after a while all else.
stop() {
	local pid i=0
	end_sources
	for pid in "${jobs_running[@]}"; do
		for (( ; i < 40; i++)); do # all together
			kill -0 -- "-$pid" 2>/dev/null || break
			sleep 0.05
			end_sources # one may only just have begun
		done
		kill -KILL -- "-$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	jobs_running=()
}

# end_sources asks each source that is known to end, once: asked again, it would not
# pass on what it has read. The number may be somebody else's by now, and it was not root
# who wrote it.
end_sources() {
	local f pid
	for f in ${state:+"$state"/*.source}; do
		[ -s "$f" ] || continue
		pid=$(<"$f")
		if [[ $pid =~ ^[1-9][0-9]*$ ]] && grep -qzFx "PIPELINE_STATE=$state" "/proc/$pid/environ" 2>/dev/null; then
			kill -TERM "$pid" 2>/dev/null
		fi
		rm -f "$f"
	done
}

# --- install ---------------------------------------------------------------

put() {
	helps "$@"
	[ $# -le 1 ] || die "one directory at most, $# given" "$0 -h" 2
	local to=${1:-/usr/local} section tool
	[ -d "$here/man" ] || die "the sources are not here" "run it where they are"
	build
	if ! install -d "$to/bin" "$to/share/bash-completion/completions" ||
		! install -m 755 "${tools[@]/#/$bin/}" "$here/pipeline.sh" "$to/bin"; then
		die "cannot install to $to" "sudo $0 install, or another directory"
	fi
	for section in 1 5 8; do
		install -d "$to/share/man/man$section" && install -m 644 "$here"/man/*."$section" "$to/share/man/man$section" || exit 1
	done
	for tool in "${tools[@]}" pipeline.sh; do # a completion is found by the command's name
		install -m 644 "$here/man/completion.bash" "$to/share/bash-completion/completions/$tool" || exit 1
	done
	say "installed to $to/bin and $to/share"
}

# --- run -------------------------------------------------------------------

run() {
	local in='' out='' queues=1 taps=()
	while [ $# -gt 0 ]; do
		case $1 in
		-in | --in) [ $# -ge 2 ] || die "-in wants stages" "$0 -h" 2; in=$2; shift ;;
		-out | --out) [ $# -ge 2 ] || die "-out wants stages" "$0 -h" 2; out=$2; shift ;;
		-queues | --queues)
			[[ ${2-} =~ ^[0-9]{1,3}$ ]] && queues=$((10#$2)) || queues=0
			((queues >= 1 && queues <= 128)) || die "-queues wants a number from 1 to 128" "$0 -h" 2
			shift ;;
		-*) helps "$1"; die "there is no flag $1" "$0 -h" 2 ;;
		*) taps+=("$1") ;;
		esac
		shift
	done
	[ ${#taps[@]} -eq 2 ] || die "run wants two taps, ${#taps[@]} given" "$0 -h" 2
	[ "${taps[0]}" != "${taps[1]}" ] || die "run wants two taps, and ${taps[0]} is one" "$0 -h" 2
	understood -in "$in"
	understood -out "$out"
	if ((queues > 1)); then
		one_quota -in "$in"
		one_quota -out "$out"
	fi
	local asked='' a b status=0
	trap 'asked=1; stop' INT TERM HUP # a signal ends the wait, also if it comes before that
	trap 'stop; rm -rf "$state"; [ -z "$asked" ] || exit 0' EXIT # whatever it has ended with it
	build
	scratch
	printf -v a %q "${taps[0]}"
	printf -v b %q "${taps[1]}"
	# The kernel sends all of a flow to one queue of a tap, by its hash
	# (tun_automq_select_queue in drivers/net/tun.c), so that it stays in order.
	export QUEUE
	for ((QUEUE = 0; QUEUE < queues; QUEUE++)); do
		start "in$QUEUE" "tunread $a" "$in" "tunwrite $b"
		start "out$QUEUE" "tunread $b" "$out" "tunwrite $a"
	done
	# It ends with the first pipeline.
	[ -n "$asked" ] || wait -n "${jobs_running[@]}" || status=$?
	if [ -n "$asked" ]; then
		exit
	elif [ "$status" -eq 0 ]; then
		say "one pipeline has ended; the other goes with it"
	else
		say "one pipeline has failed; the other goes with it"
	fi
	exit "$status"
}

# understood FLAG STAGES refuses what the shell does not understand where it is to stand,
# and what does not go on to a next stage: a command in the background has no input, and
# a brace too many would end ours.
understood() {
	local bare=${2%"${2##*[![:space:]]}"}
	if [ -n "$2" ] && ! { bash -n -c "{ $2"$'\n}' && bash -n -c "$bare | :"; } 2>/dev/null; then
		die "$1: the shell does not understand $2 as stages of a pipeline" "" 2
	fi
}

# one_quota FLAG STAGES refuses gates that would keep a quota each. A command ends, or
# begins, at these characters, but not in 2>&1, $(...) and ${...}.
one_quota() {
	local stage
	while read -r stage; do
		if [[ " $stage " =~ [[:space:]/]quotagate[[:space:]] && ! " $stage " =~ [[:space:]]--?ledger[=[:space:]] ]]; then
			die "$1: with -queues each of several gates would keep the quota by itself" "quotagate ... -ledger FILE -dir ${1#-}" 2
		fi
	done < <(sed -E 's/[|;]/\n/g; s/(^|[^<>])&/\n/g; s/(^|[^$])\(/\n/g; s/(^|[[:space:]])[{}]/\n/g' <<<"${2//$'\\\n'/}")
}

# --- demo ------------------------------------------------------------------
#
#   network namespace NET                             network namespace HOST
#   the server            tap0                  tap1            the client
#   10.77.0.1              │                     │               10.77.0.2
#                          └─ tunread, quotagate, bytehist, tunwrite ─┘

demo() {
	helps "$@"
	[ $# -eq 0 ] || die "demo takes no arguments" "$0 -h" 2
	[ "$(id -u)" -eq 0 ] || die "the demonstration makes network namespaces, which needs root" "sudo $0 demo"
	[ -c /dev/net/tun ] || die "no /dev/net/tun" "modprobe tun; a container needs --device /dev/net/tun"
	command -v ip >/dev/null || die "no ip" "install iproute2"
	[ -d "$here/internal/demo" ] || die "the demonstration is among the sources, which are not here"
	build ./internal/demo
	net=fp-net-$$ host=fp-host-$$ server=''
	trap clean EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	scratch

	local quota=75MB window=5s
	{ ip netns add "$net" && ip netns add "$host"; } || die "no network namespaces here"
	tap "$net" tap0 10.77.0.1/24
	tap "$host" tap1 10.77.0.2/24
	local from_net="ip netns exec $net tunread tap0" to_host="ip netns exec $host tunwrite tap1"
	local from_host="ip netns exec $host tunread tap1" to_net="ip netns exec $net tunwrite tap0"
	start in "$from_net" "quotagate -quota $quota -window $window -metrics $state/gate | bytehist -every 1h -o $state/hist" "$to_host"
	start out "$from_host" "quotagate -quota $quota -window $window | bytehist -every 1h -o /dev/null" "$to_net"
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

# --- up and down -----------------------------------------------------------
#
#   network                                                            host
#   IFACE ─ fpbrN ─ fpnetN ── in ──▶ fphostN   IFACE's addresses, routes and MAC
#                          ◀── out ──           or, with -lan: ─ fplanN ─ IFACE2
#
# N is the number of IFACE. IFACE keeps its MAC address, which is the one that a
# switch or a hypervisor lets through; it is only a cable now. What was there
# before is noted in the state directory before anything is touched, so that it
# can be put back by anybody, at any time.

run_dir=${PIPELINE_RUN:-/run/pipeline}
lib_dir=${PIPELINE_LIB:-/var/lib/framepipe} # where stages keep their files
[[ $run_dir = /* ]] || run_dir=$PWD/$run_dir
[[ $lib_dir = /* ]] || lib_dir=$PWD/$lib_dir
declare -A group # of processes, of each direction

# names sets what the devices of an interface are called, and where its state is.
names() {
	iface=$1 state=$run_dir/$1
	local n
	if [ -r "$state/number" ]; then n=$(<"$state/number"); else n=$(<"/sys/class/net/$1/ifindex"); fi
	bridge=fpbr$n net=fpnet$n host=fphost$n lan_bridge=fplan$n
	lan=$(cat "$state/lan" 2>/dev/null)
}

up() {
	local in='' out='' other='' confirm=0 fail=closed user=nobody foreground='' args=("$@") ifaces=() fd
	while [ $# -gt 0 ]; do
		case $1 in
		-in | --in) [ $# -ge 2 ] || die "-in wants stages" "$0 -h" 2; in=$2; shift ;;
		-out | --out) [ $# -ge 2 ] || die "-out wants stages" "$0 -h" 2; out=$2; shift ;;
		-lan | --lan) [ $# -ge 2 ] || die "-lan wants an interface" "$0 -h" 2; other=$2; shift ;;
		-confirm | --confirm)
			[[ ${2-} =~ ^0*([1-9][0-9]{0,5})(s|m|h)$ ]] || die "-confirm wants a time, such as 60s or 5m" "$0 -h" 2
			confirm=${BASH_REMATCH[1]}
			case ${BASH_REMATCH[2]} in m) confirm=$((confirm * 60)) ;; h) confirm=$((confirm * 3600)) ;; esac
			shift ;;
		-fail | --fail)
			case ${2-} in open | closed) fail=$2 ;; *) die "-fail wants open or closed" "$0 -h" 2 ;; esac
			shift ;;
		-user | --user) [ $# -ge 2 ] || die "-user wants a user" "$0 -h" 2; user=$2; shift ;;
		-foreground | --foreground) foreground=1 ;;
		-*) helps "$1"; die "there is no flag $1" "$0 -h" 2 ;;
		*) ifaces+=("$1") ;;
		esac
		shift
	done
	[ ${#ifaces[@]} -eq 1 ] || die "up wants one interface, ${#ifaces[@]} given" "$0 -h" 2
	iface=${ifaces[0]}
	is_name "$iface"
	for fd in /proc/"$BASHPID"/fd/*; do # whatever else we were given open is not for the stages
		fd=${fd##*/}
		[ "$fd" -le 2 ] || [ "$fd" -eq 255 ] || eval "exec $fd>&-"
	done
	[ -n "$foreground" ] || { behind "${args[@]}"; return; }
	check_machine
	if [ -d "$run_dir/$iface" ]; then
		names "$iface"
		! locked || die "$iface goes through pipelines already" "$0 down $iface"
		say "undoing first what is left of an up that was killed"
		down
	fi
	check_interface "$iface"
	check_routes "$iface"
	if [ -n "$other" ]; then
		check_interface "$other"
		check_lan "$other"
	fi
	understood -in "$in"
	understood -out "$out"
	build
	names "$iface"
	hold
}

# What cannot be done safely is refused before anything is touched.

check_machine() {
	[ "$(id -u)" -eq 0 ] || die "this needs root" "sudo $0 ..."
	[ -c /dev/net/tun ] || die "no /dev/net/tun" "modprobe tun"
	local tool
	for tool in ip bridge flock setsid tc; do
		command -v "$tool" >/dev/null || die "no $tool" "install iproute2 and util-linux"
	done
	if [ "$(cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null)" = 1 ] &&
		[ -n "$(cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null; nft list ruleset 2>/dev/null)" ]; then
		die "the firewall looks into bridges here, and would see each frame twice" "sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0"
	fi
}

# is_name refuses what no interface can be called (dev_valid_name in net/core/dev.c):
# it is to be the name of a file.
is_name() {
	case $1 in
	'' | . | .. | */* | *:* | *[[:space:]]*) die "there is no interface '$1'" "ip link" 2 ;;
	*[\&\\\#\"\']*) die "'$1' would be taken apart by ip -batch" "ip link set dev '$1' name another" 2 ;;
	esac
}

check_interface() {
	local dir=/sys/class/net/$1 upper
	is_name "$1"
	[ -d "$dir" ] || die "there is no interface $1" "ip link"
	if [ -e "$dir/wireless" ] || [ -e "$dir/phy80211" ]; then
		die "$1 is wireless: an access point takes no frames but those of the station itself"
	fi
	if [ "$(<"$dir/type")" != 1 ]; then die "$1 is no Ethernet interface"; fi
	if [ -e "$dir/master" ]; then
		upper=$(basename "$(readlink "$dir/master")")
		if [ -d "$dir/master/bonding" ]; then
			die "$1 belongs to $upper already, a bond" "$0 up $upper"
		elif [[ $upper =~ ^fp(br|lan)[0-9]+$ ]]; then
			die "$1 belongs to $upper already, a bridge of ours" "$0 status"
		fi
		[ -d "$dir/master/bridge" ] && upper+=" already, a bridge" || upper+=" already"
		die "$1 belongs to $upper" "ip link set $1 nomaster"
	fi
	[ ! -d "$dir/bridge" ] || die "$1 is a bridge, and a bridge cannot be a port of another"
	for upper in "$dir"/upper_*; do
		[ ! -e "$upper" ] || die "${upper##*/upper_} stands on $1, and its traffic would not go through the pipeline" "take it away first"
	done
	(($(<"$dir/flags") & 1)) || die "$1 is down" "ip link set $1 up"
}

check_routes() {
	local weird
	weird=$(ip route show table all; ip -6 route show table all)
	if grep -Eq "nexthop .*dev $1 |nhid .*dev $1 " <<<"$weird "; then
		die "a route has several next hops, one of them through $1, and would not come back as it was"
	fi
	weird=$(grep -E "^local .* dev $1 " <<<"$weird " | grep -v ' proto kernel ' | head -n 1)
	[ -z "$weird" ] || die "this would be lost: ${weird%% }" "ip route add ${weird%% dev *} dev lo, which is as good"
	# Not with grep -q: what is still writing when that has seen enough fails.
	[ -z "$(look -6 addr show dev "$1" dadfailed)" ] ||
		die "$1 has an address that somebody else has" "ip -6 addr show dev $1 dadfailed"
}

check_lan() {
	[ "$1" != "$iface" ] || die "-lan $1: that is the interface itself" "" 2
	if [ -n "$(look -o addr show dev "$1" scope global)" ]; then
		die "-lan $1: it has addresses of its own, so that this machine routes between the two, and a bridge would make one network of them" "leave out -lan: what the machine forwards through $iface goes through the pipelines anyway"
	fi
}

# behind does it all in the background, away from this terminal, and waits until it
# stands or has failed.
behind() {
	local log pid state=$run_dir/$iface
	log=$(mktemp) || exit 1
	exec 4<"$log"
	exec 5>"$log"
	rm -f "$log" # so that it goes with us, whatever ends us
	PIPELINE_BACKGROUND=1 setsid bash "$self" up -foreground "$@" </dev/null >&5 2>&1 4<&- 5>&- &
	pid=$!
	trap 'kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; cat <&4 >&2; exit 130' INT TERM HUP
	until [ -e "$state/ready" ] && [ "$(cat "$state/pid" 2>/dev/null)" = "$pid" ]; do
		if ! kill -0 "$pid" 2>/dev/null; then
			wait "$pid"
			local status=$?
			cat <&4 >&2
			exit "$status"
		fi
		sleep 0.1
	done
	cat <&4 >&2
}

keeper='' # the process that makes and keeps

# hold has everything made and kept running, and undoes it in the end, however that
# comes. What makes and keeps is a process of its own, so that this one only waits:
# bash runs a trap reliably there, and not in the middle of a read or an expansion.
hold() {
	local asked='' status
	notify=${NOTIFY_SOCKET-} background=${PIPELINE_BACKGROUND-}
	unset NOTIFY_SOCKET PIPELINE_BACKGROUND # they are nobody's
	unprivileged "$user"
	claim
	trap 'asked=1; [ -z "$keeper" ] || kill -KILL -- "-$keeper" 2>/dev/null' INT TERM HUP
	trap 'left' EXIT # and at signals that kill, such as the ABRT of systemd's watchdog
	set -m
	keep &
	keeper=$!
	set +m
	{ # without bash's remark that it was killed
		[ -z "$asked" ] || kill -KILL -- "-$keeper"
		while wait "$keeper"; status=$?; kill -0 "$keeper"; do :; done
		settled # what it was about to do to the devices is done or not
	} 2>/dev/null
	keeper=''
	[ -n "$asked" ] || exit "$status"
	[ ! -e "$state/ready" ] || exit 0
	exit 130 # it did not come to stand
}

# left is the end of hold: nobody keeps anything running any more, and it is undone.
left() {
	[ -z "$keeper" ] || { kill -KILL -- "-$keeper"; wait "$keeper"; settled; } 2>/dev/null
	if [ -n "$background" ] && [ -e "$state/ready" ]; then exec >>"$state/up.log" 2>&1; fi
	[ -e "$state/leave" ] || fresh=1 undo
}

# keep makes everything and keeps it running.
keep() {
	set +m
	note
	devices || die "cannot make the devices"
	in="tunread $net | ${in:+$in | }tunwrite $host" out="tunread $host | ${out:+$out | }tunwrite $net"
	printf '%s\n' "$in" >"$state/in"
	printf '%s\n' "$out" >"$state/out"
	local name now
	for name in in out; do
		: >"$state/$name.restarts"
		launch "$name"
	done
	alive || { tail -n 5 "$state"/*.log | printable >&2; die "the pipelines do not run"; }
	local gateway answering
	answering=$(for gateway in $(gateways); do ! ask "$gateway" "$iface" 1 || echo "$gateway"; done)
	move || die "cannot move the addresses and routes of $iface"
	for gateway in $answering; do
		ask "$gateway" "$host_side" 5 && continue
		tail -n 5 "$state"/*.log | printable >&2
		die "$gateway, which answered before, does not answer through the pipelines"
	done
	say "$iface goes through the pipelines; its addresses are on $host_side, messages in $state/*.log"
	if [ "$confirm" -gt 0 ]; then
		say "$0 confirm keeps it; without that it is undone in $confirm seconds"
		clock
		echo $((now / 1000 + confirm)) >"$state/until"
	fi
	: >"$state/ready"
	tell --ready "--status=both pipelines run"
	exec >>"$state/up.log" 2>&1 || exit 1
	supervise
}

# tell tells systemd, if that is who asked, how it stands: systemd-notify(1).
tell() { [ -z "${notify-}" ] || NOTIFY_SOCKET=$notify systemd-notify "$@"; }

# claim takes the state directory.
claim() {
	seize 1 || die "$iface is being dealt with by somebody else"
	mkdir "$state" || exit 1
	echo $$ >"$state/pid"
	cat "/sys/class/net/$iface/ifindex" >"$state/number"
	lan=$other
}

# seize takes the lock of an interface, of which there is one holder at a time.
seize() {
	mkdir -p "$run_dir" && chmod 0700 "$run_dir" || exit 1
	exec 9>"$run_dir/$iface.lock"
	flock -w "$1" 9
}

# locked tells whether somebody keeps it running. A child of one that was killed
# may hold the lock for a moment longer, and what was killed has no command line.
locked() {
	[ -e "$run_dir/$iface.lock" ] && ! flock -n "$run_dir/$iface.lock" true &&
		{ [[ $(tr '\0' ' ' <"/proc/$(<"$state/pid")/cmdline") == *' up '* ]]; } 2>/dev/null
}

# note writes down what there is: as the kernel tells it, to be given back to it,
# and as text, to be moved and compared.
note() {
	local f table now
	clock
	echo $((now / 1000)) >"$state/time"
	[ -z "$lan" ] || printf '%s\n' "$lan" >"$state/lan"
	look -o addr show dev "$iface" >"$state/addresses"
	{ routes 4 "$iface"; routes 6 "$iface"; } >"$state/routes"
	ip -4 addr save dev "$iface" >"$state/addr4" || exit 1
	ip -6 addr save dev "$iface" | reverse >"$state/addr6" || exit 1
	while read -r f table; do
		ip "-$f" route save table "$table" dev "$iface" >"$state/route$f.$table" || exit 1
	done < <(tables)
	{
		look neigh show nud permanent dev "$iface" | grep -v ' NOARP'
		look neigh show proxy dev "$iface"
	} >"$state/neighbours"
	{ command -v ethtool >/dev/null && ethtool -k "$iface" 2>/dev/null; } | grep -x 'large-receive-offload: on' >"$state/lro"
	looks "$iface" >"$state/looks"
	cat "/proc/sys/net/ipv6/conf/$iface/accept_dad" >"$state/dad" 2>/dev/null || rm -f "$state/dad"
}

# moving prints those of ip -o addr that the interface does not keep. It keeps
# its link-local address, which means nothing anywhere else.
moving() { grep -v ' inet6 .* scope link '; }

# reverse turns round what ip -6 addr save writes: of the addresses of one scope,
# the kernel puts the newest first. A magic number, and then netlink messages,
# whose length, a multiple of 4, stands first in them.
reverse() {
	local dump=$state/dump at=4 size length all=()
	cat >"$dump" && size=$(stat -c %s "$dump") || return
	while [ "$at" -lt "$size" ]; do
		length=$(od -A n -t u4 -j "$at" -N 4 "$dump")
		length=$(((length + 3) / 4 * 4))
		[ "$length" -ge 16 ] || return
		at=$((at + length))
		all=("$at $length" "${all[@]}")
	done
	head -c 4 "$dump"
	# Not the other way round: tail would fail if it wrote on when head has enough.
	for at in "${all[@]}"; do head -c "${at% *}" "$dump" | tail -c "${at#* }"; done
}

# tables prints the address families and tables in which there are routes.
tables() { sed -nE 's/^([46]) .* table ([^ ]+) .*/\1 \2/p' "$state/routes" | sort -u; }

# look is ip, without what it has to say of network namespaces that others have
# taken away.
look() { ip "$@" 2>/dev/null; }

# routes 4|6 DEVICE prints the routes through a device, as ip route takes them.
routes() {
	look "-$1" -d route show table all dev "$2" |
		grep -Ev '^(local|broadcast|anycast|multicast) ' |
		sed -E "s/ (linkdown|dead)\b//g; s/ expires ([0-9]+)sec/ expires \1/; s/^/$1 /; s/ *$//"
}

# looks prints what has to be the same before and after.
looks() {
	local ra
	ra=$(advertised "$1")
	{
		look -o link show dev "$1" | sed -E 's/ (qlen|state) [^ ]+//g'
		look -d -o addr show dev "$1" | grep -v ' temporary '
		routes 4 "$1" | sort
		routes 6 "$1" | sort
	} | lasting | sed -E 's/(valid_lft|preferred_lft) [0-9]+sec/\1 some/g; s/ (tentative|optimistic)\b//g; s/ +/ /g'
}

# devices makes the taps and bridges, those that are not there. Nothing goes
# through them yet.
devices() {
	local mtu new=''
	mtu=$(<"/sys/class/net/$iface/mtu")
	if [ -n "$lan" ]; then host_side=$lan_bridge; else host_side=$host; fi
	there "$host_side" || new=1
	there "$bridge" || new_bridge "$bridge" || return
	there "$net" || new_tap "$net" "$mtu" || return
	there "$host" || new_tap "$host" "$mtu" || return
	ip link set "$net" master "$bridge" up || return
	if [ -n "$lan" ]; then
		there "$lan_bridge" || new_bridge "$lan_bridge" || return
		ip link set "$host" master "$lan_bridge" up || return
	fi
	[ -n "$new" ] || return 0
	cable "$host_side" &&
		ip link set "$host_side" address "$(<"/sys/class/net/$iface/address")" mtu "$mtu" up || return
	# The host's side behaves as the interface did: forwarding, filters, router
	# advertisements.
	local f value
	for f in /proc/sys/net/ipv6/conf/"$iface"/disable_ipv6 /proc/sys/net/ipv[46]/conf/"$iface"/*; do
		case ${f##*/} in addr_gen_mode | stable_secret | mtu) continue ;; esac
		read -r value <"$f" && echo "$value" >"${f/"/$iface/"/"/$host_side/"}"
	done 2>/dev/null
	return 0
}

there() { [ -d "/sys/class/net/$1" ]; }

# belongs PORT BRIDGE
belongs() { [[ $(readlink "/sys/class/net/$1/master") = */"$2" ]]; }

# A bridge that passes on everything it may, link-local frames too, with an
# address of its own, lest it take the interface's.
new_bridge() {
	ip link add "$1" type bridge stp_state 0 mcast_snooping 0 group_fwd_mask 65528 &&
		ip link set "$1" address "$(<"/sys/class/net/$1/address")" && cable "$1" &&
		quiet "$1" && ip link set "$1" up
}

# cable has a device make no address for itself, where there is IPv6 at all.
cable() { [ ! -d "/proc/sys/net/ipv6/conf/$1" ] || ip link set "$1" addrgenmode none; }

# A short transmit queue keeps what waits in it short: super-frames have 64 KiB.
new_tap() {
	ip tuntap add dev "$1" mode tap user "$user" multi_queue vnet_hdr &&
		ip link set "$1" mtu "$2" txqueuelen 128 && quiet "$1"
}

# quiet keeps a device that is only a cable from talking IPv6.
quiet() {
	[ ! -d "/proc/sys/net/ipv6/conf/$1" ] || [ "$1" = "$host" ] && [ -z "$lan" ] || [ "$1" = "$lan_bridge" ] ||
		echo 1 >"/proc/sys/net/ipv6/conf/$1/disable_ipv6"
}

# move leads the traffic through the pipelines.
move() {
	: >"$state/moved" || return
	{
		moving <"$state/addresses" | awk '{ print "addr del", $4, ($5 == "peer" ? "peer " $6 : ""), "dev", $2 }'
		echo "link set $iface master $bridge"
	} | ip -force -batch - 2>/dev/null # the kernel may have taken a secondary one along
	# IPv6 routes outlive the addresses, and would be next hops beside the new
	# ones.
	sed -n 's/^6 //p' "$state/routes" | grep -v ' fe80::/64 ' | sed "s/ expires [0-9]*//; s/^/route del /; s/\$/ dev $iface/" | ip -6 -force -batch - 2>/dev/null
	[ -z "$(look -o addr show dev "$iface" | moving)" ] && join || return
	settle "$host_side" 0
	local missing ra
	ra=$(advertised "$host_side")
	missing=$(comm -23 <(carried <"$state/addresses") <(look -o addr show dev "$host_side" | carried))
	missing+=$(comm -23 <(lasting <"$state/routes" | sort) <({ routes 4 "$host_side"; routes 6 "$host_side"; } | lasting | sort))
	[ -z "$missing" ] || { cat "$state/up.log" >&2; say "these did not move: $missing"; return 1; }
}

# join makes IFACE, and IFACE2, ports of the bridges.
join() {
	ip link set "$iface" master "$bridge" || return
	# Multicast would go the old way.
	ip -6 route del multicast ff00::/8 dev "$iface" table local 2>/dev/null
	# The bridge takes frames to the addresses of its ports for itself. These are
	# for the host, behind the other port.
	bridge fdb show dev "$iface" | sed '/ permanent/!d; / self/d' | while read -r mac rest; do
		case $rest in
		*" vlan "*) rest=${rest#*vlan }; echo "fdb del $mac dev $iface vlan ${rest%% *} master" ;;
		*) echo "fdb del $mac dev $iface master" ;;
		esac
	done | bridge -batch - || return
	[ -z "$lan" ] || ip link set "$lan" master "$lan_bridge"
}

# settle DEVICE AGE gives a device the addresses and routes that were noted so many
# seconds ago, those first that others go through: routes of IPv4 may lead through an
# address of IPv6.
settle() {
	local f
	for f in 4 6; do
		grep -E "^[^ ]+ +[^ ]+ +inet${f#4} " "$state/addresses" | { if [ "$f" = 6 ]; then tac; else cat; fi; } | words add "$1" "$2" |
			ip "-$f" -force -batch - 2>&1 >/dev/null | remarks >>"$state/up.log"
	done
	for f in 4 6; do
		{
			{ grep -v ' via ' "$state/routes"; grep ' via ' "$state/routes"; } | aged "$2" "$1" | sed -n "s/^$f /route append /; T; s/\$/ dev $1/p"
			neighbours "$f" "$1"
		} | ip "-$f" -force -batch - 2>&1 >/dev/null | remarks >>"$state/up.log"
	done
	return 0 # what is missing is found out
}

# remarks leaves out, of what ip -batch has to say, that something is there already.
remarks() { sed -E '/^(RTNETLINK answers: File exists|Error: .* already assigned\.)$/{$!N;d}'; }

# aged AGE DEVICE turns routes of so many seconds ago into what is left of them. Of a router
# that advertises itself the kernel has a default route, and if somebody else makes the
# same one it takes no advertisement of that router any more (ndisc_router_discovery in
# net/ipv6/ndisc.c): ours comes after it.
aged() {
	awk -v age="$1" -v ra="$(advertised "$2")" '{
		for (i = 1; i < NF; i++) {
			if ($i == "expires" && ($(i + 1) -= age) <= 0) next
			if ($i == "metric" && ra && / default via .* proto ra /) $(i + 1)++
		}
	} 1'
}

# advertised DEVICE prints 1 if the kernel takes router advertisements there.
advertised() {
	local conf=/proc/sys/net/ipv6/conf/$1
	case $(cat "$conf/accept_ra" "$conf/forwarding" 2>/dev/null | paste -sd ' ') in
	'1 0' | '2 '*) echo 1 ;;
	esac
}

# lasting leaves out, of routes, the default ones that the kernel makes of router
# advertisements by itself, and when others expire.
lasting() { sed -E "${ra:+/ default via .* proto ra /d; }s/ expires [0-9]+//"; }

# neighbours 4|6 DEVICE prints the permanent neighbours, and those that it answers for,
# as commands for ip -batch.
neighbours() {
	local to rest
	while read -r to rest; do
		if [[ $to = *:* ]]; then [ "$1" = 6 ]; else [ "$1" = 4 ]; fi || continue
		case $rest in
		proxy*) echo "neigh replace proxy $to dev $2" ;;
		*) echo "neigh replace $to ${rest%% PERMANENT*} nud permanent dev $2" ;;
		esac
	done <"$state/neighbours"
}

# carried prints the addresses of ip -o addr, sorted.
carried() { awk '{ print $3, $4 }' | sort; }

# words VERB DEVICE AGE turns ip -o addr into commands for ip -batch, with what
# is left of lifetimes after so many seconds, those of which nothing is left but for.
words() {
	local line word family verb=$1 device=$2 age=$3 command left
	while read -r _ _ family line; do
		line=${line//\\/ }
		command="addr $verb" left=1
		set -f
		# shellcheck disable=SC2086 # words
		set -- $line
		set +f
		command+=" $1"
		shift
		while [ $# -gt 0 ]; do
			word=$1
			shift
			case $word in
			peer | brd | scope | metric) command+=" $word $1"; shift ;;
			noprefixroute | home | mngtmpaddr | autojoin) command+=" $word" ;;
			valid_lft | preferred_lft)
				if [ "$1" != forever ]; then
					left=$((${1%sec} - age))
					command+=" $word $((left > 0 ? left : 0))"
				fi
				[ "$word" = preferred_lft ] || [ "$left" -gt 0 ] || continue 2
				shift ;;
			esac
		done
		# Nobody else has these: no need to wait for somebody to object.
		[ "$family$verb" != inet6add ] || command+=" nodad"
		echo "$command dev $device"
	done
}

# gateways prints that of IPv4 and that of IPv6.
gateways() {
	local f
	for f in 4 6; do
		sed -nE "s/^$f unicast default via ([^ ]+) .*table main .*/\1/p" "$state/routes" | head -n 1
	done
}

# ask GATEWAY DEVICE TIMES tells whether it answers.
ask() {
	local i to=$1
	case $1 in fe80:*) to+=%$2 ;; esac
	for ((i = 0; i < $3; i++)); do
		ping -n -c 1 -W 1 "$to" >/dev/null 2>&1 && return
	done
	return 1
}

# launch IN|OUT starts a pipeline, as it was noted.
launch() {
	local line source stages sink
	line=$(<"$state/$1")
	source=${line%% | *} sink=${line##* | }
	stages=${line#"$source | "} stages=${stages%"$sink"}
	start "$1" "$source" "${stages% | }" "$sink" >/dev/null 2>>"$state/$1.log"
	group[$1]=${jobs_running[-1]}
	echo "${group[$1]}" >"$state/$1.group"
	jobs_running=("${group[@]}") # not those that have ended, whose numbers others may have by now
}

# alive waits until both taps have somebody at each end, and looks whether that
# lasts.
alive() {
	local i
	for i in {1..100}; do
		! carriers || break
		sleep 0.05
	done
	sleep 0.3
	[ "$i" -lt 100 ] && running in && running out
}

# carriers tells whether both taps have somebody who reads them.
carriers() { [ "$(cat "/sys/class/net/$net/carrier" "/sys/class/net/$host/carrier" 2>/dev/null)" = $'1\n1' ]; }

running() { kill -0 "${group[$1]}" 2>/dev/null; }

# supervise starts a pipeline again that has ended or hangs, makes devices again that
# have gone, and ends if nobody confirms, or if the process that would undo it has gone.
supervise() {
	local since beat name missing='' broken=0 now
	local -A fails=([in]=0 [out]=0) next=() begun=() reads=() drops=() stuck=([in]=0 [out]=0)
	clock
	since=$now beat=$((now / 1000)) begun=([in]=$now [out]=$now)
	# A read that finds nothing is a sleep without a process. As long as nothing happens,
	# what is done more often than once a second starts none either.
	exec 8<> <(:)
	while :; do
		read -r -t 0.1 -u 8
		kill -0 $$ 2>/dev/null || exit
		clock
		if [ "$confirm" -gt 0 ]; then
			if [ -e "$state/confirmed" ]; then
				confirm=0
				say "confirmed"
			elif [ $((now - since)) -ge $((confirm * 1000)) ] && mv "$state/until" "$state/expired" 2>/dev/null; then
				say "not confirmed: undone"
				exit 1
			fi
		fi
		if [ $((now / 1000)) -ne "$beat" ]; then
			beat=$((now / 1000))
			whole || mend
			unstick in "$net"
			unstick out "$host"
			[ $((beat % 5)) -ne 0 ] || [ -z "${WATCHDOG_USEC-}" ] || tell WATCHDOG=1
			[ ! -e "$state/open" ] || check_open
			[ ! -e "$state/open" ] || close_again
			trim
		fi
		for name in in out; do
			if [ -z "${next[$name]-}" ]; then
				! running "$name" || continue
				ended "$name"
			fi
			[ "$now" -ge "${next[$name]}" ] || continue
			unset "next[$name]"
			[ ! -e "$state/$name.pause" ] || rm -f "$state/$name.pause"
			launch "$name"
			clock
			begun[$name]=$now
			echo x >>"$state/$name.restarts"
		done
	done
}

# clock sets now to the time since the machine has started, in milliseconds. The time of
# day may be set, and what waits for it would come an hour late, or at once: no use of
# date, SECONDS or EPOCHREALTIME to measure anything.
clock() {
	local up
	read -r up _ </proc/uptime
	now=$((10#${up/./} * 10))
}

# since FILE prints how many seconds ago the time was that is noted in the state.
since() {
	local now
	clock
	echo $((now / 1000 - $(<"$state/$1")))
}

# whole reports whether all devices are there, and in their bridges.
whole() {
	local ports=/sys/class/net/$bridge/brif lan_ports=/sys/class/net/$lan_bridge/brif
	[ -e "$ports/$iface" ] && [ -e "$ports/$net" ] && there "$host" &&
		{ [ -z "$lan" ] || { [ -e "$lan_ports/$lan" ] && [ -e "$lan_ports/$host" ]; }; }
}

# mend makes again what has gone of the devices, with the addresses and routes that
# were noted. An interface it can only wait for; that is then a port of the bridge
# again.
mend() {
	local dev gone='' masters name
	settled # what /sys shows may be half of what somebody is doing to the devices
	for dev in "$iface" ${lan:+"$lan"}; do
		masters=$(readlink "/sys/class/net/$dev/master")
		case ${masters##*/} in
		"$bridge" | "$lan_bridge" | '') there "$dev" || gone+=" $dev" ;;
		*) gone+=" $dev (it belongs to ${masters##*/})" ;;
		esac
	done
	if [ -n "$gone" ]; then
		[ "$gone" = "$missing" ] || loud "GONE:$gone; nothing passes until it is back"
		missing=$gone
		return
	fi
	for dev in "$bridge" "$net" "$host" ${lan:+"$lan_bridge"}; do there "$dev" || gone+=" $dev"; done
	[ -z "$gone" ] || [ ! -e "$state/open" ] || close_now
	for dev in "$iface" ${lan:+"$lan"}; do
		[ -e "/sys/class/net/$dev/master" ] || { ip link set "$dev" up && ip addr flush dev "$dev" scope global; } || return
	done
	if ! devices || ! join; then
		# What it had is given to one that is made, and not to one that is there.
		case "$gone " in *" $host_side "*) ip link del "$host_side" 2>/dev/null ;; esac
		((++broken < 5)) && return # somebody may be at it still
		loud "the devices cannot be made again: undone"
		exit 1
	fi
	broken=0
	if ! cmp -s "/sys/class/net/$host_side/address" "/sys/class/net/$iface/address"; then
		# Another card. The neighbours are told.
		echo 1 >"/proc/sys/net/ipv4/conf/$host_side/arp_notify"
		ip link set "$host_side" address "$(<"/sys/class/net/$iface/address")"
		cat "/proc/sys/net/ipv4/conf/$iface/arp_notify" >"/proc/sys/net/ipv4/conf/$host_side/arp_notify"
	fi
	case "$gone " in *" $host_side "*) settle "$host_side" "$(since time)" ;; esac
	if [ -n "$gone" ]; then
		loud "MADE AGAIN:$gone, with the addresses and routes that were noted when it came up"
		for name in in out; do # which had the old ones
			fails[$name]=0
			if [ -n "${next[$name]-}" ]; then next[$name]=$now; else kill -KILL -- "-${group[$name]}" 2>/dev/null; fi
		done
	else
		loud "back in the bridges: $iface${lan:+, $lan}"
	fi
	missing=''
}

# settled asks a question that waits until whoever is doing something to devices has
# done: the kernel's rtnl_lock.
settled() { ip link show dev lo >/dev/null 2>&1; }

# loud says something that whoever looks at any of the logs, or at systemctl
# status, is to see.
loud() {
	tell "--status=$1"
	both in "$1"
	say "$1" 2>>"$state/out.log"
}

# both NAME TEXT says something in the log of up and in that of a pipeline.
both() { say "$2"; say "$2" 2>>"$state/$1.log"; }

# ended says that a pipeline has ended, and when it is started again: at once, but
# if it ended within its first 0.3 s for the third time in a row, after a pause that
# doubles each time, up to a minute.
ended() {
	local pause=0
	wait "${group[$1]}"
	local status=$?
	kill -KILL -- "-${group[$1]}" 2>/dev/null
	rm -f "$state/$1.group" # whose number somebody else may have by and by
	whole || mend # it may have ended of that
	if [ $((now - begun[$1])) -lt 300 ]; then fails[$1]=$((fails[$1] + 1)); else fails[$1]=0; fi
	[ "${fails[$1]}" -lt 3 ] || pause=$((fails[$1] > 8 ? 60 : 1 << (fails[$1] - 3)))
	next[$1]=$((now + pause * 1000))
	if [ "$pause" -eq 0 ]; then
		both "$1" "the pipeline $1 has ended with status $status, and is started again"
		return
	fi
	both "$1" "the pipeline $1 has ended with status $status, at once, for the ${fails[$1]}. time: it is tried again in $pause s"
	echo "it ends over and over, ${fails[$1]} times by now; tried again at $(date +%T -d "+$pause seconds")" >"$state/$1.pause"
	if [ "$fail" = open ] && [ ! -e "$state/open" ]; then past; fi
}

# unstick NAME TAP ends a pipeline in which a stage hangs: for three seconds the
# queue of its tap overflowed, and nothing was read from it. A stage that somebody
# has stopped is told to go on.
unstick() {
	local reads_now drops_now
	[ -z "${next[$1]-}" ] || return
	kill -CONT -- "-${group[$1]}" 2>/dev/null
	{
		read -r reads_now <"/sys/class/net/$2/statistics/tx_packets" &&
			read -r drops_now <"/sys/class/net/$2/statistics/tx_dropped"
	} 2>/dev/null || return
	if [ "$reads_now" = "${reads[$1]-}" ] && [ "$drops_now" != "${drops[$1]-}" ]; then
		stuck[$1]=$((stuck[$1] + 1))
	else
		stuck[$1]=0
	fi
	reads[$1]=$reads_now drops[$1]=$drops_now
	if [ "${stuck[$1]}" -ge 3 ]; then
		stuck[$1]=0
		both "$1" "the pipeline $1 hangs: the queue of $2 is full, and nobody reads it"
		kill -KILL -- "-${group[$1]}" 2>/dev/null
	fi
}

# past leads the traffic past the pipelines: what one tap is to send, the kernel
# takes for received by the other. Somebody has to hold the taps, or they have no
# carrier.
past() {
	local from=$net to=$host
	for _ in 1 2; do
		if ! tc qdisc add dev "$from" clsact ||
			! tc filter add dev "$from" egress protocol all prio 1 u32 match u32 0 0 action mirred ingress redirect dev "$to"; then
			say "the traffic cannot be led past the pipelines: it stands still"
			close_now
			return
		fi
		from=$host to=$net
	done
	apart bash -c "tunread $net & exec tunread $host" </dev/null >/dev/null
	holders=$!
	echo "$holders" >"$state/past.group"
	for _ in {1..40}; do
		! carriers || break
		sleep 0.05
	done
	echo $((now / 1000)) >"$state/open"
	check_open && loud "OPEN: the traffic goes past the pipelines, unshaped"
}

# check_open looks whether somebody holds the taps. If not, nothing passes there, either.
check_open() {
	carriers && return
	close_now
	loud "the traffic cannot go past the pipelines, as tunread does not run: it stands still"
	return 1
}

close_now() {
	local dev
	for dev in "$net" "$host"; do tc qdisc del dev "$dev" clsact 2>/dev/null; done
	[ -z "${holders-}" ] || kill -KILL -- "-$holders" 2>/dev/null
	holders='' # whose number somebody else may have by and by
	rm -f "$state/open" "$state/past.group"
}

# close_again leads the traffic through the pipelines again, when both have been
# there for three seconds.
close_again() {
	local name
	for name in in out; do
		[ -z "${next[$name]-}" ] && running "$name" && [ $((now - begun[$name])) -ge 3000 ] || return
	done
	close_now
	begun=([in]=$now [out]=$now) # from now on they have traffic to deal with
	loud "closed: the traffic goes through the pipelines again"
}

# trim keeps the logs from filling the memory they live in.
trim() {
	local f
	while read -r f; do
		tail -c 262144 "$f" >"$f.old"
		: >"$f"
	done < <(find "$state" -name '*.log' -size +1024k)
}

fresh='' # whether those who were started are known for sure

# undo puts everything back. It may be called at any point, by anybody, and
# again.
undo() {
	trap '' INT TERM HUP PIPE # nor if nobody reads what it says
	[ -d "$state" ] || return 0
	local f elsewhere differs now_addresses now_routes
	if [ -e "$state/moved" ] && [ -d "/sys/class/net/$iface" ]; then
		elsewhere=$(comm -13 <(carried <"$state/addresses") <({ look -o addr show dev "$host"; look -o addr show dev "$lan_bridge"; } 2>/dev/null | carried))
		[ -z "$elsewhere" ] || say "the host's side had other addresses by now, which are gone: $elsewhere"
		f=$(host_side)
		now_addresses=$(look -o addr show dev "$f")
		now_routes=$(routes 4 "$f"; routes 6 "$f")
		ip link del "$host" 2>/dev/null
		[ -z "$lan" ] || ! belongs "$lan" "$lan_bridge" || ip link set "$lan" nomaster
		ip link del "$lan_bridge" 2>/dev/null
		! belongs "$iface" "$bridge" || ip link set "$iface" nomaster
		ip link set "$iface" up # or it takes no routes
		# What is there already is no error. Where it would be said there must be room, or
		# ip ends there.
		restore "$(since time)" 2>/dev/null
		[ ! -s "$state/lro" ] || ethtool -K "$iface" lro on 2>/dev/null
		if ! differs=$(diff "$state/looks" <(looks "$iface")); then
			say "$iface is not quite as it was (< before, > now):"
			printf '%s\n' "$differs" >&2
		fi
	elif [ -e "$state/moved" ]; then
		say "there is no $iface that could have its addresses and routes back: $(carried <"$state/addresses" | paste -sd ,)"
	fi
	stop
	for f in {1..40}; do # those that somebody else has started drain, too
		[ -n "$(processes)" ] || break
		sleep 0.05
		end_sources
	done
	processes | xargs -r kill -KILL 2>/dev/null
	# A stage may have written over its environment. Whoever kept it running was there
	# until now, so that the numbers are theirs.
	for f in ${fresh:+"$state"/*.group}; do
		[ ! -s "$f" ] || kill -KILL -- "-$(<"$f")" 2>/dev/null
	done
	for f in "$host" "$net" "$bridge" "$lan_bridge"; do
		[ ! -d "/sys/class/net/$f" ] || ip link del "$f"
	done
	if [ -e "$state/ready" ]; then mv "$state/up.log" "$state.log" 2>/dev/null; fi
	rm -rf "$state"
}

# restore gives the kernel back what it told, and then what is left of lifetimes: as
# the host's side has them by now, where somebody may have renewed them, or else of
# those that were noted. What has expired is taken away again.
restore() {
	local f table left line waits='' dad=/proc/sys/net/ipv6/conf/$iface/accept_dad
	# Nobody else has the addresses: they need not wait for somebody to object.
	if [ -e "$dad" ]; then
		waits=$(cat "$state/dad" 2>/dev/null || cat "$dad")
		echo 0 >"$dad"
	fi
	if [ "$(<"/sys/class/net/$iface/ifindex")" = "$(<"$state/number")" ]; then
		ip -4 addr restore <"$state/addr4"
		ip -6 addr restore <"$state/addr6"
		while read -r f table; do ip "-$f" route restore <"$state/route$f.$table"; done < <(tables)
	else # it was taken away and came back: the kernel would not know it again
		settle "$iface" "$1"
	fi
	ip -6 route append multicast ff00::/8 dev "$iface" table local proto kernel metric 256
	for f in 4 6; do
		{
			lifetimes "inet${f#4}" "$1"
			expiries "$f" "$1"
			neighbours "$f" "$iface"
		} | ip "-$f" -force -batch -
	done
	for f in {1..20}; do
		[ -n "$(look -6 -o addr show dev "$iface" tentative)" ] || break
		sleep 0.05
	done
	[ -z "$waits" ] || echo "$waits" >"$dad"
}

# lifetimes inet|inet6 AGE prints what restores those of addresses, as commands for
# ip -batch.
lifetimes() {
	local line address now
	grep -E "^[^ ]+ +[^ ]+ +$1 .*[0-9]sec" "$state/addresses" | while read -r line; do
		read -r _ _ _ address _ <<<"$line"
		now=$(grep -F " $1 $address " <<<"$now_addresses" | head -n 1)
		if [ -n "$now" ]; then
			now=$(words change "$iface" 0 <<<"$now")
		else
			now=$(words change "$iface" "$2" <<<"$line")
		fi
		echo "${now:-addr del $address dev $iface}"
	done
}

# expiries 4|6 AGE prints what restores those of routes, likewise.
expiries() {
	local family=$1 age=$2 line before after gateway left other ra
	ra=$(advertised "$iface")
	sed -n "s/^$family //p" "$state/routes" | while read -r line; do
		[[ $line =~ ^(.*)\ expires\ ([0-9]+)(.*)$ ]] || continue
		before=${BASH_REMATCH[1]} after=${BASH_REMATCH[3]} left=$((BASH_REMATCH[2] - age)) gateway=''
		if [ -n "$ra" ] && [[ $before =~ \ default\ via\ ([^ ]+)\ .*proto\ ra\  ]]; then gateway=${BASH_REMATCH[1]}; fi
		other=$(sed -n "s/^$family //p" <<<"$now_routes" | if [ -n "$gateway" ]; then
			grep -F " default via $gateway " | grep -F ' proto ra '
		else
			grep -E "^${before//./\\.}( expires [0-9]+)?${after//./\\.}\$"
		fi | sed -E 's/.* expires ([0-9]+).*/\1/; t; s/.*/forever/' | sort -n | tail -n 1)
		[ -z "$other" ] || left=$other
		[ -z "$gateway" ] || echo "route del $before$after dev $iface"
		if [ "$left" = forever ]; then
			echo "route replace $before$after dev $iface"
		elif [ "$left" -gt 0 ]; then
			echo "route replace $before expires $left$after dev $iface" | aged 0 "$iface"
		else
			echo "route del $before$after dev $iface"
		fi
	done
}

# processes prints the numbers of the processes of these pipelines, whoever
# started them.
processes() {
	grep -lzFxs "PIPELINE_STATE=$state" /proc/[0-9]*/environ | sed 's/[^0-9]//g'
}

# each COMMAND [IFACE] runs a command for the interface, or for all there are.
each() {
	local command=$1 dir found='' status=0
	shift
	helps "$@"
	[ "$(id -u)" -eq 0 ] || die "this needs root" "sudo $0 ..."
	[ $# -le 1 ] || die "one interface at most, $# given" "$0 -h" 2
	[ $# -eq 0 ] || is_name "$1"
	for dir in "$run_dir"/*; do
		if [ ! -d "$dir" ] || [ "$dir" != "$run_dir/${1-"${dir##*/}"}" ]; then continue; fi
		found=1
		(names "${dir##*/}"; "$command") || status=$? # one that fails is not in the way of the others
	done
	[ -n "$found" ] || die "nothing is up${1:+ on $1}"
	exit "$status"
}

down() {
	local fresh=''
	if locked; then
		: >"$state/leave" # this is where it is undone
		kill -TERM "$(<"$state/pid")" 2>/dev/null
		fresh=1
	fi
	seize 30 || die "$iface is being dealt with by somebody else"
	(undo) || exit # by itself: it ignores signals, and who comes after must not inherit that
	exec 9>&-
}

# status shows one interface, all of it or nothing.
status() {
	local all
	all=$(overview) || exit
	printf '%s\n' "$all" 2>/dev/null || die "$iface: the status cannot be written"
}

# overview prints what there is to show. What the tools count they tell when asked.
overview() {
	local held=nobody pid line name sent received memory
	local -A before after size ours=()
	if locked; then held=; fi
	while read -r pid; do
		read -r name 2>/dev/null <"/proc/$pid/comm" || continue
		case $name in
		tunread | tunwrite | quotagate | bytehist | framepcap) ours[$pid]=$name ;;
		esac
	done < <(processes)
	for name in in out; do size[$name]=$(stat -c %s "$state/$name.log" 2>/dev/null || echo 0); done
	measure before
	[ ${#ours[@]} -eq 0 ] || kill -USR1 "${!ours[@]}" 2>/dev/null
	sleep 1
	measure after
	echo "$iface: for $(age "$(since time)"), the host's side is $(host_side)"
	if [ -n "$held" ]; then
		echo "  up was killed, and nobody keeps it running: $0 down"
	elif [ -s "$state/until" ] && [ ! -e "$state/confirmed" ]; then
		echo "  undone in $((0 - $(since until))) seconds, unless confirmed: $0 confirm"
	fi
	[ ! -s "$state/open" ] || echo "  OPEN: the pipelines fail, and the traffic has gone past them, unshaped, for $(age "$(since open)")"
	for name in "$iface" "$bridge" "$net" "$host" ${lan:+"$lan_bridge" "$lan"}; do
		[ -d "/sys/class/net/$name" ] || { echo "  $name is missing"; continue; }
		line=$(<"/sys/class/net/$name/operstate")
		rate received $((after[$name.rx_bytes] - before[$name.rx_bytes]))
		rate sent $((after[$name.tx_bytes] - before[$name.tx_bytes]))
		printf '  %-10s %-8s received %12s, sent %12s\n' "$name" "$line" "$received" "$sent"
	done
	local device=$net
	for name in in out; do
		printf '\n%-4s %s\n' "$name:" "$(<"$state/$name")"
		rate sent $((after[$device.tx_bytes] - before[$device.tx_bytes]))
		printf '  %s, %s dropped in the queue of %s since it was made, %s restarts\n' \
			"$sent" "${after[$device.tx_dropped]}" "$device" "$(wc -l <"$state/$name.restarts")"
		[ ! -s "$state/$name.pause" ] || printf '  %s\n' "$(<"$state/$name.pause")"
		tail -c "+$((size[$name] + 1))" "$state/$name.log" 2>/dev/null | grep -E '^(tunread|tunwrite|quotagate|bytehist|framepcap): ([a-z_]+=|no frame)' | sed 's/^/  /' | printable
		device=$host
	done
	for pid in "${!ours[@]}"; do
		memory=''
		while read -r line memory _; do [ "$line" != VmRSS: ] || break; done 2>/dev/null <"/proc/$pid/status"
		printf '%s %s %s\n' "$pid" "${ours[$pid]}" "$memory"
	done |
		sort -n | awk 'BEGIN { printf "\nprocesses:" } { printf "%s %s (%d, %.1f MB)", (NR == 1 ? "" : ","), $2, $1, $3 / 1024 } END { print (NR ? "" : " none") }'
}

# printable leaves out what a terminal takes for commands: stages write logs, too.
printable() { LC_ALL=C tr -d '\000-\010\013-\037\177'; }

# measure NAME reads the counters of all devices into an associative array.
measure() {
	local -n into=$1
	local f d n
	for d in "$iface" "$bridge" "$net" "$host" "$lan_bridge" ${lan:+"$lan"}; do
		for f in rx_bytes tx_bytes tx_dropped; do
			{ read -r n <"/sys/class/net/$d/statistics/$f"; } 2>/dev/null || n=0
			# shellcheck disable=SC2034 # it is the caller's
			into[$d.$f]=$n
		done
	done
}

# rate NAME BYTES sets a variable to what so many bytes a second are in bits, with four
# digits.
rate() {
	local bits=$(($2 * 8)) scale=1 i=0 digits units=(bit/s kbit/s Mbit/s Gbit/s)
	while ((bits / scale >= 1000 && i < 3)); do ((scale *= 1000, ++i)); done
	digits=$((bits / scale))
	digits=$((scale == 1 || ${#digits} > 4 ? 0 : 4 - ${#digits}))
	printf -v "$1" '%d.%0*d' $((bits / scale)) "$digits" $((bits % scale * 10 ** digits / scale))
	printf -v "$1" '%s %s' "${!1%.0}" "${units[i]}"
}

age() {
	if [ "$1" -ge 86400 ]; then printf '%dd%dh' $(($1 / 86400)) $(($1 % 86400 / 3600))
	elif [ "$1" -ge 3600 ]; then printf '%dh%dm' $(($1 / 3600)) $(($1 % 3600 / 60))
	else printf '%dm%ds' $(($1 / 60)) $(($1 % 60)); fi
}

# host_side prints the device that has the addresses now.
host_side() { if [ -e "$state/lan" ]; then echo "$lan_bridge"; else echo "$host"; fi; }

confirm() {
	locked || die "$iface: nobody is there who waits for it" "$0 down $iface"
	[ -e "$state/ready" ] || die "$iface: it does not stand yet" "$0 confirm $iface, when up is done"
	mv "$state/until" "$state/confirmed" 2>/dev/null || [ ! -e "$state/expired" ] || die "$iface: the time is over, and it is being undone"
}

case ${1-} in
run | demo | up) "$@" ;;
install) shift; put "$@" ;;
down | status | confirm) each "$@" ;;
-h | --help | help) usage ;;
'') usage >&2; exit 2 ;;
*) die "there is no command $1" "$0 -h" 2 ;;
esac
