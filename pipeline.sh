#!/usr/bin/env bash
# Puts the tools together: one pipeline of processes in each direction.
set -u -o pipefail

usage() {
	cat <<'END'
usage: pipeline.sh demo
       pipeline.sh run TAP0 TAP1 [-in STAGES] [-out STAGES] [-queues N]
       pipeline.sh up IFACE [-in STAGES] [-out STAGES] [-confirm TIME]
                      [-fail open|closed] [-foreground] [-user NAME]
       pipeline.sh change [IFACE] [-in STAGES] [-out STAGES]
       pipeline.sh confirm|down [IFACE]
       pipeline.sh status [IFACE] [-watch] [-json]
       pipeline.sh install|uninstall [DIR]

demo     Shapes real TCP between two network namespaces and draws the rate as it
         changes. Takes half a minute, and leaves nothing behind.
run      Runs both pipelines between two taps, until one of them ends or a signal
         comes:
             in:   tunread TAP0 | STAGES | tunwrite TAP1
             out:  tunread TAP1 | STAGES | tunwrite TAP0
         STAGES is any shell pipeline; it finds the tools without a path.
           -queues N      N pipelines in each direction, for machines with many
                          cores. $QUEUE is the number of a stage's, from 0 on
up       Leads the frames of a network interface through both pipelines, and
         changes nothing of the interface. Needs Linux 6.6 or later.
           -confirm TIME  undo it after TIME (60s, 5m) unless confirm comes
           -fail open     while a pipeline is down, frames pass by both; closed
                          (default): the frames of its direction are lost
           -foreground    stay until a signal comes, then undo it
           -user NAME     run the stages as NAME (default: nobody), without any
                          privilege. Their files are in /var/lib/framepipe
change   Replaces the stages of a pipeline of up, while the other one runs on. If
         the new pipeline does not run, the old one stays.
confirm  Keeps what up -confirm made.
status   Shows rates, quotas, losses and restarts.
           -watch         again every second, until a signal comes
           -json          for programs, a line for each interface
down     Ends the diversion, then the pipelines. It works after up was killed, too.
install  Builds the tools, and copies them, this script, the manual pages, the
         completions and the systemd unit to DIR, by default /usr/local.
uninstall  Removes from DIR what install put there.

demo, up, and the commands about it need root. Go builds the tools where needed.

  sudo ./pipeline.sh demo
  sudo ./pipeline.sh run tap0 tap1 -in 'quotagate -rate 100Mbit/s | bytehist'
  sudo ./pipeline.sh up eth0 -confirm 60s -out 'quotagate -rate 100Mbit/s'
END
}

say() { printf 'pipeline.sh: %s\n' "$*" >&2; }
die() { say "$1"; [ -z "${2-}" ] || say "hint: $2"; exit "${3:-1}"; }
wrong() { die "$1" "$0 -h" 2; }

declare -A flag=() # what was given, by the name of the flag
args=()

