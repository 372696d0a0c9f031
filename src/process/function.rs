//! A function of ours in a process of its own, asked and answered through a socket: for whatever may wait for a disk for ever.
//!
//! What asks waits with its latch and for so long as it says. What answers is a copy of the asking process as it was at the
//! start, without the server's memory and files: it may compute, allocate, panic and read files, and must not call PostgreSQL.
//! A message is four bytes of length and then `postcard` of one [`Message`] or of a question.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::keeper::{CHANNEL, Task};
use super::{ProgramError, Running, left_since, wait_for};

/// A function that works says so at most this often.
const BETWEEN_SIGNS: Duration = Duration::from_millis(50);
/// Between two looks for interrupts of the process that asks.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// Between two attempts to write what the socket had no room for.
const BETWEEN_WRITES: Duration = Duration::from_millis(1);
/// What is read at once, bytes.
const PIECE: usize = 64 << 10;
/// No answer is larger, bytes: that of an archive of a million segments is a tenth of it.
const LARGEST: usize = 256 << 20;

/// What a function says.
#[derive(Serialize, Deserialize)]
enum Message<A> {
    /// It works.
    Working,
    /// What came of the question.
    Answer(A),
    /// It panicked, and ends.
    Panicked(String),
    /// It found no memory, and ends.
    OutOfMemory,
}

/// A function that runs, with questions of type `Q` and answers of type `A`. Ends when dropped.
pub struct FunctionProcess<Q, A> {
    stream: UnixStream,
    received: Vec<u8>,
    /// Since when an answer is due that nobody waits for any more.
    unanswered_since: Option<(Instant, SystemTime)>,
    _running: Running,
    _types: PhantomData<(Q, A)>,
}

impl<Q: Serialize + DeserializeOwned, A: Serialize + DeserializeOwned> FunctionProcess<Q, A> {
    /// Starts it, to work on what lies at `place`. `answer` is called in the new process with each question, and with what it calls now and then to say that it
    /// works.
    ///
    /// # Errors
    /// Where the system starts none, or where one that was started before still waits for the system.
    pub fn start(place: &str, mut answer: impl FnMut(Q, &mut dyn FnMut()) -> A) -> Result<Self, ProgramError> {
        if let Some(since) = left_since(place) {
            return Err(ProgramError::StillWaits(since));
        }
        let null = File::open("/dev/null")?;
        let (stream, channel) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let task = Task::Function {
            run: &mut || serve(&mut answer),
            channel: channel.as_raw_fd(),
            null: null.as_raw_fd(),
        };
        let running = Running::start(task, place)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            unanswered_since: None,
            _running: running,
            _types: PhantomData,
        })
    }

    /// Asks, and waits for the answer as long as there is a sign of life at least every `patience`. `between` is called at least
    /// every 100 ms; it may raise an error, and is told for how long nothing has been heard.
    ///
    /// # Errors
    /// [`ProgramError::NoAnswer`] where nothing was heard for that long: the answer may be waited for by asking again, which
    /// then first gives up the old one when it comes. Any other error ends the function.
    pub fn ask(
        &mut self,
        question: &Q,
        patience: Duration,
        between: &mut dyn FnMut(Duration),
    ) -> Result<A, ProgramError> {
        if let Some(since) = self.unanswered_since {
            self.answer(since, patience, between)?;
        }
        let since = (Instant::now(), SystemTime::now());
        self.unanswered_since = Some(since);
        self.send(question, since.0, patience, between)?;
        self.answer(since, patience, between)
    }

    fn send(
        &mut self,
        question: &Q,
        since: Instant,
        patience: Duration,
        between: &mut dyn FnMut(Duration),
    ) -> Result<(), ProgramError> {
        let bytes = frame(question).map_err(|error| ProgramError::Garbled(error.to_string()))?;
        let (mut left, mut moved) = (bytes.as_slice(), since);
        while !left.is_empty() {
            match self.stream.write(left) {
                Ok(written) => {
                    left = left.get(written..).unwrap_or_default();
                    moved = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    between(moved.elapsed());
                    if moved.elapsed() >= patience {
                        // Half a question can be neither finished nor taken back.
                        return Err(ProgramError::Lost);
                    }
                    wait_for(None, BETWEEN_WRITES);
                }
                Err(_) => return Err(ProgramError::Lost),
            }
        }
        Ok(())
    }

    /// Waits for the answer to what was asked at `since`, which is given by both clocks.
    fn answer(
        &mut self,
        since: (Instant, SystemTime),
        patience: Duration,
        between: &mut dyn FnMut(Duration),
    ) -> Result<A, ProgramError> {
        let waits_since = Instant::now();
        let (mut heard, mut heard_at) = (since.0, since.1);
        loop {
            while let Some(message) = self.next()? {
                (heard, heard_at) = (Instant::now(), SystemTime::now());
                match message {
                    Message::Working => {}
                    Message::Answer(answer) => {
                        self.unanswered_since = None;
                        return Ok(answer);
                    }
                    Message::Panicked(message) => return Err(ProgramError::Panicked(message)),
                    Message::OutOfMemory => return Err(ProgramError::OutOfMemory),
                }
            }
            between(heard.elapsed());
            if heard.max(waits_since).elapsed() >= patience {
                return Err(ProgramError::NoAnswer(heard_at));
            }
            wait_for(Some(self.stream.as_raw_fd()), LONGEST_WAIT);
        }
    }

    /// The next message, if it is here.
    fn next(&mut self) -> Result<Option<Message<A>>, ProgramError> {
        let mut piece = [0; PIECE];
        loop {
            if let Some((length, rest)) = self.received.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                if length > LARGEST {
                    return Err(ProgramError::Garbled(format!("it has {length} bytes")));
                }
                if let Some(bytes) = rest.get(..length) {
                    let message =
                        postcard::from_bytes(bytes).map_err(|error| ProgramError::Garbled(error.to_string()))?;
                    self.received.drain(..length + 4);
                    return Ok(Some(message));
                }
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ProgramError::Lost),
                Ok(read) => self.received.extend_from_slice(piece.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(ProgramError::Lost),
            }
        }
    }
}

