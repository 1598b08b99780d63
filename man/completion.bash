# shellcheck shell=bash
# Completion for the tools of framepipe. Source it, or put it where the package
# bash-completion looks, which it does not need.

# _framepipe_flags TOOL [COMMAND] prints its flags. One that ends in = is best
# given its value so.
_framepipe_flags() {
	case $1 in
	tunread) echo -coalesce -l3 -offload= -user ;;
	tunwrite) echo -l3 -offload= -pace -user ;;
	tundivert) echo -fail ;;
	quotagate)
		echo -align -bill -charge -clock -count -cycle -cycle-day -dir -ecn -hard -jitter -ledger -metrics -percentile -phase \
			-policy -queue -quota -rate -reserve -seed -threshold -tz -unmetered -whole -window
		;;
	quotabill)
		echo -add -all -counters -csv -currency -cycle -cycle-day -format -html -interval -into -jitter -json \
			-method -minimum -missing -overage -patience -percentile -phase -plan -price -prom -quota -rank \
			-rate -reserve -round-up -simulate -slots -speed -svg -threshold -title -tz -warn -window
		;;
	bytehist) echo -clock -every -format -o -sample -top ;;
	framepcap) echo -d -segment ;;
	pipeline.sh)
		case ${2-} in
		run) echo -in -out -queues ;;
		up) echo -confirm -fail -foreground -in -out -user ;;
		change) echo -in -out ;;
		status) echo -json -watch ;;
		'') echo -h ;;
		esac
		return
		;;
	esac
	echo -h -v -version
}

# _framepipe_values TOOL FLAG prints the values of a flag that has few, or @ and
# what they are. Nothing means that it takes none; ? that they are not known.
_framepipe_values() {
	case $1$2 in
	tunread-offload) echo true false ;;
	tunwrite-offload) echo auto on off ;;
	tunwrite-pace) echo 1 10 60 ;;
	tunread-user | tunwrite-user | pipeline.sh-user) echo @user ;;
	quotagate-bill) echo separate max sum ;;
	quotagate-charge) echo passed offered ;;
	quotagate-dir) echo in out ;;
	quotagate-clock | bytehist-clock) echo wall stream ;;
	quotagate-count) echo ethernet frame ip wire ;;
	quotagate-cycle) echo 1d 7d ;;
	quotagate-cycle-day | quotabill-cycle-day) echo {1..31} ;;
	quotagate-ledger | quotagate-metrics | quotabill-csv | quotabill-html | quotabill-into | quotabill-prom | quotabill-slots | quotabill-svg | bytehist-o) echo @file ;;
	quotabill-add) echo samples percentiles ;;
	quotabill-format)
		echo vnstat prometheus librenms xport dump fetch mrtg nfdump cacti grafana csv bits bytes rate amount start end dmy mdy ;;
	quotabill-method) echo separate max sum in out ;;
	quotabill-missing) echo zero skip ;;
	quotagate-percentile | quotabill-percentile) echo 95 90 99 ;;
	quotabill-currency) echo EUR USD GBP ;;
	quotabill-warn) echo 75%,90% ;;
	quotabill-patience) echo 10m 1h 8h ;;
	quotabill-rank) echo floor nearest ;;
	quotabill-window) echo 5m month ;;
	quotagate-policy) echo pace random ;;
	quotagate-tz | quotabill-tz) echo @zone ;;
	quotagate-window) echo 5m 1h 1d 30d month ;;
	bytehist-format) echo text json msgpack ;;
	pipeline.sh-confirm) echo 60s 5m ;;
	pipeline.sh-fail | tundivert-fail) echo open closed ;;
	tunread-coalesce | quotagate-queue | quotagate-quota | quotagate-rate | quotagate-jitter | quotagate-phase | quotagate-reserve | quotagate-seed | \
		quotagate-threshold | quotagate-unmetered | quotabill-cycle | quotabill-interval | \
		quotabill-quota | quotabill-rate | quotabill-jitter | quotabill-phase | quotabill-reserve | quotabill-threshold | bytehist-every | bytehist-sample | bytehist-top | quotabill-speed | quotabill-minimum | quotabill-overage | quotabill-price | \
		pipeline.sh-in | pipeline.sh-out | pipeline.sh-queues) echo '?' ;;
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
	'?') ;;
	*) _framepipe_offer "$1" "$2" ;;
	esac
}

_framepipe() {
	local IFS=$' \t\n'
	local tool=${1##*/} last=${COMP_WORDS[COMP_CWORD]} cur flag='' command='' joined='' i
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

	# What stands before the word: flag is one that wants it as its value.
	for ((i = 1; i < ${#words[@]} - 1; i++)); do
		case ${words[i]} in
		*'>'* | *'<'*) i=$((i + 1)) ;;
		-*=*) ;;
		-*)
			flag=${words[i]/#--/-}
			# What is true or false takes no value but behind =.
			if [ -n "$(_framepipe_values "$tool" "$flag")" ] && [ "$tool$flag" != tunread-offload ]; then
				i=$((i + 1))
			fi
			[ "$i" -eq $((${#words[@]} - 1)) ] || flag=''
			;;
		*) positional+=("${words[i]}") ;;
		esac
	done
	if [ "$i" -ge ${#words[@]} ] && [ -z "$flag" ]; then # a redirection wants it
		_framepipe_files "$cur"
		return
	fi
	if [ "$tool" = pipeline.sh ] && [ ${#positional[@]} -gt 0 ]; then
		command=${positional[0]}
		positional=("${positional[@]:1}")
	fi

	case $flag:$cur in
	-*:*) _framepipe_is "$cur" "$(_framepipe_values "$tool" "$flag")" ;;
	:-*=*)
		flag=${cur%%=*}
		_framepipe_is "${cur#*=}" "$(_framepipe_values "$tool" "${flag/#--/-}")"
		[ "$last" != "$cur" ] || COMPREPLY=("${COMPREPLY[@]/#/$flag=}")
		;;
	:-*)
		_framepipe_offer "${cur/#--/-}" "$(_framepipe_flags "$tool" "$command")"
		[[ $cur != --* ]] || COMPREPLY=("${COMPREPLY[@]/#/-}")
		if [ ${#COMPREPLY[@]} -eq 1 ] && [[ ${COMPREPLY[0]} == *= ]]; then
			compopt -o nospace 2>/dev/null || :
		fi
		;;
	*)
		case $tool:$command:${#positional[@]} in
		tunread::0 | tunwrite::0 | tundivert::[12] | pipeline.sh:run:[01]) _framepipe_is "$cur" @tap ;;
		quotabill::0) _framepipe_files "$cur" ;;
		pipeline.sh::0) _framepipe_offer "$cur" 'change confirm demo down help install run status uninstall up' ;;
		tundivert::0 | pipeline.sh:up:0) _framepipe_is "$cur" @iface ;;
		pipeline.sh:change:0 | pipeline.sh:confirm:0 | pipeline.sh:status:0 | pipeline.sh:down:0) _framepipe_is "$cur" @state ;;
		pipeline.sh:install:0 | pipeline.sh:uninstall:0) _framepipe_is "$cur" @dir ;;
		esac
		;;
	esac
}

complete -F _framepipe tunread tunwrite tundivert quotagate quotabill bytehist framepcap pipeline.sh
