#!/bin/sh
# Runs PostgreSQL with the C library that was unpacked beside it: initdb starts it by its path, and not as this testbed does.
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../../../.." && pwd)
libraries=
for folder in "$root"/usr/lib/*-linux-gnu "$root"/lib/*-linux-gnu "$root"/.libc/usr/lib/*-linux-gnu "$root"/.libc/lib/*-linux-gnu; do
    [ -d "$folder" ] && libraries=$libraries:$folder
done
for linker in "$root"/.libc/usr/lib/*-linux-gnu/ld-linux* "$root"/.libc/lib/*-linux-gnu/ld-linux*; do
    [ -e "$linker" ] && break
done
exec "$linker" --library-path "${libraries#:}" --argv0 "$here/postgres" "$here/postgres.program" "$@"
