//! The process between the server's and the one that works: starts that, ends it, and cleans up after it.
//!
//! All of it runs after fork(), in an image of a PostgreSQL process: it makes system calls, allocates nothing, raises no
//! error and never comes back. Only a function's own process does more; what it must not touch is PostgreSQL.

use super::ProgramError;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The weight of a program beside the server's own processes, as of nice(1).
const NICENESS: c_int = 10;
/// Where the keeper has its socket, once all else is closed.
const SOCKET: RawFd = 0;

/// What the keeper tells: how the program ended, or why there is none.
#[derive(Clone, Copy)]
pub enum Message {
    /// As waitpid() gives it.
    Ended(c_int),
    /// The error number of fork().
    NotStarted(c_int),
}

impl Message {
    /// How the program ended.
    ///
    /// # Errors
    /// Where there was none.
    pub fn into_status(self) -> Result<ExitStatus, ProgramError> {
        match self {
            Self::Ended(status) => Ok(ExitStatus::from_raw(status)),
            Self::NotStarted(error) => Err(ProgramError::NotStarted(io::Error::from_raw_os_error(error))),
        }
    }
}

impl From<Message> for [u8; 8] {
    fn from(message: Message) -> Self {
        let (kind, value) = match message {
            Message::Ended(status) => (0_u64, status),
            Message::NotStarted(error) => (1, error),
        };
        (kind << 32 | u64::from(value.cast_unsigned())).to_ne_bytes()
    }
}

impl From<[u8; 8]> for Message {
    fn from(bytes: [u8; 8]) -> Self {
        let number = u64::from_ne_bytes(bytes);
        // The lower half, as it was put there.
        let value = (number as u32).cast_signed();
        if number >> 32 == 0 {
            Self::Ended(value)
        } else {
            Self::NotStarted(value)
        }
    }
}

unsafe extern "C" {
    /// Lets go of the server's shared memory, in this process only (storage/pg_shmem.h).
    fn PGSharedMemoryDetach();
}

/// Does nothing, but interrupts a wait.
extern "C" fn wake(_signal: c_int) {}

/// What the keeper's child is to do, made before the fork.
pub enum Task<'a> {
    /// Become another program.
    Program {
        /// The program and its arguments; the last entry is null.
        arguments: &'a [*const c_char],
        /// Where it starts.
        directory: &'a CStr,
        /// Its standard input.
        input: RawFd,
        /// Its standard output and error.
        output: RawFd,
    },
    /// Run a function of ours to its end. It must not touch PostgreSQL: no shared memory is there, and no signal handler.
    Function {
        /// The function.
        run: &'a mut dyn FnMut(),
        /// What it talks through; it finds that under the number [`CHANNEL`].
        channel: RawFd,
        /// What it has in place of standard output and error.
        null: RawFd,
    },
}

/// Where a function has its end of the socket to the server's process.
pub const CHANNEL: RawFd = 0;

/// The keeper and what it keeps.
pub struct Keep<'a> {
    /// What is to be done.
    pub task: Task<'a>,
    /// The keeper's end of the socket to the server's process.
    pub socket: RawFd,
}