# parse FLAGS LEAST MOST ARGUMENTS... sets flag and args.
parse() {
	local known=" $1 " least=$2 most=$3 name
	shift 3
	while [ $# -gt 0 ]; do
		name=${1#-} name=${name#-}
		case $1 in
		-h | --h | -help | --help) usage; exit ;;
		-*)
			[[ $known = *" $name "* ]] || wrong "there is no flag $1"
			if [[ $name =~ ^(foreground|watch|json)$ ]]; then flag[$name]=1; shift; continue; fi
			[ $# -ge 2 ] || wrong "-$name wants a value"
			flag[$name]=$2
			shift ;;
		*) args+=("$1") ;;
		esac
		shift
	done
	if [ ${#args[@]} -lt "$least" ] || [ ${#args[@]} -gt "$most" ]; then wrong "${FUNCNAME[1]}: ${#args[@]} arguments given"; fi
	for name in in out; do
		bash -n -c "${flag[$name]-}" 2>/dev/null || die "-$name: the shell does not understand ${flag[$name]}" '' 2
	done
}

self=$(readlink -f "${BASH_SOURCE[0]}") && here=${self%/*} bin=${self%/*}/bin || exit 1
tools=(tunread tunwrite tundivert quotagate bytehist framepcap quotabill)

# build makes the tools that are missing or older than their sources. They belong to the owner of
# the clone, who may want to build again without sudo. sudo may have left Go out of the PATH.
build() {
	PATH=$bin:$here:$PATH:/usr/local/go/bin:/usr/lib/go/bin
	local t need='' have
	if [ -f "$here/go.mod" ]; then
		need=$(sed -n 's/^go //p' "$here/go.mod")
		if have=$(cd "$here" && go env GOVERSION 2>/dev/null || GOTOOLCHAIN=local go env GOVERSION 2>/dev/null); then
			[ "$(printf '%s\n' "go$need" "$have" | sort -V | tail -n 1)" = "$have" ] ||
				die "Go $need or later is needed to build the tools, and ${have:-an older one} is here: https://go.dev/dl"
			# -version says the commit, which Go asks git for. git refuses a clone of another user, unless told.
			(umask 022 && cd "$here" && export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0="$here" &&
				go build -o bin/ "${tools[@]/#/./}" "$@") || die "the tools do not build"
			[ "$(id -u)" -ne 0 ] || chown -hR --reference="$here" "$bin"
		fi
	fi
	for t in "${tools[@]}"; do
		command -v "$t" >/dev/null || die "no $t, and no Go to build it${need:+, of which $need or later is needed}: https://go.dev/dl"
	done
}

# --- pipelines -------------------------------------------------------------

state=''             # a directory for the state of the pipelines
declare -A groups=() # their process groups, by name
as_user=() apart=''  # the commands that run stages as another user, and in another session

# start NAME SOURCE STAGES SINK runs SOURCE | STAGES | SINK in a process group of its own, and
# notes the process of the source: when that one ends, the others drain. It says which part failed.
start() {
	# shellcheck disable=SC2016 # the inner shell expands it
	local stages='"$@" bash -o pipefail -c "$stages" |' parts="tunread -$1 tunwrite"
	[ -n "$3" ] || stages='' parts='tunread tunwrite'
	[ -n "$apart" ] || set -m
	PIPELINE_STATE=$state $apart bash -o pipefail -c "source=\$1 stages=\$2; shift 2
		{ echo \$BASHPID >\"\$source\"; exec $2; } </dev/null | $stages $4
		status=(\"\${PIPESTATUS[@]}\") all=0
		for part in $parts; do
			[ \"\$status\" -eq 0 ] || { all=\$status; echo \"pipeline.sh: \$0: \$part has failed with status \$all\" >&2; }
			status=(\"\${status[@]:1}\")
		done
		[ \$all -ne 126 ] || [ \$# -eq 0 ] || echo 'pipeline.sh: hint: the user of the stages may not run a program in it: -user NAME' >&2
		exit \$all" \
		"$1" "$state/$1.source" "$3" "${as_user[@]}" 5<&- 8<&- 9>&- &
	groups[$1]=$!
	set +m
}

# stop ends what start began: first the sources, and after two seconds all else.
stop() {
	local name f i=0
	for name in "${!groups[@]}"; do
		for (( ; i < 40; i++)); do # all together
			for f in "$state"/*.source; do [ ! -s "$f" ] || end_source "$f"; done
			kill -0 -- "-${groups[$name]}" 2>/dev/null || kill -0 "${groups[$name]}" 2>/dev/null || break # a new one has no group yet
			sleep 0.05
		done
		kill -KILL -- "-${groups[$name]}" "${groups[$name]}" 2>/dev/null
		wait "${groups[$name]}" 2>/dev/null
	done
	groups=()
}

# end_source FILE asks the source whose number is in a file to end. It asks once: at a second
# signal the source would drop its frames. The number may belong to another process by now.
end_source() {
	local pid
	pid=$(<"$1")
	rm -f "$1"
	! grep -qzFx "PIPELINE_STATE=$state" "/proc/$pid/environ" 2>/dev/null || kill -TERM "$pid" 2>/dev/null
}

run() {
	parse 'in out queues' 2 2 "$@"
	local queues=${flag[queues]-1} asked='' a b n='' pid status=0
	[ "${args[0]}" != "${args[1]}" ] || wrong "run wants two taps, and ${args[0]} is one"
	[[ $queues =~ ^0*([1-9][0-9]?|1[01][0-9]|12[0-8])$ ]] || wrong "-queues wants a number from 1 to 128"
	for a in "${flag[in]-}" "${flag[out]-}"; do
		[ "$queues" -eq 1 ] || [[ $a != *quotagate* || $a = *-ledger* ]] ||
			die "with -queues each gate would keep a quota of its own" "quotagate ... -ledger FILE -dir in, or out" 2
	done
	trap 'asked=1; stop' INT TERM HUP # a signal ends the wait, also if it comes before that
	trap 'stop; rm -rf "$state"; [ -z "$asked" ] || exit 0' EXIT
	build
	state=$(mktemp -d "${TMPDIR:-/tmp}/pipeline.XXXXXX") || exit 1
	printf -v a %q "${args[0]}"
	printf -v b %q "${args[1]}"
	# All of a flow goes to one queue, in order, by its hash (tun_automq_select_queue in drivers/net/tun.c).
	export QUEUE
	for ((QUEUE = 0; QUEUE < 10#$queues; QUEUE++)); do
		[ "$queues" -eq 1 ] || n=$QUEUE
		start "in$n" "tunread $a" "${flag[in]-}" "tunwrite $b"
		start "out$n" "tunread $b" "${flag[out]-}" "tunwrite $a"
	done
	[ -n "$asked" ] || wait -n -p pid "${groups[@]}" || status=$? # it ends with the first pipeline
	[ -z "$asked" ] || exit
	for a in "${!groups[@]}"; do [ "${groups[$a]}" != "$pid" ] || break; done
	say "the pipeline $a has $([ "$status" -eq 0 ] && echo ended || echo failed); the other goes with it"
	exit "$status"
}

demo() {
	parse '' 0 0 "$@"
	[ -d "$here/internal/demo" ] || die "the sources are not here, and the demonstration is among them"
	# shellcheck source=internal/demo/demo.sh
	. "$here/internal/demo/demo.sh"
}

# --- up --------------------------------------------------------------------
#
#   network                                                    host
#   IFACE ══ fpnetN ── in:  tunread, STAGES, tunwrite ──▶ fphostN ══ its stack, still on IFACE
#                  ◀── out: tunwrite, STAGES, tunread ──
#
# N is the number of IFACE. tundivert joins IFACE and the taps (══). It ends when no process reads
# its stdout, and this script reads it: so if all of this is killed, frames go the way they
# went before, and there is nothing to put back.

run_dir=$(realpath -m "${PIPELINE_RUN:-/run/pipeline}")
lib_dir=$(realpath -m "${PIPELINE_LIB:-/var/lib/framepipe}") # where stages keep their files
asked=''                                                     # set by a signal

# For in, out and divert: the pipe of its messages, the size of its log, when it began, how often in
# a row it ended at once, and when to start it again if it has ended. Times are in milliseconds.
declare -A messages=([in]=3 [out]=4 [divert]=6) logged=() begun=() fails=() next=()

# names sets what the devices of an interface are called, and where its state is.
names() {
	iface=$1 state=$run_dir/$1
	set -- "$(cat "$state/number" "/sys/class/net/$1/ifindex" 2>/dev/null | head -n 1)"
	net=fpnet$1 host=fphost$1
}

up() {
	parse 'in out confirm fail foreground user' 1 1 "$@"
	local fail=${flag[fail]-closed} confirm fd
	local -A seconds=([s]=1 [m]=60 [h]=3600)
	[[ $fail =~ ^(open|closed)$ ]] || wrong "-fail wants open or closed"
	[[ ${flag[confirm]-1s} =~ ^0*([1-9][0-9]{0,5})(s|m|h)$ ]] || wrong "-confirm wants a time, such as 60s or 5m"
	confirm=$((BASH_REMATCH[1] * seconds[${BASH_REMATCH[2]}]))
	[ "$(id -u)" -eq 0 ] || die "up needs root" "sudo $0 up ..."
	[[ ${args[0]} != */* && -e /sys/class/net/${args[0]}/ifindex ]] || die "there is no interface ${args[0]}" "ip link"
	names "${args[0]}"
	! held || die "$iface is up already" "$0 change $iface -in STAGES, or $0 down $iface"
	[ -n "${flag[foreground]-}" ] || { behind "$@"; return; }
	for fd in /proc/"$BASHPID"/fd/*; do # other files that we were given open are not for the stages
		fd=${fd##*/}
		[ "$fd" -le 2 ] || [ "$fd" -eq 255 ] || eval "exec $fd>&-"
	done
	[ -c /dev/net/tun ] || die "no /dev/net/tun" "modprobe tun; a container needs --device /dev/net/tun"
	build
	unprivileged "${flag[user]-nobody}"
	seize 1 || die "$iface is up already"
	clean && names "$iface" # what an up that was killed has left
	trap 'asked=1' INT TERM HUP
	trap 'clean; [ -z "$asked" ] || exit 0' EXIT
	export FRAMEPIPE_STALL=5s FRAMEPIPE_COUNTERS=3
	make
	supervise
}

