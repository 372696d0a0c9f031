//! The one place that starts another process: a program, bounded in time and at low priority, or a function of ours that touches
//! disks which may not answer. Neither outlives the process that asked.
//!
//! Between PostgreSQL's process and that one stands a keeper, a bare fork that holds nothing of the server. It ends the
//! program, and whatever the program started in its process group, as soon as it is told so or its own parent is gone, be it
//! by SIGKILL. And it inherits and reaps what the program leaves behind: where the postmaster is process 1, as in many
//! containers, it would inherit that otherwise, and it takes an unknown child that ended by a signal for a crashed backend
//! and restarts the server (CleanupBackend() in postmaster.c).
//!
//! ```text
//! backend or worker ── socket ── keeper ── program or function   (a process group of its own)
//! ```
//!
//! A system call on a network mount that is gone does not return, and no signal ends it. In a process of the server it would
//! hold up a shutdown, and CREATE and DROP DATABASE everywhere; here it holds up a process that nobody waits for.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_long};
use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, Read};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::time::{Duration, Instant, SystemTime};

use pgrx::prelude::*;

use crate::foreign_text;

mod function;
mod keeper;

pub use function::{FunctionProcess, PATIENCE, look_at};
use keeper::{Keep, Message, Task};

/// As much of what a program prints is kept, the last of it, bytes.
const KEPT: usize = 4096;
/// As much is read at a time, bytes: what a pipe holds.
const READ_AT_ONCE: usize = 64 * 1024;
// While a program runs it is looked at this often, more and more rarely; its end is noticed at once whatever these are.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// A keeper that has been told to end needs less, unless the kernel cannot end the program: a dead network mount.
const ENDING: Duration = Duration::from_secs(1);

/// What to start.
#[derive(Debug)]
pub struct Program {
    arguments: Vec<CString>,
    directory: CString,
}

/// Why a program did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The operating system did not start it.
    #[error("it could not be started: {0}")]
    NotStarted(#[from] io::Error),
    /// A command line or path with a zero byte in it.
    #[error("its command line holds a zero byte")]
    ZeroByte(#[from] std::ffi::NulError),
    /// The deadline has passed.
    #[error("it had not ended after {} s and was ended", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The caller found a reason to end it.
    #[error("{0}")]
    Stopped(String),
    /// Its keeper is gone, with it or without; or a function ended without an answer.
    #[error("it was lost: it, or the process that watches over it, was ended")]
    Lost,
    /// A function found no memory.
    #[error("out of memory")]
    OutOfMemory,
    /// A function has not answered since then. It may still do so, as long as it is not dropped.
    #[error("there has been no answer")]
    NoAnswer(SystemTime),
    /// A function that is at work on the same place was to end then; it still waits for the system, which does not let it end.
    #[error("there has been no answer to an earlier call")]
    StillWaits(SystemTime),
    /// A function panicked.
    #[error("it failed ({0}); this is a defect of pg_backstop: please report it")]
    Panicked(String),
    /// What it said cannot be understood.
    #[error("its answer cannot be understood: {0}")]
    Garbled(String),
}

/// What a program did.
#[derive(Debug)]
pub struct Ended<R> {
    /// How it ended by itself, or why it did not.
    pub result: R,
    /// The last 4 kB of what it printed, as it printed them: secrets included.
    pub said: String,
}

impl Program {
    /// A line for the shell, as system() would start it, in `directory`.
    ///
    /// # Errors
    /// Where either holds a zero byte.
    pub fn shell(line: &str, directory: &std::path::Path) -> Result<Self, ProgramError> {
        use std::os::unix::ffi::OsStrExt;
        Ok(Self {
            arguments: vec![
                c"/bin/sh".to_owned(),
                c"-c".to_owned(),
                CString::new(foreign_text::encode(line))?,
            ],
            directory: CString::new(directory.as_os_str().as_bytes())?,
        })
    }

    /// Runs it to its end, or to the end of `timeout`, and reads what it prints.
    ///
    /// Its environment is this process's; its standard input is empty; it starts with default signal handling.
    /// `between` is called at least every 100 ms, to answer interrupts and to end the program early, with a reason.
    /// Nothing of it runs any more when this returns or unwinds, save what left its process group.
    pub fn run(
        &self,
        timeout: Duration,
        between: &mut dyn FnMut() -> ControlFlow<String>,
    ) -> Ended<Result<ExitStatus, ProgramError>> {
        let mut said = Said::default();
        let result = self.run_reading(&mut said, timeout, between);
        Ended {
            result,
            said: said.text(),
        }
    }

    fn run_reading(
        &self,
        said: &mut Said,
        timeout: Duration,
        between: &mut dyn FnMut() -> ControlFlow<String>,
    ) -> Result<ExitStatus, ProgramError> {
        let began = Instant::now();
        let (running, mut output) = Running::program(self)?;
        let mut printed = Printed::Something;
        let mut wait = SHORTEST_WAIT;
        loop {
            if let Some(status) = running.status()? {
                said.read_rest(&mut output)?;
                return Ok(status);
            }
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(ProgramError::TimedOut(timeout));
            }
            // A program may close its output and go on, or leave it to a process of another group: hence the timeout.
            match printed {
                Printed::Something => wait_for(Some(output.as_raw_fd()), wait.min(left)),
                Printed::TooMuch => wait_for(None, SHORTEST_WAIT),
                Printed::All => wait_for(Some(running.socket()), wait.min(left)),
            }
            wait = (wait * 2).min(LONGEST_WAIT);
            if printed != Printed::All {
                printed = said.read(&mut output)?;
            }
            if let ControlFlow::Break(reason) = between() {
                return Err(ProgramError::Stopped(reason));
            }
        }
    }
}

