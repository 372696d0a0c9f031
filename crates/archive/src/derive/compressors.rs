//! Compressors that a command line copies the segment through.

use super::Refusal;
use super::arguments::Arguments;
use super::line::{Copy, Made, find, is_segment, mentions_segment};
use crate::compression::Compression;
use crate::shell::Command;

/// What one of them understands, as far as it is followed.
struct Compressor {
    program: &'static str,
    compression: Compression,
    /// Short options that leave the target alone.
    flags: &'static str,
    /// Short options with a value, which leave it alone as well but for `-o`.
    takes_value: &'static str,
    /// Whether it removes the file that it has compressed.
    removes: bool,
}

const fn compressor(
    program: &'static str,
    compression: Compression,
    flags: &'static str,
    takes_value: &'static str,
    removes: bool,
) -> Compressor {
    Compressor {
        program,
        compression,
        flags,
        takes_value,
        removes,
    }
}

const KNOWN: [Compressor; 7] = [
    compressor("gzip", Compression::Gzip, "cfknqv123456789", "", true),
    compressor("pigz", Compression::Gzip, "cfknqvR0123456789", "pb", true),
    compressor("bzip2", Compression::Bzip2, "cfkqsvz123456789", "", true),
    compressor("pbzip2", Compression::Bzip2, "cfkqvz123456789", "pmb", true),
    compressor("xz", Compression::Xz, "cefkqvz0123456789", "T", true),
    compressor("zstd", Compression::Zstd, "cfkqvz0123456789", "oT", false),
    compressor("lz4", Compression::Lz4, "cfkqvyz123456789", "", false),
];
/// Long options that leave the target alone.
const LONG: [&str; 17] = [
    "stdout",
    "to-stdout",
    "force",
    "quiet",
    "verbose",
    "keep",
    "fast",
    "best",
    "no-name",
    "compress",
    "extreme",
    "rsyncable",
    "no-progress",
    "ultra",
    "adapt",
    "check",
    "content-size",
];

pub(super) fn is_known(program: &str) -> bool {
    KNOWN.iter().any(|known| known.program == program)
}

/// Follows one of them.
pub(super) fn step(program: &str, words: &[String], command: &Command, made: &mut Vec<Made>) -> Result<(), Refusal> {
    let Some(known) = KNOWN.iter().find(|known| known.program == program) else {
        return Err(format!("what {program} does with the segment is not known").into());
    };
    let arguments = Arguments::read(words, known.takes_value)?;
    let unknown_flag = arguments
        .short
        .iter()
        .find(|(flag, value)| value.is_none() && !known.flags.contains(*flag));
    if let Some((flag, _)) = unknown_flag {
        return Err(format!("what {program} does with its option -{flag} is not known").into());
    }
    let unknown = arguments
        .long
        .iter()
        .find(|long| !(LONG.contains(long) || long.starts_with("threads=") || long.starts_with("fast=")));
    if let Some(long) = unknown {
        let name = long.split('=').next().unwrap_or_default();
        return Err(format!("what {program} does with its option --{name} is not known").into());
    }
    let to_output = arguments.has('c', "stdout") || arguments.long.contains(&"to-stdout");
    let to = |path: &str| {
        Made::Copy(Copy {
            path: path.to_owned(),
            directory_named: false,
            compression: known.compression,
            program: program.to_owned(),
        })
    };
    match (arguments.operands.as_slice(), &command.stdin, &command.stdout) {
        // gzip < %p > /mnt/archive/%f.gz
        ([], Some(from), Some(out)) if is_segment(from) && arguments.value('o').is_none() => made.push(to(out)),
        // gzip -c %p > /mnt/archive/%f.gz
        ([from], None, Some(out)) if is_segment(from) && to_output => made.push(to(out)),
        // zstd %p -o /mnt/archive/%f.zst
        ([from], _, None) if is_segment(from) && !to_output => match arguments.value('o') {
            Some(out) => made.push(to(out)),
            None => return Err(format!("{program} in it compresses the segment where it lies").into()),
        },
        // lz4 %p /mnt/archive/%f.lz4
        ([from, out], _, None) if is_segment(from) && !to_output && program == "lz4" => made.push(to(out)),
        // cp %p /mnt/archive/%f && gzip /mnt/archive/%f
        ([path], _, None) if !to_output && arguments.value('o').is_none() => match find(made, path) {
            Some(copy) if copy.compression != Compression::None => {
                return Err("it compresses the segment twice".into());
            }
            Some(copy) if known.removes && !arguments.has('k', "keep") => {
                copy.path = format!("{path}.{}", known.compression.suffix());
                copy.compression = known.compression;
            }
            // The copy is still there.
            Some(_) => {}
            _ if mentions_segment(words) => {
                return Err(format!("{program} in it takes another file than %p").into());
            }
            _ => {}
        },
        _ => return Err(format!("it compresses the segment with {program} in a way that is not followed").into()),
    }
    Ok(())
}
