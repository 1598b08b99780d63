# shellcheck shell=bash disable=SC2154 # pipeline.sh sources it, and sets iface, state, net, host, tools, flag
# What pipeline.sh status shows of an interface that is up.

# show collects the facts. At SIGUSR1 the tools write their counters into files.
show() {
	local name pid from=$net into=$host all
	local -A sent
	for name in in out divert; do : >"$state/$name.counters"; done
	sent[$net]=$(counter "$net" tx_bytes) sent[$host]=$(counter "$host" tx_bytes)
	for pid in $(processes); do
		read -r name 2>/dev/null <"/proc/$pid/comm" && [[ " ${tools[*]} " = *" $name "* ]] && kill -USR1 "$pid"
	done
	sleep 1
	clock
	mapfile -t all < <(processes) # some may be new
	{
		fact interface "$iface" "$(date -r "$state/number" '+%F %T')" "$(held && echo 1)" \
			"$([ ! -e "$state/until" ] || echo $((($(<"$state/until") - now) / 1000)))" "$0"
		for name in in out; do
			fact pipeline "$name" "$from" "$into" "$(cat "$state/$name.source")" \
				"$(($(counter "$from" tx_bytes) - sent[$from]))" "$(counter "$from" tx_dropped)" \
				"$(wc -l <"$state/$name.restarts")" "$(tail -n 1 "$state/$name.restarts")" "$(<"$state/$name")"
			from=$host into=$net
		done
		for pid in "${all[@]}"; do
			fact process "$pid" "$(readlink "/proc/$pid/fd/0")" "$(readlink "/proc/$pid/fd/1")" "$(<"/proc/$pid/comm")"
		done
		sed 's/^/counters /; s/: / /; s/ /\t/g' "$state"/{divert,in,out}.counters
	} 2>/dev/null | LC_ALL=C tr -d '\000-\010\013-\037\177' | # stages write some of it
		{ iconv -cf UTF-8 -t UTF-8 || cat; } 2>/dev/null | draw # there may be no iconv
}

counter() { cat "/sys/class/net/$1/statistics/$2" 2>/dev/null || echo 0; }

