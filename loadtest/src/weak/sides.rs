//! The two ends of the testbed: a runtime in each namespace, and the server.

use std::{
    env,
    fmt::Write,
    io,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Result, anyhow, ensure};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use clap::Args;
use edgeway_client::Login;
use tokio::runtime::{Builder, Runtime};

use crate::{
    server::{self, Listen, Server, ServerArgs},
    weaknet::{
        Profile, Testbed,
        netns::{self, Namespace},
        testbed::SERVER,
    },
};

/// Name of the hidden command that runs a program inside a namespace.
pub const EXEC_COMMAND: &str = "weaknet-exec";

/// Where the gateway takes QUIC and TCP: any port is free in a namespace of ours.
const PORT: u16 = 4433;
const HTTP_PORT: u16 = 8080;

/// All users have the same; what is measured is not the login.
const PASSWORD: &[u8] = b"weaknet";

/// Runs a program inside a namespace
#[derive(Args, Debug)]
pub struct ExecArgs {
    namespace: std::path::PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Becomes the program.
pub fn exec(args: &ExecArgs) -> Result<std::process::ExitCode> {
    let [program, rest @ ..] = args.command.as_slice() else {
        return Err(anyhow!("no program to run"));
    };
    Err(netns::exec(&args.namespace, Command::new(program).args(rest)))
}

/// The testbed, with a runtime on each side of the links.
pub struct Sides {
    // The runtimes go before their namespaces.
    pub clients: Runtime,
    pub server: Runtime,
    pub testbed: Testbed,
}

impl Sides {
    pub fn start(profile: &Profile, clients: u32, seed: u64) -> Result<Self> {
        let testbed = Testbed::start(profile, clients, seed)?;
        Ok(Self {
            clients: runtime(testbed.clients(), "clients")?,
            server: runtime(testbed.server(), "server")?,
            testbed,
        })
    }

    /// The address that a client's sockets use.
    pub fn bind(&self, client: u32) -> IpAddr {
        self.testbed.client_address(client).into()
    }

    /// Where the server is.
    pub fn address(&self) -> SocketAddr {
        (SERVER, PORT).into()
    }

    /// Starts the server that is measured, with these users. It ends with the calling thread.
    pub async fn edgeway(&self, args: &ServerArgs, users: &[String]) -> Result<Server> {
        let mut wrapper = Command::new(env::current_exe()?);
        wrapper.arg(EXEC_COMMAND);
        let command = self.testbed.server().command(wrapper, &server::program(args)?);
        let listen = Listen {
            quic: self.address(),
            tcp: self.address(),
            http: ([127, 0, 0, 1], HTTP_PORT).into(),
            // The kernel's, as the row asks.
            tcp_bbr: false,
        };
        Server::start_as(command.into(), listen, &config(users)?).await
    }
}

/// What a user says to log in.
pub fn login(user: &str) -> Login {
    let password = String::from_utf8_lossy(PASSWORD).into_owned();
    Login::Password { user: user.to_owned(), password }
}

/// The part of the server's config that its place asks for: it is not on loopback, so there are users
/// with passwords, as cheap as can be. The limits are those of one user who is a whole room's chat.
fn config(users: &[String]) -> Result<String> {
    let cheap = Params::new(8, 1, 1, None).map_err(|error| anyhow!("argon2: {error}"))?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap)
        .hash_password(PASSWORD)
        .map_err(|error| anyhow!("argon2: {error}"))?;
    let mut text = "\n[rooms]\nchat_per_second = 0\n\n[gateway.limits]\n\
        user_bytes_per_second = 4_194_304\nuser_frames_per_second = 5_000\n\n\
        [auth]\nmode = \"passwords\"\n\n[auth.users]\n"
        .to_owned();
    for user in users {
        let _ = writeln!(text, "{user} = \"{hash}\"");
    }
    Ok(text)
}

/// A runtime whose threads are all inside.
fn runtime(namespace: &Namespace, name: &str) -> Result<Runtime> {
    let file = namespace.path();
    let outside = Arc::new(AtomicBool::new(false));
    let failed = Arc::clone(&outside);
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(format!("weak-{name}"))
        .enable_all()
        .on_thread_start(move || {
            if netns::enter(&file).is_err() {
                failed.store(true, Relaxed);
            }
        })
        .build()?;
    // The first task runs when the thread has started.
    runtime.block_on(async { tokio::spawn(async {}).await }).map_err(io::Error::other)?;
    ensure!(!outside.load(Relaxed), "cannot enter the network namespace of the {name}");
    Ok(runtime)
}