/// Waits for this process's latch, or for the time to pass.
pub fn wait_for_latch(timeout: Duration) {
    wait_for(None, timeout);
}

/// Waits for this process's latch, for something to read if it is given, or for the time to pass.
fn wait_for(socket: Option<RawFd>, timeout: Duration) {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    if socket.is_some() {
        events |= pg_sys::WL_SOCKET_READABLE;
    }
    let milliseconds = c_long::try_from(timeout.as_millis()).unwrap_or(1).max(1);
    // SAFETY: MyLatch belongs to this process, and the caller holds the descriptor open.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as c_int,
            socket.unwrap_or(pg_sys::PGINVALID_SOCKET),
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// How a program's output goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Printed {
    /// All that there was is read; there may be more.
    Something,
    /// It came in such an amount that the program is made to wait: reading on and on would take a core.
    TooMuch,
    /// Nobody has it open any more.
    All,
}

/// The end of what a program has printed.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    cut: bool,
}

impl Said {
    /// Takes what there is, within reason.
    fn read(&mut self, output: &mut PipeReader) -> io::Result<Printed> {
        let mut piece = [0; 4 * KEPT];
        let mut taken = 0;
        while taken < READ_AT_ONCE {
            let read = match output.read(&mut piece) {
                Ok(0) => return Ok(Printed::All),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock && taken < KEPT => return Ok(Printed::Something),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            taken += read;
            self.bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
            let superfluous = self.bytes.len().saturating_sub(KEPT);
            self.cut |= superfluous > 0;
            self.bytes.drain(..superfluous);
        }
        Ok(Printed::TooMuch)
    }

    /// Takes what a program that has ended left in the pipe, and no more than a pipe holds: others may go on printing.
    fn read_rest(&mut self, output: &mut PipeReader) -> io::Result<()> {
        if self.read(output)? == Printed::TooMuch {
            self.read(output)?;
        }
        Ok(())
    }

    /// Without the rest of a line that was cut: the word that gives a secret away may have been in front.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if !self.cut {
            return text.trim().to_owned();
        }
        let whole = text
            .split_once('\n')
            .or_else(|| text.split_once(char::is_whitespace))
            .map_or("", |(_, whole)| whole);
        format!("… {}", whole.trim())
    }
}

/// The keeper of a process that runs, and what talks to it.
struct Keeper {
    process: libc::pid_t,
    socket: UnixStream,
    /// What the process that it keeps is at work on; empty for a program.
    place: String,
}

/// A keeper whose process the kernel does not let end.
struct Left {
    process: libc::pid_t,
    since: SystemTime,
    place: String,
}

/// With so many of them nothing more is looked at: each is a process of the machine's.
const MOST_LEFT: usize = 8;

thread_local! {
    // PostgreSQL ends a process without unwinding it, so what is to be ended then must be found from outside.
    static RUNNING: RefCell<Vec<Keeper>> = const { RefCell::new(Vec::new()) };
    /// Those that could not end their process in time; each ends when the kernel lets go.
    static LEFT: RefCell<Vec<Left>> = const { RefCell::new(Vec::new()) };
}

/// Since when a process at work on this place has been on its way to its end, if one is; or the oldest, where there are too many.
fn left_since(place: &str) -> Option<SystemTime> {
    LEFT.with_borrow_mut(|left| {
        left.retain(|left| !reaped(left.process, libc::WNOHANG));
        let are_too_many = left.len() >= MOST_LEFT;
        left.iter()
            .find(|left| are_too_many || left.place == place)
            .map(|left| left.since)
    })
}

/// The right to a running process: ends it when dropped.
struct Running {
    keeper: libc::pid_t,
    socket: RawFd,
}

