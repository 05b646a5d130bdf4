//! What the sandbox and the compiler give up before they touch anything hostile: environment, new rights, files, sockets, other
//! programs. Knows nothing of plugins.
//!
//! The filter is a list of what is allowed: the program is static and its own, so that the list is short and known, and a system
//! call of a kernel to come is refused until somebody has thought about it. What is refused fails with EPERM and is seen by
//! whoever called, instead of ending the process.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Is, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::limits;

/// What a process is confined for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Running guests.
    Sandbox,
    /// Compiling one component.
    Compiler,
}

/// Starts this program again without an environment, where it has one: what lies in a process's environment stays readable in
/// its memory.
pub(super) fn without_environment() -> anyhow::Result<()> {
    if std::env::vars_os().next().is_none() {
        return Ok(());
    }
    let error = Command::new("/proc/self/exe").arg0("substratus").args(std::env::args_os().skip(1)).env_clear().exec();
    Err(error).context("start again without an environment")
}

/// Gives up the rest, for good. Threads that start later are confined too; there must be no other yet.
pub(super) fn confine(purpose: Purpose) -> anyhow::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("forbid to be read by others")?;
    rustix::thread::set_no_new_privs(true).context("forbid new rights")?;
    limit(Resource::Core, 0)?;
    match purpose {
        Purpose::Sandbox => limit(Resource::Nofile, 4096)?,
        Purpose::Compiler => {
            limit(Resource::Cpu, limits::COMPILE_CPU.as_secs())?;
            limit(Resource::As, limits::COMPILE_MEMORY)?;
            limit(Resource::Nofile, 64)?;
            rustix::process::nice(10).context("step back behind others")?;
        }
    }
    let program = filter().context("make the filter of system calls")?;
    seccompiler::apply_filter(&program).context("apply the filter of system calls; the kernel must have seccomp")
}

/// No more than `most`, and no way back. Whoever has less keeps it.
fn limit(resource: Resource, most: u64) -> anyhow::Result<()> {
    let now = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    // Processor time ends with a signal that tells it apart from other ends, so the hard limit comes a little later.
    let hard = if resource == Resource::Cpu { most + 5 } else { most };
    rustix::process::setrlimit(resource, Rlimit { current: Some(most.min(now)), maximum: Some(hard.min(now)) })
        .with_context(|| format!("limit {resource:?} to {most}"))
}

/// Allowed whatever the arguments: reading and writing what is open, memory, threads, time. Nothing here opens a file or a socket,
/// starts a program, or reaches another process.
const ALLOWED: &[libc::c_long] = &[
    // What is open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_ftruncate,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Memory. `memfd_create` holds the initial memory of guests; there is no way to execute one.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    // Threads and signals of this process.
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
];

/// The older forms of some of them.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Allowed with one value of one argument: which call, which argument, the bits that count, their value.
fn conditional() -> [(libc::c_long, u8, u64, u64); 4] {
    let all = u64::from(u32::MAX);
    let bits = |value: libc::c_int| u64::from(value.cast_unsigned());
    [
        // Threads, and no processes.
        (libc::SYS_clone, 0, bits(libc::CLONE_THREAD), bits(libc::CLONE_THREAD)),
        // The name of a thread.
        (libc::SYS_prctl, 0, all, bits(libc::PR_SET_NAME)),
        // Whether to wait.
        (libc::SYS_ioctl, 1, all, FIONBIO),
        // A pair that is connected to itself alone: how signals reach the runtime.
        (libc::SYS_socketpair, 0, all, bits(libc::AF_UNIX)),
    ]
}

/// Set a file to wait or not.
const FIONBIO: u64 = 0x5421;

fn filter() -> anyhow::Result<BpfProgram> {
    let always = ALLOWED.iter().chain(OLDER).map(|call| anyhow::Ok((*call, Vec::new())));
    let conditional = conditional().into_iter().map(|(call, argument, mask, value)| {
        let condition = SeccompCondition::new(argument, Len::Dword, Is::MaskedEq(mask), value)?;
        anyhow::Ok((call, vec![SeccompRule::new(vec![condition])?]))
    });
    let rules: BTreeMap<i64, Vec<SeccompRule>> = always.chain(conditional).collect::<anyhow::Result<_>>()?;
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    /// Runs in a thread that is confined for good; the others of this process are not.
    fn filtered<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        let confined = move || {
            seccompiler::apply_filter(&filter().unwrap()).unwrap();
            run()
        };
        thread::spawn(confined).join().unwrap()
    }

    fn refused<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.raw_os_error() == Some(1))
    }

    #[test]
    fn no_socket_can_be_opened() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(TcpStream::connect(address).is_ok(), "without the filter it works");
        assert!(filtered(move || refused(TcpStream::connect(address))));
        assert!(filtered(|| refused(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))));
        assert!(filtered(|| refused(TcpListener::bind("[::1]:0"))));
        assert!(filtered(|| refused(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))));
        assert!(filtered(|| refused(UnixStream::connect("/run/nobody"))));
    }

    #[test]
    fn no_file_can_be_opened_and_no_program_started() {
        assert!(std::fs::File::open("/proc/self/status").is_ok(), "without the filter it works");
        assert!(filtered(|| refused(std::fs::File::open("/proc/self/status"))));
        assert!(filtered(|| refused(std::fs::metadata("/"))));
        assert!(filtered(|| refused(std::fs::create_dir("/tmp/substratus-filter"))));
        assert!(filtered(|| refused(Command::new("/proc/self/exe").arg("--list").spawn())));
        assert!(filtered(|| refused(Err::<(), _>(Command::new("/proc/self/exe").exec()))));
    }

    #[test]
    fn no_other_process_can_be_reached() {
        use rustix::process::{Pid, Signal, getppid, kill_process};
        let parent = getppid().unwrap_or(Pid::INIT);
        assert!(kill_process(parent, Signal::CONT).is_ok(), "without the filter it works");
        assert!(filtered(move || kill_process(parent, Signal::CONT).is_err()));
        assert!(filtered(|| rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).is_err()));
    }

    #[test]
    fn what_a_guest_needs_works() {
        let sum = filtered(|| {
            let threads: Vec<_> = (0..4_u64).map(|n| thread::spawn(move || vec![n; 1 << 20].iter().sum::<u64>())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
        });
        assert_eq!(sum, 6 << 20);
        let (mut one, mut two) = UnixStream::pair().unwrap();
        filtered(move || one.write_all(b"ok")).unwrap();
        let mut text = String::new();
        two.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ok");
        let answer = filtered(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                7
            })
        });
        assert_eq!(answer, 7);
    }

    #[test]
    fn what_is_dangerous_is_on_no_list() {
        let calls = ALLOWED.iter().chain(OLDER).copied().chain(conditional().map(|(call, ..)| call));
        let dangerous = [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_kill,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_kexec_load,
            libc::SYS_setuid,
            libc::SYS_prlimit64,
        ];
        let found: Vec<_> = calls.filter(|call| dangerous.contains(call)).collect();
        assert_eq!(found, Vec::<libc::c_long>::new());
    }
}