# unprivileged USER has start run stages as that user, without capabilities or a way to get any.
# That user may be kept from the tools, such as below /root, and is given their directory open.
unprivileged() {
	uid=$(id -u "$1" 2>/dev/null) || die "there is no user $1" "id $1" 2
	gid=$(id -g "$1")
	exec 7<"$(dirname "$(command -v tunread)")" || exit 1
	PATH=/proc/self/fd/7:$PATH
	command install -d -o "$uid" -g "$gid" -m 0755 "$lib_dir" && cd "$lib_dir" || exit 1
	[ "$uid" -eq 0 ] ||
		as_user=(setpriv --reuid="$uid" --regid="$gid" --clear-groups --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all)
	# In our session another user could type on our terminal (TIOCSTI). Without one, a single session
	# is faster, as the kernel shares the processors among sessions (sched(7), autogroup).
	! true 2>/dev/null </dev/tty || apart=setsid
}

# seize SECONDS takes the lock of an interface, which is held as long as it is up.
seize() {
	mkdir -p "$run_dir" && chmod 0700 "$run_dir" || exit 1
	exec 9>"$run_dir/$iface.lock"
	flock -w "$1" 9
}

held() { [ -e "$run_dir/$iface.lock" ] && ! flock -n "$run_dir/$iface.lock" true; }

