# shellcheck shell=bash
# Completion for the tools of framepipe. Source it, or put it where the package
# bash-completion looks, which it does not need. The flags are those that -h shows.

# _framepipe_flags TOOL [COMMAND] prints the flags as the usage text has them: -ecn,
# -queue D, -offload=auto. Those of a command of pipeline.sh stand in its synopsis.
_framepipe_flags() {
	case ${1##*/}:${2-} in
	pipeline.sh:) echo -h ;;
	pipeline.sh:*)
		command "$1" -h 2>/dev/null | awk -v command="$2" '/^$/ { exit }
			/pipeline.sh/ { on = $0 ~ ("pipeline.sh " command "( |$)") } on' | grep -oE -e '-[a-z]+( [A-Za-z|]+)?'
		;;
	*) command "$1" -h 2>/dev/null | sed -nE 's/^  (-[a-z0-9-]+([= ][A-Za-z,.]+)?)( .*|$)/\1/p' ;;
	esac
}

# _framepipe_values TOOL FLAG prints the values of a flag that has few, or @ and their kind.
_framepipe_values() {
	case $1$2 in
	tunread-offload) echo true false ;;
	tunwrite-offload) echo auto on off ;;
	tunwrite-pace) echo 1 10 60 ;;
	*-user) echo @user ;;
	quotagate-bill) echo separate max sum ;;
	quotagate-charge) echo passed offered ;;
	quotagate-dir) echo in out ;;
	*-clock) echo wall stream ;;
	quotagate-count) echo ethernet frame ip wire ;;
	*-cycle-day) echo {1..31} ;;
	*-ledger | *-metrics | *-csv | *-html | *-into | *-prom | *-slots | *-svg | *-o) echo @file ;;
	quotabill-add) echo samples percentiles ;;
	quotabill-format)
		echo vnstat prometheus librenms xport dump fetch mrtg nfdump cacti grafana csv bits bytes rate amount start end dmy mdy ;;
	quotabill-method) echo separate max sum in out ;;
	quotabill-missing) echo zero skip ;;
	*-percentile) echo 95 90 99 ;;
	quotabill-warn) echo 75%,90% ;;
	quotabill-rank) echo floor nearest ;;
	quotabill-window) echo 5m month ;;
	quotagate-window) echo 5m 1h 1d 30d month ;;
	quotagate-policy) echo pace random ;;
	*-tz) echo @zone ;;
	bytehist-format) echo text json msgpack ;;
	*-confirm) echo 60s 5m ;;
	*-fail) echo open closed ;;
	esac
}

# _framepipe_interfaces tap|iface prints network interfaces: the taps and tuns,
# or all that may be led through pipelines.
_framepipe_interfaces() {
	local dir
	for dir in /sys/class/net/*; do
		case $1 in
		tap) [ -e "$dir/tun_flags" ] ;;
		*) [ -e "$dir/address" ] && [ "${dir##*/}" != lo ] ;;
		esac && echo "${dir##*/}"
	done
}

# _framepipe_offer CUR WORDS has the words offered that begin so. Not by compgen
# -W, which would run what stands in the name of an interface.
_framepipe_offer() {
	local word
	local -a all=()
	read -r -d '' -a all <<<"$2"
	for word in "${all[@]}"; do
		[[ $word != "$1"* ]] || COMPREPLY+=("$word")
	done
}

# _framepipe_files CUR [-d] offers files, or directories.
_framepipe_files() {
	mapfile -t COMPREPLY < <(compgen "${2:--f}" -- "$1")
	compopt -o filenames 2>/dev/null || : # it is being tried by hand
}

