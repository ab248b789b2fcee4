#!/usr/bin/env bash
# tests/empty_debian.sh: what a new user types, in a Debian in which nothing is installed; and the Debian package in
# another one. TESTS=1 runs `make test` there, too, which takes long.
#
# Needs root, debootstrap, git, and for Rust the caller's ~/.cargo, with cargo-deb (`cargo install cargo-deb`), and
# ~/.rustup (`sudo -E` keeps HOME). Debian is taken from MIRROR, or from where this machine's apt has it, and is the
# release SUITE, or this machine's. All of it happens in a directory below TMPDIR that is removed at the end.
# What is tried is what is committed.
set -euo pipefail

if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || { echo 'empty_debian.sh: only root can do this' >&2; exit 1; }
    for program in debootstrap git unshare cargo-deb; do
        PATH=$PATH:$HOME/.cargo/bin command -v $program >/dev/null ||
            { echo "empty_debian.sh: $program is missing" >&2; exit 1; }
    done
    # With what is mounted and started inside, all goes when this ends.
    work=$(mktemp -d)
    trap 'rm -rf --one-file-system "$work"' EXIT
    chmod 755 "$work"
    unshare --mount --pid --fork --kill-child "$0" inside "$work"
    exit
fi

work=$2
source=$(cd "$(dirname "$0")/.." && pwd)
suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
mirror=${MIRROR:-$(apt-get indextargets --format '$(CODENAME) $(SUITE) $(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$suite [a-z]* //p; s/^[a-z]* $suite //p" | head -n 1)}
user=newcomer home=/home/$user
cargo=${CARGO_HOME:-$HOME/.cargo} rustup=${RUSTUP_HOME:-$HOME/.rustup}

# begin NAME: a copy of the empty Debian with an ordinary user, who may use sudo, in $root.
begin() {
    root=$work/$1
    cp -a "$work/empty" "$root"
    mount -t proc proc "$root/proc"
    mount -t devpts -o ptmxmode=666 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    # No service is started here.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    as_root "apt-get -qq update && useradd --create-home --shell /bin/bash $user"
}
as_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive sh -ec "$1"; }
installs() { as_root "apt-get -qq install --no-install-recommends $* >/dev/null"; }

# types COMMAND: as the new user, in a new login shell.
types() {
    local began=$SECONDS
    echo "== $user: $1"
    chroot "$root" su - "$user" -c "set -e; $1" || { echo "FAILED: $1" >&2; exit 1; }
    echo "== $((SECONDS - began)) s"
}

# hears DIRECTORY COMMAND: the README's program, put into the directory and built there, prints what is notified.
hears() {
    sed -n '/^```c$/,/^```$/p' "$source/README.md" | sed '/^```$/q' | sed '/^```/d' >"$root$home/$1/app.c"
    types "cd $1; $2
        export PATH=\$PATH:\$(echo /usr/lib/postgresql/*/bin) PGHOST=\$HOME PGDATABASE=postgres
        [ -d ~/db ] || initdb -D ~/db -A trust >/dev/null
        pg_ctl -D ~/db -o \"-c listen_addresses= -k \$HOME\" -l ~/log -w start >/dev/null
        ./app 'dbname=postgres' >~/heard & app=\$!
        until psql -Atc \"SELECT 1 FROM pg_stat_activity WHERE query = 'LISTEN \\\"orders\\\"'\" | grep -q 1; do :; done
        pgwake notify orders hello
        until grep -qx 'orders: hello' ~/heard; do kill -0 \$app; sleep 0.1; done
        kill \$app; pg_ctl -D ~/db -w stop >/dev/null"
}

echo "== an empty Debian $suite"
debootstrap --variant=minbase "$suite" "$work/empty" "$mirror" >"$work/debootstrap.log" ||
    { tail "$work/debootstrap.log" >&2; exit 1; }

begin user
installs sudo make ca-certificates
# What this machine trusts: its way to the registry may be one of its own.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo "$user ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$user"
git clone -q "$source" "$root$home/pgwake"
cp -r "$cargo" "$root$home/.cargo"
echo '. "$HOME/.cargo/env"' >>"$root$home/.profile"
as_root "chown -R $user: $home"
mkdir "$root$home/.rustup"
mount --bind -o ro "$rustup" "$root$home/.rustup"
listing() { find "$root/usr/local" "$root/etc/ld.so.conf.d" | sort; }

types 'cd pgwake && ./setup.sh && ! [ -e /usr/lib/postgresql ]'
types 'cd pgwake && make demo'
types 'cd pgwake && make'
before=$(listing)
types 'cd pgwake && sudo make install'
types 'cd pgwake && ! find . ! -user $USER | grep . && pgwake version'
hears pgwake 'cc app.c $(pkg-config --cflags --libs pgwake) -o app'
hears pgwake 'cc -static-pie app.c $(pkg-config --static --cflags --libs pgwake) -o app 2>/dev/null'
types 'cd pgwake && sudo make uninstall'
[ "$(listing)" = "$before" ] || { diff <(echo "$before") <(listing) >&2; exit 1; }
types 'cd pgwake && cargo install --path . --root ~/installed && ~/installed/bin/pgwake version'
types 'cd pgwake && make deb'
made=$(git -c safe.directory='*' -C "$root$home/pgwake" status --porcelain)
[ -z "$made" ] || { printf 'not ignored:\n%s\n' "$made" >&2; exit 1; }
package=$(echo "$root$home"/pgwake/target/debian/*.deb)

echo "== the image of the Dockerfile, without Docker"
as_root "cd $home/pgwake; $(sed -n '/^RUN install/,/[^\\]$/{s/^RUN //;p}' "$source/Dockerfile")"
chroot --userspec=65534:65534 "$root/bare" /usr/bin/pgwake version

begin package
cp "$package" "$root/pgwake.deb"
as_root 'apt-get -qq install /pgwake.deb >/dev/null'
types 'pgwake version'
installs postgresql gcc libc6-dev pkg-config libssl-dev
types 'pgwake demo'
hears . 'cc app.c $(pkg-config --cflags --libs pgwake) -o app'
hears . 'cc -static-pie app.c $(pkg-config --static --cflags --libs pgwake) -o app 2>/dev/null'
as_root 'apt-get -qq remove pgwake >/dev/null; ! find /usr -name "*pgwake*" | grep .'

root=$work/user
[ -z "${TESTS:-}" ] || types 'cd pgwake && make test'
echo '== all of it works'