# behind does it all in the background, away from this terminal, and waits for its end or failure.
behind() {
	local pid log=$run_dir/$iface.log
	mkdir -p "$run_dir" && : >"$log" || exit 1
	rm -f "$state/ready"
	PIPELINE_BACKGROUND=1 setsid bash "$self" up -foreground "$@" </dev/null >>"$log" 2>&1 &
	pid=$!
	trap 'kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; cat "$log" >&2; exit 130' INT TERM HUP
	until [ -e "$state/ready" ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	cat "$log" >&2
	[ -e "$state/ready" ] || { wait "$pid"; exit; }
}

# make makes all that there is of up.
make() {
	local name f
	mkdir "$state" && echo $$ >"$state/pid" && cat "/sys/class/net/$iface/ifindex" >"$state/number" || exit 1
	clock
	taps || die "cannot make the taps"
	exec 3<> <(:) 4<> <(:) 6<> <(:) 8<> <(:) # a read of 8 is a sleep without a process
	for name in in out divert; do
		printf %s "${flag[$name]-}" >"$state/$name" || exit 1 # without its stages it would shape nothing
		for f in log restarts counters; do : >"$state/$name.$f"; done
		launch "$name"
	done
	if ! await; then
		log
		[ -z "${PIPELINE_BACKGROUND-}" ] || tail -q -n 5 "$state"/{in,out,divert}.log >&2
		die "$iface is not diverted, and nothing has changed"
	fi
	[ -z "${PIPELINE_BACKGROUND-}" ] || say "$iface goes through the pipelines; messages are in $state/*.log"
	if [ -n "${flag[confirm]-}" ]; then
		clock
		echo $((now + confirm * 1000)) >"$state/until" || exit 1
		say "$0 confirm $iface keeps it; otherwise it is undone in $confirm seconds"
	fi
	: >"$state/ready"
	tell --ready --status=diverting
}

# taps makes the taps that are not there. They belong to root, so that no other process can attach
# to them. The host's stack does not use them.
taps() {
	local t
	for t in "$net" "$host"; do
		[ -d "/sys/class/net/$t" ] && continue
		ip tuntap add dev "$t" mode tap user 0 multi_queue vnet_hdr || return
		echo 1 >"/proc/sys/net/ipv4/conf/$t/rp_filter"
		[ ! -d /proc/sys/net/ipv6 ] || echo 1 >"/proc/sys/net/ipv6/conf/$t/disable_ipv6"
		ip link set "$t" arp off up || return
	done
}

# launch in|out|divert starts a pipeline or the diversion.
launch() {
	local from=$net to=$host
	begun[$1]=$now
	if [ "$1" = divert ]; then
		exec 5< <(PIPELINE_STATE=$state exec tundivert -fail "$fail" "$iface" "$net" "$host" 2>&6 3>>"$state/divert.counters" 4>&- 5<&- 6>&- 7<&- 8<&- 9>&-)
		groups[divert]=$!
		return
	fi
	[ "$1" = in ] || from=$host to=$net
	rm -f "$state/$1.source" # of the one before
	start "$1" "tunread -user $uid:$gid $from" "$(<"$state/$1")" "tunwrite -user $uid:$gid $to" >/dev/null 2>&"${messages[$1]}" 3>>"$state/$1.counters" 4>&- 6>&-
}

running() { kill -0 "${groups[$1]}" 2>/dev/null; }

# await waits until tundivert says that it diverts, and looks whether that lasts with both pipelines.
await() {
	local said='' line='' status=129
	while [ "$status" -gt 128 ] && running in && running out && [ -z "$asked" ]; do
		read -r -t 0.1 -u 5 line
		status=$? said+=$line # of a line, if the time was over in the middle of it
	done
	[ "$said" = diverting ] && sleep 0.3 && running in && running out
}

# supervise starts ended pipelines again, and returns at a signal.
supervise() {
	local name beat=0
	local -A sourceless=() # the process groups that had no source a second ago
	while [ -z "$asked" ]; do
		read -r -t 0.25 -u 8
		log
		for name in in out divert; do keep "$name"; done
		[ $((now / 1000)) -ne "$beat" ] || continue
		beat=$((now / 1000))
		for name in in out; do unstick "$name"; done
		[ $((beat % 5)) -ne 0 ] || [ -z "${WATCHDOG_USEC-}" ] || tell WATCHDOG=1
		[ $((beat % 8)) -ne 0 ] || find "$state" -name '*.counters' -size +1024k -exec truncate -s 0 {} +
		if [ -e "$state/until" ] && [ "$now" -ge "$(<"$state/until")" ] && mv "$state/until" "$state/expired" 2>/dev/null; then
			say "not confirmed: undone"
			exit 1
		fi
	done
}

# log takes in what the pipelines and tundivert say, each for a tenth of a second at most.
log() {
	local name line end LC_ALL=C
	clock
	for name in "${!messages[@]}"; do
		for ((end = now + 100; now < end; )); do
			read -r -t 0 -u "${messages[$name]}" || break
			IFS= read -r -t 0.1 -n 4096 -u "${messages[$name]}" line
			note "$name" "$line"
			clock
		done
	done
}

# note NAME TEXT adds a line to a log, with the time. A log begins anew at 1 MiB.
note() {
	local line=${2//[[:cntrl:]]/} # a terminal would take them for commands
	if ((logged[$1] > 1 << 20)); then : >"$state/$1.log" && logged[$1]=0; fi
	printf '%(%F %T)T %s\n' -1 "$line" >>"$state/$1.log"
	logged[$1]=$((${logged[$1]-0} + ${#line} + 21))
	[ -n "${PIPELINE_BACKGROUND-}" ] || printf '%s\n' "$line" >&2
}

# clock sets now to the milliseconds since the machine has started: the time of day may be set.
clock() {
	local up
	read -r up _ </proc/uptime
	now=$((10#${up/./} * 10))
}

# keep in|out|divert starts it again, at once or after its pause.
keep() {
	if [ -e "$state/$1.new" ]; then
		swap "$1"
	elif [ -z "${next[$1]-}" ]; then
		running "$1" || ended "$1"
	elif [ "$now" -ge "${next[$1]}" ]; then
		unset "next[$1]"
		taps
		launch "$1"
		printf '%(%F %T)T\n' -1 >>"$state/$1.restarts"
	fi
}

# ended says that a pipeline or the diversion has ended, and when it starts again: at once, or after a
# pause that doubles each time, up to a minute, if it ended in its first 0.3 s three times in a row.
ended() {
	local pause=0 status
	wait "${groups[$1]}"
	status=$?
	[ "$1" = divert ] || kill -KILL -- "-${groups[$1]}" 2>/dev/null
	[ $((now - begun[$1])) -lt 300 ] && fails[$1]=$((${fails[$1]-0} + 1)) || fails[$1]=0
	[ "${fails[$1]}" -lt 3 ] || pause=$((fails[$1] > 8 ? 60 : 1 << (fails[$1] - 3)))
	next[$1]=$((now + pause * 1000))
	loud "$1" "$1 has ended with status $status, and is started again$([ "$pause" -eq 0 ] || echo " in $pause s: it ended at once, ${fails[$1]} times in a row")"
}

# tell tells systemd, if it started this. loud NAME TEXT tells a log, too: not by its pipe, which may be full.
tell() { [ -z "${NOTIFY_SOCKET-}" ] || systemd-notify "$@"; }
loud() { log; tell "--status=$2"; note "$1" "pipeline.sh: $2"; }

# unstick in|out has stages that were stopped go on. A stage whose next one hangs ends by itself
# (FRAMEPIPE_STALL), and with it the source; a second later all the rest is ended, too.
unstick() {
	[ -z "${next[$1]-}" ] || return
	kill -CONT -- "-${groups[$1]}" 2>/dev/null
	if [ ! -s "$state/$1.source" ] || kill -0 "$(<"$state/$1.source")" 2>/dev/null; then return; fi
	if [ "${sourceless[$1]-}" = "${groups[$1]}" ]; then
		loud "$1" "the pipeline $1 hangs: its source has ended, and another stage has not"
		kill -KILL -- "-${groups[$1]}" 2>/dev/null
	fi
	sourceless[$1]=${groups[$1]}
}

# swap in|out lets a pipeline with new stages take over. If it does not run, the old one
# stays. For a moment both read the tap, so that no frame waits.
swap() {
	local old=${groups[$1]} result=changed
	mv "$state/$1" "$state/$1.old" && mv "$state/$1.new" "$state/$1"
	mv "$state/$1.source" "$state/$1.before" 2>/dev/null
	launch "$1"
	sleep 0.5
	if running "$1"; then
		unset "next[$1]"
		[ ! -s "$state/$1.before" ] || end_source "$state/$1.before"
		for _ in {1..40}; do ! kill -0 -- "-$old" 2>/dev/null || sleep 0.05; done
		kill -KILL -- "-$old" 2>/dev/null
	else
		mv "$state/$1.old" "$state/$1"
		mv "$state/$1.before" "$state/$1.source" 2>/dev/null
		groups[$1]=$old result=failed
	fi
	log
	echo "$result" >"$state/$1.changed"
}

# clean removes all that up has made: first the diversion, so that no more frames enter the
# pipelines; then the pipelines, once they have drained; then the taps. tundivert passes on the
# last frames until its stdout is closed.
clean() {
	trap '' INT TERM HUP PIPE
	[ -d "$state" ] || return 0
	local line t
	if [ -n "${groups[divert]-}" ] && kill -TERM "${groups[divert]}" 2>/dev/null; then
		while read -r -t 1 -u 5 line && [ "$line" != ended ]; do :; done
	fi
	unset 'groups[divert]'
	stop
	[ -z "${begun[in]-}" ] || log
	exec 5<&-
	processes | xargs -r kill -KILL 2>/dev/null # of an up that was killed
	for t in "$net" "$host"; do
		[ ! -d "/sys/class/net/$t" ] || ip link del "$t"
	done
	rm -rf "$state"
}

# processes prints the numbers of those that up has begun.
processes() { grep -lzFxs "PIPELINE_STATE=$state" /proc/[0-9]*/environ | sed 's/[^0-9]//g'; }

# --- what is up ------------------------------------------------------------

down() { parse '' 0 1 "$@"; each end "${args[@]}"; }
confirm() { parse '' 0 1 "$@"; each keep_it "${args[@]}"; }
status() {
	parse 'watch json' 0 1 "$@"
	local text parts=$here/internal/status/status.sh
	[ -e "$parts" ] || parts=$here/../share/framepipe/status.sh
	# shellcheck source=internal/status/status.sh
	. "$parts" || die "status.sh is not where install put it"
	[ -n "${flag[watch]-}" ] || each show "${args[@]}"
	while text=$(each show "${args[@]}"); do printf '\e[H\e[2J%s\n' "$text"; done
	exit 1
}
change() {
	parse 'in out' 0 1 "$@"
	[ ${#flag[@]} -gt 0 ] || wrong "change wants -in or -out"
	each replace "${args[@]}"
}

# each FUNCTION [IFACE] calls it for the interface, or for all there are.
each() {
	local dir found='' status=0
	[ "$(id -u)" -eq 0 ] || die "${FUNCNAME[1]} needs root" "sudo $0 ${FUNCNAME[1]} ..."
	for dir in "$run_dir"/*; do
		if [ ! -d "$dir" ] || [ "$dir" != "$run_dir/${2-"${dir##*/}"}" ]; then continue; fi
		found=1
		(names "${dir##*/}"; "$1") || status=$? # the others come all the same
	done
	[ -n "$found" ] || die "nothing is up${2:+ on $2}"
	exit "$status"
}

end() {
	! held || kill -TERM "$(<"$state/pid")"
	seize 10 || { kill -KILL "$(<"$state/pid")"; seize 5; } || die "$iface: it does not end"
	clean
}

keep_it() {
	held || die "$iface: up was killed, and nothing waits for a confirmation" "$0 down $iface"
	[ -e "$state/ready" ] || die "$iface: up has not finished"
	mv "$state/until" "$state/confirmed" 2>/dev/null || [ ! -e "$state/expired" ] || die "$iface: the confirmation comes too late: up is being undone"
}

# replace hands new stages to up, and waits for what comes of it.
replace() {
	local name size failed=0
	exec 8<"$state/pid" && flock 8 # one change at a time
	if ! held || [ ! -e "$state/ready" ]; then die "$iface: up was killed, or has not finished" "$0 down $iface"; fi
	for name in "${!flag[@]}"; do
		rm -f "$state/$name.changed"
		size=$(stat -c %s "$state/$name.log")
		printf %s "${flag[$name]}" >"$state/$name.next" || exit 1
		mv "$state/$name.next" "$state/$name.new"
		while [ ! -e "$state/$name.changed" ] && held; do sleep 0.1; done
		[ "$(cat "$state/$name.changed" 2>/dev/null)" != changed ] || continue
		tail -c "+$((size + 1))" "$state/$name.log" >&2
		say "$iface: the new pipeline $name does not run; the old one stays"
		failed=1
	done
	return "$failed"
}

# --- install ---------------------------------------------------------------

# files DIR prints what is installed: mode, source and target, with tabs between.
files() {
	local f
	for f in "${tools[@]}"; do printf '755\t%s\t%s\n' "$bin/$f" "$1/bin/$f"; done
	printf '755\t%s\t%s\n' "$self" "$1/bin/pipeline.sh"
	for f in "${tools[@]/%/.1}" frames.5 pipeline.sh.8; do
		printf '644\t%s\t%s\n' "$here/man/$f" "$1/share/man/man${f##*.}/$f"
	done
	for f in "${tools[@]}" pipeline.sh; do # bash and fish find a completion by the command's name
		printf '644\t%s\t%s\n' "$here/man/completion.bash" "$1/share/bash-completion/completions/$f" \
			"$here/man/completion.fish" "$1/share/fish/vendor_completions.d/$f.fish"
	done
	printf '644\t%s\t%s\n' "$here/man/completion.zsh" "$1/share/zsh/site-functions/_framepipe" \
		"$here/internal/status/status.sh" "$1/share/framepipe/status.sh" \
		"$here/examples/framepipe@.service" "$1/lib/systemd/system/framepipe@.service"
}

install() {
	parse '' 0 1 "$@"
	[ -d "$here/man" ] || die "the sources are not here" "run it where they are"
	build
	place command install -D
	sed -i "s|/usr/local/|$to/|" "$to/lib/systemd/system/framepipe@.service"
}

uninstall() { parse '' 0 1 "$@"; place rm -f; }

# place COMMAND... has it deal with all files: install them, or remove them.
place() {
	local mode from target
	to=$(realpath -m "${args[0]-/usr/local}")
	[[ $to != *[!A-Za-z0-9/._-]* ]] || wrong "$to: the unit names this directory, which may have letters, digits and ._- in its name"
	while IFS=$'\t' read -r mode from target; do
		[ "$1" = rm ] || set -- "${@:1:3}" -m "$mode" "$from"
		"$@" "$target" || die "cannot write to $to" "sudo $0 ..., or another directory"
	done < <(files "$to")
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
}

case ${1-} in
demo | run | up | change | confirm | status | down | install | uninstall) "$@" ;;
-h | --help | help) usage ;;
'') usage >&2 && exit 2 ;;
*) wrong "there is no command $1" ;;
esac