impl Keep<'_> {
    /// The keeper's life: all signals stay blocked, for what PostgreSQL's handlers touch is not there any more.
    ///
    /// # Safety
    /// Only in a child just forked, with all signals blocked.
    pub unsafe fn forever(&mut self) -> ! {
        // SAFETY: system calls, in a process with one thread and no way back.
        unsafe {
            // Out of reach of what the postmaster sends to the group of a backend.
            libc::setpgid(0, 0);
            // The kernel may hold a keeper for long, and no server starts while the shared memory of the last one is in use.
            PGSharedMemoryDetach();
            // Nor should it keep the data directory's file system busy. A program starts where it is told to.
            libc::chdir(c"/".as_ptr());
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }
            let keeper = libc::getpid();
            let program = libc::fork();
            if program == 0 {
                self.work(keeper);
            }
            let error = *libc::__errno_location();
            // Files of the server, the connection of its client, the life line of the postmaster: none is kept open.
            libc::dup2(self.socket, SOCKET);
            close_from(SOCKET + 1);
            if program < 0 {
                tell(Message::NotStarted(error));
                libc::_exit(0);
            }
            // Both sides do it, so that it is done before either goes on.
            libc::setpgid(program, program);
            let wake: extern "C" fn(c_int) = wake;
            libc::signal(libc::SIGCHLD, wake as libc::sighandler_t);
            let told_to_end = await_end_of(program);
            // All that it started goes with it. No other group can get its number while the program is not reaped.
            libc::kill(-program, libc::SIGKILL);
            let mut status = 0;
            libc::waitpid(program, &mut status, 0);
            if !told_to_end {
                tell(Message::Ended(status));
            }
            while libc::waitpid(-program, std::ptr::null_mut(), 0) > 0 {}
            // 0, for a postmaster that is process 1 may inherit the keeper itself.
            libc::_exit(0);
        }
    }

    /// Puts everything in place that the task should find, and does it.
    ///
    /// # Safety
    /// Only in the keeper's child.
    unsafe fn work(&mut self, keeper: libc::pid_t) -> ! {
        // SAFETY: system calls, in a process with one thread and no way back; the arguments end with null.
        unsafe {
            libc::setpgid(0, 0);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != keeper {
                libc::_exit(0);
            }
            let (input, output) = match &self.task {
                Task::Program { input, output, .. } => (*input, *output),
                Task::Function { channel, null, .. } => (*channel, *null),
            };
            libc::dup2(input, 0);
            libc::dup2(output, 1);
            libc::dup2(output, 2);
            close_from(3);
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            match &mut self.task {
                Task::Program {
                    arguments, directory, ..
                } => {
                    libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
                    if libc::chdir(directory.as_ptr()) == 0
                        && let Some(program) = arguments.first()
                    {
                        libc::execvp(*program, arguments.as_ptr());
                    }
                    // As system() answers where there is no shell.
                    libc::_exit(127);
                }
                Task::Function { run, .. } => {
                    // What ps and top show of it besides the title of the process that it is a copy of.
                    libc::prctl(libc::PR_SET_NAME, c"backstop_reader".as_ptr());
                    // Nothing of the server's process that this one is a copy of must be unwound.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                    libc::_exit(0);
                }
            }
        }
    }
}

/// Waits until the program has ended, or the server's process has or wants an end of it: `true`.
///
/// # Safety
/// Only in the keeper, with all signals blocked.
unsafe fn await_end_of(program: libc::pid_t) -> bool {
    // SAFETY: system calls on values of this function.
    unsafe {
        let mut all_but_children = std::mem::zeroed();
        libc::sigfillset(&mut all_but_children);
        libc::sigdelset(&mut all_but_children, libc::SIGCHLD);
        loop {
            loop {
                // The program itself is not reaped here: its number is its group's.
                let ended = ended_child();
                if ended == program {
                    return false;
                }
                // An orphan of the program, which was given to the keeper.
                if ended == 0 || libc::waitpid(ended, std::ptr::null_mut(), libc::WNOHANG) < 0 {
                    break;
                }
            }
            let mut socket = libc::pollfd {
                fd: SOCKET,
                events: libc::POLLIN,
                revents: 0,
            };
            // The end of a child interrupts it, and can do so nowhere else.
            if libc::ppoll(&mut socket, 1, std::ptr::null(), &all_but_children) > 0 {
                return true;
            }
        }
    }
}

/// A child that has ended and is not reaped yet, or 0.
fn ended_child() -> libc::pid_t {
    // SAFETY: fills a value of this function, which is all zeros where no child has ended.
    unsafe {
        let mut ended: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(
            libc::P_ALL,
            0,
            &mut ended,
            libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
        );
        ended.si_pid()
    }
}

fn tell(message: Message) {
    let bytes: [u8; 8] = message.into();
    // SAFETY: the bytes are there; no signal comes where nobody listens any more.
    unsafe { libc::send(SOCKET, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
}

/// Closes all descriptors from `first` on.
///
/// # Safety
/// Nothing may use them any more.
unsafe fn close_from(first: c_int) {
    // SAFETY: as promised by the caller.
    unsafe {
        // By its number: older C libraries have no function for it. Kernels before 5.9 have none either.
        if libc::syscall(libc::SYS_close_range, first.cast_unsigned(), c_uint::MAX, 0) != 0 {
            for descriptor in first..c_int::try_from(libc::sysconf(libc::_SC_OPEN_MAX)).unwrap_or(65_536) {
                libc::close(descriptor);
            }
        }
    }
}