/// Runs `work` in a process of its own, and gives what it returns. `work` gets what it calls now and then to say that it works;
/// the rest is as in [`FunctionProcess::ask`].
///
/// # Errors
/// As [`FunctionProcess::start`] and [`FunctionProcess::ask`]; the function is ended in any case.
fn call<R: Serialize + DeserializeOwned>(
    place: &str,
    work: impl FnOnce(&mut dyn FnMut()) -> R,
    patience: Duration,
    between: &mut dyn FnMut(Duration),
) -> Result<R, ProgramError> {
    let mut work = Some(work);
    let mut function: FunctionProcess<(), Option<R>> =
        FunctionProcess::start(place, |(), working| work.take().map(|work| work(working)))?;
    function.ask(&(), patience, between)?.ok_or(ProgramError::Lost)
}

/// How long a session waits for a disk: its user may end it before.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Has `work` look at what lies at `place`, on a disk that need not answer, for a session's function.
///
/// # Errors
/// A sentence without its full stop, where there is no answer.
pub fn look_at<R: Serialize + DeserializeOwned>(
    place: &str,
    work: impl FnOnce(&mut dyn FnMut()) -> R,
) -> Result<R, String> {
    let between = &mut |_| {
        crate::memory::check_for_interrupts();
    };
    call(place, work, PATIENCE, between).map_err(|error| error.about(place))
}

impl ProgramError {
    /// What the error means for whoever asked about what lies at `place`: a sentence without its full stop.
    pub fn about(&self, place: &str) -> String {
        match self {
            Self::NoAnswer(since) | Self::StillWaits(since) => format!(
                "{place} has not answered since {}: reading it does not return, as on a network mount whose server is gone",
                recovery::sentence::moment(chrono::DateTime::from(*since))
            ),
            error => format!("the process that reads {place} failed: {error}"),
        }
    }
}

/// The life of a function's process: answers one question after another until nobody listens any more.
fn serve<Q: DeserializeOwned, A: Serialize>(answer: &mut dyn FnMut(Q, &mut dyn FnMut()) -> A) {
    // SAFETY: the keeper has put the socket there, and nothing else in this process knows of it.
    let mut stream = unsafe { UnixStream::from_raw_fd(CHANNEL) };
    let ended: io::Result<()> = (|| {
        loop {
            let question = read_frame(&mut stream)?;
            let mut signed = Instant::now();
            let mut working = || {
                if signed.elapsed() >= BETWEEN_SIGNS {
                    signed = Instant::now();
                    // Whoever does not listen any more ends this process.
                    let _ = frame(&Message::<()>::Working).map(|frame| stream.write_all(&frame));
                }
            };
            let message = match catch_unwind(AssertUnwindSafe(|| answer(question, &mut working))) {
                Ok(answer) => Message::Answer(answer),
                Err(panic) if crate::memory::is_out_of_memory(&*panic) => Message::OutOfMemory,
                Err(panic) => Message::Panicked(archive::panic_message(&*panic)),
            };
            stream.write_all(&frame(&message)?)?;
            if !matches!(message, Message::Answer(_)) {
                return Ok(());
            }
        }
    })();
    // The end of the stream is the end of the work.
    drop(ended);
}

fn frame<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(value, vec![0; 4]).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    if let Some(place) = bytes.first_chunk_mut::<4>() {
        *place = length.to_le_bytes();
    }
    Ok(bytes)
}

fn read_frame<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}