# fact WORD... prints words with tabs between.
fact() {
	printf '%s' "${1//[$'\t\n']/ }"
	shift
	[ $# -eq 0 ] || printf '\t%s' "${@//[$'\t\n']/ }"
	echo
}

# draw prints the facts for people, or for programs.
draw() {
	awk -F '\t' -v json="${flag[json]-}" '
	function si(x, unit,    i) {
		for (i = 1; x >= 999.5 && i < 6; i++) x /= 1000
		return sprintf("%.3g %s%s", x, substr(" kMGTP", i, i > 1), unit)
	}
	function bar(share,    i, s) {
		for (i = 0; i < 20; i++) s = s (i + 0.5 < share * 20 ? "#" : ".")
		return "[" s "]"
	}
	function quoted(s) { gsub(/["\\]/, "\\\\&", s); return "\"" s "\"" }
	function plural(n, s) { return n " " s (n == 1 ? "" : "s") }

	# has returns a counter of a process, "" if it has none.
	function has(pid, key) { return count[pid, key] }
	function bytes(pid, key,    n) { n = count[pid, key "_bytes"]; return n == "" ? "" : " (" si(n, "B") ")" }

	# losses returns what a process has dropped, and why.
	function losses(pid,    i, k, why, s) {
		for (i = 1; i <= keys[pid]; i++) {
			k = key[pid, i]
			if (k !~ /^(dropped.*|refused|malformed|errors)$/ || k ~ /_bytes$/ || count[pid, k] == 0) continue
			why = k
			sub(/^dropped_/, "dropped, ", why) # by a gate: early, full or quota
			s = s (s == "" ? "" : "; ") count[pid, k] " " why bytes(pid, k)
		}
		return s
	}

	# gate returns how a gate stands.
	function gate(pid,    s) {
		s = bar(has(pid, "used_share")) sprintf(" %3.0f%% of %s", 100 * has(pid, "used_share"), si(has(pid, "quota"), "B"))
		if (has(pid, "burst") == "free" && has(pid, "used_share") > 1) s = s ", in a free window"
		else if (has(pid, "state") != "pacing") s = s ", " has(pid, "state")
		else s = s ", paced at " si(8 * has(pid, "rate_bytes"), "bit/s")
		if (has(pid, "opens_in") != "") s = s ", opens in " has(pid, "opens_in")
		return s
	}
	# line prints the name of a process, and something about it if there is something.
	function line(name, s) { print s == "" ? "  " name : sprintf("  %-10s  %s", name, s) }

	function chain(pid, f,    n) { # prints the processes that pipes join, from the source on
		for (n = 0; pid in name && n < 100; pid = reader[output[pid]]) {
			f == "json" ? object(pid, n++) : stage(pid, n++)
			if (output[pid] !~ /^pipe:/) break
		}
		if (!n && f != "json") line("-", "down")
	}
	function stage(pid, n,    s) {
		line(name[pid], has(pid, "used_share") != "" ? gate(pid) : losses(pid))
		if (has(pid, "free_left") != "") line("", has(pid, "free_left") " of " has(pid, "free_total") " free windows left until " substr(has(pid, "cycle_end"), 1, 10))
		if (has(pid, "used_share") != "" && (s = losses(pid)) != "") line("", s)
	}
	function object(pid, n,    i, k, v, s) {
		for (i = 1; i <= keys[pid]; i++) {
			k = key[pid, i]; v = count[pid, k]
			s = s (i > 1 ? "," : "") quoted(k) ":" (v ~ /^-?(0|[1-9][0-9]*)(\.[0-9]+)?$/ ? v : quoted(v))
		}
		printf "%s{\"pid\":%d,\"name\":%s,\"counters\":{%s}}", (n ? "," : ""), pid, quoted(name[pid]), s
	}

	$1 == "interface" { iface = $2; since = $3; held = $4; until = $5; self = $6 }
	$1 == "pipeline" { p[++pipes] = $0 }
	$1 == "process" && $5 != "" {
		name[$2] = $5; output[$2] = $4
		if (!($3 in reader) || $5 != "bash") reader[$3] = $2 # of a shell and its child, the child
		if ($5 == "tundivert") divert = $2
	}
	$1 == "counters" {
		for (i = 4; i <= NF; i++) if (split($i, kv, "=") == 2) {
			if (!(($2, kv[1]) in count)) key[$2, ++keys[$2]] = kv[1]
			count[$2, kv[1]] = kv[2]
		}
	}
	END {
		state = !held ? "killed" : divert == "" ? "down" : has(divert, "state")
		if (state == "") state = "unknown" # tundivert has not answered within the second
		if (json) {
			printf "{\"interface\":%s,\"since\":%s,\"state\":%s,", quoted(iface), quoted(since), quoted(state)
			if (until != "") printf "\"undone_in_seconds\":%d,", until
			printf "\"pipelines\":["
			for (i = 1; i <= pipes; i++) {
				split(p[i], f, "\t")
				printf "%s{\"name\":%s,\"from\":%s,\"to\":%s,\"stages\":%s,\"bits_per_second\":%.0f,\"queue_dropped\":%d,\"restarts\":%d,\"last_restart\":%s,\"processes\":[",
					(i > 1 ? "," : ""), quoted(f[2]), quoted(f[3]), quoted(f[4]), quoted(f[10]), 8 * f[6], f[7], f[8], quoted(f[9])
				chain(f[5], "json")
				printf "]}"
			}
			print "]}"
			exit
		}
		if (!held) state = "but it was killed, and frames pass by"
		else if (state == "unknown") state = "but tundivert does not answer"
		else if (state == "open") state = "open: a pipeline is down, and frames pass by"
		print iface ": up since " since ", " state
		if (!held) print "what is left of it goes with: " self " down " iface
		if (until != "") print "undone in " plural(until, "second") ", unless confirmed: " self " confirm " iface
		for (i = 1; i <= pipes; i++) {
			split(p[i], f, "\t")
			printf "\n%-4s %s, from %s to %s", f[2] ":", si(8 * f[6], "bit/s"), f[3], f[4]
			if (f[8]) printf "; %s, the last %s", plural(f[8], "restart"), f[9]
			print ""
			if (f[7]) line("queue", plural(f[7], "frame") " dropped before tunread")
			chain(f[5], "text")
		}
	}'
}
