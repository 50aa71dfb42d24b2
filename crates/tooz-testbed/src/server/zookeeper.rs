//! ZooKeeper: how it is started, asked and reached.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::provision::zookeeper::{CLIENT, PROGRAM};
use crate::server::backend::{Backend, Plan, ServerRole, text};
use crate::server::keeper::private_folder;
use crate::server::probe;

pub(crate) struct ZooKeeper;

const SETTINGS: &str = "zoo.cfg";

/// A small Java machine that starts fast. Peers are told apart by the kernel's list of IPv4 sockets.
const JAVA: &str = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xmx128m -Djava.net.preferIPv4Stack=true \
                    -Dzookeeper.admin.enableServer=false  -Dzookeeper.extendedTypesEnabled=true \
                    -Dznode.container.checkIntervalMs=1000 -Dzookeeper.jmx.log4j.disable=true";

/// Two ticks are the shortest session that a server allows unless told so; 500 ms are short enough for any test.
const COMMON: &str = "tickTime=250\ninitLimit=16\nsyncLimit=8\nmaxClientCnxns=0\nminSessionTimeout=500\n\
                      maxSessionTimeout=60000\npreAllocSize=64\nsnapCount=10000\n4lw.commands.whitelist=*\n";

impl Backend for ZooKeeper {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        if plan.unix_socket.is_some() {
            bail!("unix_socket() is not for ZooKeeper, which has TCP only");
        }
        private_folder(&plan.data())?;
        // With TLS it still answers on a plain port of its own, by which it is asked whether it is ready.
        let unsecured = if plan.tls.is_some() { plan.health } else { plan.listen };
        let mut settings = format!(
            "{COMMON}dataDir={}\nclientPort={}\nclientPortAddress={}\n",
            text(&plan.data()),
            unsecured.port(),
            unsecured.ip(),
        );
        if let Some(tls) = &plan.tls {
            // It wants the key and its certificate in one file.
            let both = plan.folder.join("server-and-key.pem");
            fs::write(&both, fs::read_to_string(&tls.key)? + &fs::read_to_string(&tls.certificate)?)?;
            let _ = write!(
                settings,
                "secureClientPort={}\nsecureClientPortAddress={}\n\
                 serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
                 ssl.keyStore.location={}\nssl.keyStore.type=PEM\nssl.trustStore.location={}\nssl.trustStore.type=PEM\n\
                 ssl.hostnameVerification=false\nssl.clientAuth=none\n",
                plan.listen.port(),
                plan.listen.ip(),
                text(&both),
                text(&tls.ca),
            );
        }
        if let ServerRole::ZooKeeperMember { id, members } = &plan.role {
            // ZooKeeper counts from one.
            fs::write(plan.data().join("myid"), (id + 1).to_string())?;
            for (member, (peers, votes)) in members.iter().enumerate() {
                // A member listens at its own ports, and reaches the others by the ways that can be cut.
                let (peers, votes) = if member == *id { (&plan.peers, &plan.health) } else { (peers, votes) };
                let _ = writeln!(settings, "server.{}={}:{}:{}", member + 1, peers.ip(), peers.port(), votes.port());
            }
        }
        for argument in &plan.arguments {
            settings += argument;
            settings.push('\n');
        }
        Ok(fs::write(plan.folder.join(SETTINGS), settings)?)
    }

    fn command(&self, plan: &Plan) -> Result<Command> {
        let mut command = plan.installation.command(PROGRAM)?;
        command
            .args(["--config", &text(&plan.folder), "start-foreground"])
            .env("SERVER_JVMFLAGS", format!("{JAVA} -Dzookeeper.forceSync={}", if plan.durable { "yes" } else { "no" }))
            .env("ZOO_LOG_DIR", &plan.folder);
        Ok(command)
    }

    fn is_ready(&self, plan: &Plan) -> Result<bool> {
        match &plan.tls {
            // It opens the plain port first.
            Some(_) => Ok(serves(plan.health)? && TcpStream::connect(plan.listen).is_ok()),
            None => serves(plan.listen),
        }
    }

    fn requests(&self, plan: &Plan) -> Result<Option<u64>> {
        let answer = probe::ask(plan.listen, b"mntr", |_| false)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let count = answer.lines().find_map(|line| line.strip_prefix("zk_packets_received\t")?.trim().parse().ok());
        Ok(Some(count.context("the server does not say how much it received")?))
    }

    fn url(&self, plan: &Plan) -> String {
        let scheme = if plan.tls.is_some() { "zookeeper+tls" } else { "zookeeper" };
        format!("{scheme}://{}", plan.address)
    }

    fn tool(&self, plan: &Plan, program: &str) -> Result<Command> {
        let mut command = plan.installation.command(program)?;
        if program == CLIENT {
            let unsecured = if plan.tls.is_some() { plan.health } else { plan.address };
            command.args(["-server", &unsecured.to_string()]);
        }
        Ok(command)
    }
}

/// What a server says that it is: `standalone`, `leader` or `follower`; nothing while it does not serve.
pub(crate) fn mode(address: SocketAddr) -> Result<Option<String>> {
    let answer = probe::ask(address, b"srvr", |_| false)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok(answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned))
}

/// Whether it serves: says what it is, and begins a session. One that lacks half of its archives says the first and can't do the second.
pub(crate) fn serves(address: SocketAddr) -> Result<bool> {
    if mode(address)?.is_none() {
        return Ok(false);
    }
    let mut question = Vec::new();
    let hello: [&[u8]; 8] = [
        &45_i32.to_be_bytes(),
        // The version of the protocol, what was seen last, the session timeout, no session to take up, and no password for it.
        &0_i32.to_be_bytes(),
        &0_i64.to_be_bytes(),
        &500_i32.to_be_bytes(),
        &0_i64.to_be_bytes(),
        &16_i32.to_be_bytes(),
        &[0; 16],
        // Not one that only reads.
        &[0],
    ];
    question.extend(hello.concat());
    // And its end.
    question.extend([8_i32.to_be_bytes(), 1_i32.to_be_bytes(), (-11_i32).to_be_bytes()].concat());
    let answer = probe::ask(address, &question, |answer| answer.len() >= 20)?;
    // The length, the version, the timeout, and then the session.
    Ok(answer.get(12..20).is_some_and(|session| session != [0; 8]))
}
