//! Network namespaces that nothing outside this process knows: they are held by a file of ours and
//! by the threads and children inside, and vanish with them. Nothing is left to clean up.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::link::LinkAttribute,
    packet_route::route::{RouteAttribute, RouteMetric, RouteScope},
};

/// The loopback device is the first of every namespace.
const LOOPBACK: u32 = 1;

/// Makes this process root of a user namespace of its own, where it is not root already, so that
/// it may make network namespaces. To be called before any thread is started: the kernel refuses
/// it afterwards.
pub fn become_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER).context(
        "cannot make a user namespace: run as root, or let users make them \
         (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)",
    )?;
    fs::write("/proc/self/setgroups", "deny").context("cannot set up the user namespace")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))
        .context("cannot become root of the user namespace")?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
        .context("cannot become root of the user namespace")
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes one, with a loopback device that is up and also has `loopback` where it is given: a
    /// whole network of addresses to bind to, one for each client.
    pub fn create(loopback: Option<(Ipv4Addr, u8)>) -> Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context(
                "cannot make a network namespace: run as root, or where user namespaces are allowed",
            )?;
            set_up_loopback(loopback).context("cannot set up the loopback device")?;
            let file = File::open("/proc/thread-self/ns/net")
                .context("cannot hold the network namespace")?;
            Ok(Self { file })
        })
    }

    /// Moves the calling thread into it, for good. Sockets that it opens, and processes that it
    /// starts, are inside. For a tokio runtime: in `on_thread_start`, and in the thread that calls
    /// `block_on`.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")
    }

    /// Runs `work` inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_own_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Sets a value below `/proc/sys/net`, for this namespace only.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys/net").join(name);
        self.run(|| {
            fs::write(&path, value).with_context(|| format!("cannot set {}", path.display()))
        })
    }

    /// Has TCP use this congestion control on `route`, for both accepted and dialled connections.
    ///
    /// By route, not by sysctl: in a namespace the sysctl takes only what the machine as a whole
    /// permits to everybody, which may leave out even cubic, and the machine is not ours to change.
    pub fn set_tcp_congestion(&self, route: &Route, name: &str) -> Result<()> {
        self.run(|| {
            with_netlink(async |netlink| {
                let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(route.network, route.prefix)
                    .output_interface(route.device)
                    .pref_source(route.source)
                    .scope(RouteScope::Link)
                    .build();
                let congestion = RouteMetric::CcAlgo(name.to_owned());
                message.attributes.push(RouteAttribute::Metrics(vec![congestion]));
                Ok(netlink.route().add(message).replace().execute().await?)
            })
            .with_context(|| format!("this kernel does not let us use {name:?} for TCP"))
        })
    }

    /// Has the kernel hold so many packets for a device. (By netlink: the ioctl for it asks for the
    /// rights of the whole machine.)
    pub fn set_queue(&self, device: u32, packets: u32) -> Result<()> {
        self.run(|| {
            with_netlink(async |netlink| {
                let link = LinkUnspec::new_with_index(device)
                    .append_extra_attribute(LinkAttribute::TxQueueLen(packets))
                    .build();
                Ok(netlink.link().set(link).execute().await?)
            })
            .context("cannot set the length of a device's queue")
        })
    }

    /// What the kernel counts in here: `dev` for its devices, `snmp` for its sockets.
    pub fn kernel_counters(&self, name: &str) -> Result<String> {
        let path = Path::new("/proc/thread-self/net").join(name);
        self.run(|| {
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        })
    }

    /// A path that opens this namespace, for as long as this process holds it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// A command that runs `program` inside, through [`exec`]: `wrapper` is this program with the
    /// sub-command that calls it. It can be started from any thread.
    pub fn command(&self, mut wrapper: Command, program: &Path) -> Command {
        wrapper.arg(self.path()).arg(program);
        wrapper
    }
}

/// A network that a device of a namespace leads to.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The device's index.
    pub device: u32,
    /// Its address.
    pub source: Ipv4Addr,
    /// The network.
    pub network: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
}

/// Turns this process into `command` inside the namespace at `path`. It ends when the thread that
/// started it ends, so that no server outlives a measurement that was killed; start it from a
/// thread that lives long. Returns only if it fails.
pub fn exec(path: &Path, command: &mut Command) -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    let enter = || -> Result<()> {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
            .context("cannot tie this process to its parent")?;
        self::enter(path)
    };
    match enter() {
        Ok(()) => anyhow!(command.exec())
            .context(format!("cannot start {}", command.get_program().to_string_lossy())),
        Err(error) => error,
    }
}

/// Moves the calling thread into the namespace at `path`, for good.
pub fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")
}

/// Runs something that changes the thread it runs on.
fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("weaknet-ns".to_owned())
            .spawn_scoped(scope, work)
            .context("cannot start a thread")?
            .join()
            .map_err(|_| anyhow!("work inside a network namespace panicked"))?
    })
}

/// Talks to the kernel about the namespace that the calling thread is in.
fn with_netlink<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        work(handle).await
    })
}

fn set_up_loopback(network: Option<(Ipv4Addr, u8)>) -> Result<()> {
    with_netlink(async |netlink| {
        let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
        netlink.link().set(up).execute().await?;
        if let Some((address, prefix)) = network {
            let addresses = netlink.address();
            addresses.add(LOOPBACK, IpAddr::V4(address), prefix).execute().await?;
        }
        Ok(())
    })
}
