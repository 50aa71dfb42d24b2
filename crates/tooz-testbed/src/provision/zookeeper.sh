#!/bin/sh
# Runs a ZooKeeper that was unpacked: zkServer.sh --config FOLDER start-foreground, or zkCli.sh -server ADDRESS COMMAND
root=$(cd "$(dirname "$0")/../.." && pwd)
# This machine's own programs go with this machine's own libraries, an unpacked Java with those it came with.
libraries=$LD_LIBRARY_PATH
unset LD_LIBRARY_PATH
# What this machine wants of its own Java programs is nothing to this one.
unset CLASSPATH JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS _JAVA_OPTIONS
for java in "$(command -v java)" "$root"/usr/lib/jvm/*/bin/java "$root"/opt/java/*/bin/java; do
    [ -x "$java" ] && break
done
[ -x "$java" ] || { echo "there is no java on PATH" >&2; exit 127; }
case $java in "$root"/*) export LD_LIBRARY_PATH="$libraries" ;; esac
[ "$1" = --version ] && exec "$java" -version
classes=
for jars in "$root"/usr/share/java "$root"/apache-zookeeper-*/lib; do
    [ -d "$jars" ] || continue
    for jar in zookeeper zookeeper-jute slf4j-api slf4j-simple metrics-core snappy-java commons-cli \
        netty-common netty-buffer netty-codec netty-handler netty-resolver \
        netty-transport netty-transport-native-unix-common netty-transport-native-epoll; do
        for file in "$jars/$jar.jar" "$jars/$jar"-[0-9]*.jar; do
            [ -e "$file" ] && classes=$classes:$file
        done
    done
done
main=org.apache.zookeeper
if [ "${0##*/}" = zkCli.sh ]; then
    exec "$java" -XX:TieredStopAtLevel=1 -cp "${classes#:}" $main.ZooKeeperMain "$@"
fi
[ "$1" = --config ] && [ "$3" = start-foreground ] || { echo "usage: $0 --config FOLDER start-foreground" >&2; exit 2; }
# The flags are several words.
# shellcheck disable=SC2086
exec "$java" $SERVER_JVMFLAGS -cp "${classes#:}" $main.server.quorum.QuorumPeerMain "$2/zoo.cfg"