# _framepipe_is CUR WHAT offers what stands for @WHAT, or words.
_framepipe_is() {
	case $2 in
	@file) _framepipe_files "$1" ;;
	@dir) _framepipe_files "$1" -d ;;
	@tap)
		case $1 in
		fd:*) ;;
		*/*) _framepipe_files "$1" ;;
		*) _framepipe_offer "$1" "$(_framepipe_interfaces tap)" ;;
		esac
		;;
	@iface) _framepipe_offer "$1" "$(_framepipe_interfaces iface)" ;;
	@state) # those that are up
		local dir all=''
		for dir in "${PIPELINE_RUN:-/run/pipeline}"/*/; do
			dir=${dir%/}
			[ -d "$dir" ] && all+=" ${dir##*/}"
		done
		_framepipe_offer "$1" "$all"
		;;
	@user) _framepipe_offer "$1" "$(cut -d: -f1 /etc/passwd 2>/dev/null)" ;;
	@zone)
		local zone all='UTC Local'
		while read -r _ _ zone _; do
			all+=" $zone"
		done < <(grep -v '^#' /usr/share/zoneinfo/zone1970.tab 2>/dev/null)
		_framepipe_offer "$1" "$all"
		;;
	*) _framepipe_offer "$1" "$2" ;;
	esac
}

_framepipe() {
	local IFS=$' \t\n'
	local tool=${1##*/} last=${COMP_WORDS[COMP_CWORD]} cur flag='' command='' joined='' flags i
	local -a words=() positional=()
	COMPREPLY=()

	# Bash takes -flag=value apart, and fd:3.
	for ((i = 0; i <= COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		= | :) joined=1 ;;
		*) [ -n "$joined" ] || words+=(''); joined='' ;;
		esac
		[ ${#words[@]} -gt 0 ] || return
		words[-1]+=${COMP_WORDS[i]}
	done
	cur=${words[-1]}
	[ "$tool" != pipeline.sh ] || [ ${#words[@]} -le 2 ] || command=${words[1]}
	flags=$(_framepipe_flags "$1" "$command")

	# flag is the one before the word, if the word is its value.
	for ((i = 1; i < ${#words[@]} - 1; i++)); do
		flag=''
		case ${words[i]} in
		*'>'* | *'<'*) i=$((i + 1)) ;;
		-*)
			[[ $'\n'$flags != *$'\n'"${words[i]/#--/-} "* ]] || flag=${words[i++]/#--/-}
			;;
		*) positional+=("${words[i]}") ;;
		esac
	done
	if [ "$i" -lt ${#words[@]} ]; then
		flag=''
	elif [ -z "$flag" ]; then # a redirection wants it
		_framepipe_files "$cur"
		return
	fi

	case $flag:$cur in
	-*:*) _framepipe_is "$cur" "$(_framepipe_values "$tool" "$flag")" ;;
	:-*=*)
		flag=${cur%%=*}
		_framepipe_is "${cur#*=}" "$(_framepipe_values "$tool" "${flag/#--/-}")"
		[ "$last" != "$cur" ] || COMPREPLY=("${COMPREPLY[@]/#/$flag=}")
		;;
	:-*)
		_framepipe_offer "${cur/#--/-}" "$(sed 's/ .*//; s/=.*/=/' <<<"$flags")"
		[[ $cur != --* ]] || COMPREPLY=("${COMPREPLY[@]/#/-}")
		if [ ${#COMPREPLY[@]} -eq 1 ] && [[ ${COMPREPLY[0]} == *= ]]; then
			compopt -o nospace 2>/dev/null || :
		fi
		;;
	*)
		case $tool:$command:${#positional[@]} in
		tunread::0 | tunwrite::0 | tundivert::[12] | pipeline.sh:run:[12]) _framepipe_is "$cur" @tap ;;
		quotabill::0) _framepipe_files "$cur" ;;
		pipeline.sh::0) _framepipe_offer "$cur" 'change confirm demo down help install run status uninstall up' ;;
		tundivert::0 | pipeline.sh:up:1) _framepipe_is "$cur" @iface ;;
		pipeline.sh:change:1 | pipeline.sh:confirm:1 | pipeline.sh:status:1 | pipeline.sh:down:1) _framepipe_is "$cur" @state ;;
		pipeline.sh:install:1 | pipeline.sh:uninstall:1) _framepipe_is "$cur" @dir ;;
		esac
		;;
	esac
}

complete -F _framepipe tunread tunwrite tundivert quotagate quotabill bytehist framepcap pipeline.sh