impl Running {
    fn program(program: &Program) -> io::Result<(Self, PipeReader)> {
        let null = File::open("/dev/null")?;
        let (output, printed) = io::pipe()?;
        set_nonblocking(output.as_raw_fd())?;
        let arguments: Vec<*const c_char> = program
            .arguments
            .iter()
            .map(|argument| argument.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        let task = Task::Program {
            arguments: &arguments,
            directory: &program.directory,
            input: null.as_raw_fd(),
            output: printed.as_raw_fd(),
        };
        let running = Self::start(task, "")?;
        Ok((running, output))
    }

    fn start(task: Task<'_>, place: &str) -> io::Result<Self> {
        end_with_this_process();
        // Takes those that have ended off the kernel's list.
        left_since(place);
        let (socket, end) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let mut keep = Keep {
            task,
            socket: end.as_raw_fd(),
        };
        // SAFETY: the child makes system calls only and never comes back; signals are let in again here as they were.
        let process = unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::sigprocmask(libc::SIG_SETMASK, &all, &mut before);
            let process = libc::fork();
            let error = io::Error::last_os_error();
            if process == 0 {
                keep.forever();
            }
            libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
            if process < 0 {
                return Err(error);
            }
            process
        };
        let running = Self {
            keeper: process,
            socket: socket.as_raw_fd(),
        };
        let place = place.to_owned();
        RUNNING.with_borrow_mut(|all| all.push(Keeper { process, socket, place }));
        Ok(running)
    }

    /// Becomes readable when the program ends.
    fn socket(&self) -> RawFd {
        self.socket
    }

    /// How the program has ended, if it has.
    fn status(&self) -> Result<Option<ExitStatus>, ProgramError> {
        RUNNING.with_borrow(|all| {
            let Some(keeper) = all.iter().find(|keeper| keeper.process == self.keeper) else {
                return Err(ProgramError::Lost);
            };
            let mut message = [0; 8];
            match (&keeper.socket).read(&mut message) {
                Ok(8) => Message::from(message).into_status().map(Some),
                Ok(_) => Err(ProgramError::Lost),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
                Err(_) => Err(ProgramError::Lost),
            }
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let keeper = RUNNING.try_with(|all| {
            let mut all = all.borrow_mut();
            let place = all.iter().position(|keeper| keeper.process == self.keeper)?;
            Some(all.swap_remove(place))
        });
        if let Ok(Some(keeper)) = keeper {
            stop(keeper);
        }
    }
}

/// Ends a process. Waits no longer than [`ENDING`].
fn stop(keeper: Keeper) {
    // Even a keeper that hears nothing of this sees the socket closed.
    let _ = keeper.socket.shutdown(Shutdown::Write);
    let asked = Instant::now();
    let mut ended = false;
    while let Some(left) = ENDING.checked_sub(asked.elapsed()).filter(|_| !ended) {
        let mut awaited = libc::pollfd {
            fd: keeper.socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid entry; a signal ends the wait early.
        unsafe { libc::poll(&mut awaited, 1, c_int::try_from(left.as_millis()).unwrap_or(1000) + 1) };
        // A status that nobody waited for may come before the end.
        ended = matches!((&keeper.socket).read(&mut [0; 8]), Ok(0));
    }
    if !(ended && reaped(keeper.process, 0)) {
        let left = Left {
            process: keeper.process,
            since: SystemTime::now(),
            place: keeper.place,
        };
        let _ = LEFT.try_with(|all| all.borrow_mut().push(left));
    }
}

/// Takes the keeper off the kernel's list; `false` if it still runs.
fn reaped(keeper: libc::pid_t, flags: c_int) -> bool {
    loop {
        // SAFETY: a child of this process that nobody else waits for; its status is of no interest.
        let answer = unsafe { libc::waitpid(keeper, std::ptr::null_mut(), flags) };
        match answer {
            -1 if io::Error::last_os_error().kind() == ErrorKind::Interrupted => {}
            // An error: there is no such child, for example because the process ignores SIGCHLD.
            answer => return answer != 0,
        }
    }
}

/// Has processes end with this one, however PostgreSQL ends it: FATAL errors and shutdowns unwind nothing.
fn end_with_this_process() {
    thread_local! {
        static ARRANGED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if !ARRANGED.replace(true) {
        // SAFETY: the callback is a plain function that raises no error.
        unsafe { pg_sys::before_shmem_exit(Some(stop_at_exit), pg_sys::Datum::from(0)) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stop_at_exit(_code: c_int, _argument: pg_sys::Datum) {
    if let Ok(all) = RUNNING.try_with(RefCell::take) {
        all.into_iter().for_each(stop);
    }
}

fn set_nonblocking(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: flags of a descriptor that the caller holds open.
    let set = unsafe {
        let flags = libc::fcntl(descriptor, libc::F_GETFL);
        libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    if set < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
