#!/usr/bin/env bash
# Makes a Debian package of the tools, the manual pages, the completions and the systemd unit,
# in DIR or here. The tools are static: the package runs on any release of Debian and Ubuntu.
#
#   examples/deb.sh [DIR]
#   sudo apt install ./framepipe_*.deb
#
# Before sudo apt remove framepipe, end what is up: sudo pipeline.sh down.
set -eu -o pipefail

clone=$(realpath "$(dirname "$0")/..")
to=$(realpath "${1-.}")
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage" # this is the mode of / in the package
umask 022

# -s leaves out what only debuggers use, a third of the size.
CGO_ENABLED=0 GOFLAGS="${GOFLAGS-} -ldflags=-s" "$clone/pipeline.sh" install "$stage/usr"
sed -i "s|$stage/|/|" "$stage/usr/lib/systemd/system/framepipe@.service"
# Debian's places for these.
mv "$stage/usr/share/zsh/site-functions" "$stage/usr/share/zsh/vendor-completions"
gzip -9n "$stage"/usr/share/man/man*/*
install -Dm 644 "$clone/LICENSE" "$stage/usr/share/doc/framepipe/copyright"

# v0.0.0-20261128071715-af21101464ac, or (devel) where there is no git.
read -r _ version _ < <("$stage/usr/bin/tunread" -version)
[[ $version = v* ]] || version=v0.0.0
version=${version#v} version=${version//-/'~'}
mkdir "$stage/DEBIAN"
cat >"$stage/DEBIAN/control" <<END
Package: framepipe
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: The framepipe project <framepipe@localhost>
Depends: bash, gawk | mawk, iproute2, util-linux
Section: net
Priority: optional
Description: userland traffic shaping for a port that is billed by use
 The frames of a network interface become a stream, and filters joined by pipes
 work on it. One of them keeps a quota or the 95th percentile of a bill.
END
dpkg-deb -z3 --root-owner-group --build "$stage" "$to" >/dev/null
echo "$to/framepipe_${version}_$(dpkg --print-architecture).deb"
