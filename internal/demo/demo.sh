# shellcheck shell=bash disable=SC2154
# Sourced by pipeline.sh: shapes real TCP between two network namespaces. DEMO_SVG is a file for the curve.
#
#   network namespace NET                             network namespace HOST
#   the server            tap0                  tap1            the client
#   10.77.0.1              │                     │               10.77.0.2
#                          └─ tunread, quotagate, bytehist, tunwrite ─┘

demo_end() {
	trap '' INT TERM HUP
	kill ${client:+"$client"} ${server:+"$server"} 2>/dev/null
	stop
	wait 2>/dev/null
	ip netns del "$net" 2>/dev/null
	ip netns del "$host" 2>/dev/null
	rm -rf "$state"
}

[ "$(id -u)" -eq 0 ] || die "the demonstration makes network namespaces, which needs root" "sudo $0 demo"
[ -c /dev/net/tun ] || die "no /dev/net/tun" "modprobe tun; a container needs --device /dev/net/tun"
build ./internal/demo
net=fp-net-$$-$RANDOM host=fp-host-$$-$RANDOM server='' client=''
trap demo_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
state=$(mktemp -d "${TMPDIR:-/tmp}/pipeline.XXXXXX") || exit 1
quota=75MB window=5s n=0
for ns in "$net" "$host"; do
	{
		ip netns add "$ns" && ip -n "$ns" tuntap add dev "tap$n" mode tap multi_queue vnet_hdr &&
			ip -n "$ns" addr add 10.77.0.$((n + 1))/24 dev "tap$n" && ip -n "$ns" link set "tap$n" up
	} || die "cannot make the network namespaces"
	n=1
done
to_net="ip netns exec $net" to_host="ip netns exec $host" gate="quotagate -quota $quota -window $window"
start in "$to_net tunread tap0" "$gate -metrics $state/gate | bytehist -every 1h -o $state/hist" "$to_host tunwrite tap1"
start out "$to_host tunread tap1" "$gate | bytehist -every 1h -o /dev/null" "$to_net tunwrite tap0"
$to_net "$bin/demo" -port 400Mbit/s serve 10.77.0.1:7 &
server=$!
printf '\n  tunread tap%d | %s | bytehist | tunwrite tap%d' 0 "$gate" 1 1 "$gate" 0
printf '\n\n'
# In the background, or a signal would have to wait for it.
$to_host "$bin/demo" -port 400Mbit/s -quota "$quota" -window "$window" ${DEMO_SVG:+-svg "$DEMO_SVG"} watch 10.77.0.1:7 &
client=$!
wait -n "$client" "${groups[@]}" || die "the demonstration has failed"
kill -0 "$client" 2>/dev/null && die "a pipeline has ended too early"
stop
printf '\nThe bytes that went by, as bytehist saw them:\n\n'
cat "$state/hist"
