//! Whether `restore_command` brings what recovery will ask it for: tried with one segment, and compared with what was verified.

use std::time::Instant;

use wal::{SegmentName, SegmentReader, SegmentVerifier};

use super::{Checks, Status};
use crate::catalog::prepare;
use crate::error::Result;
use crate::process;
use crate::restore_command::{self, Fetched};
use crate::server::{self, Server};
use crate::verification::hexadecimal;

const ITEM: &str = "restore_command";

/// Fetches `segment` by the server's `restore_command`.
pub fn check(
    server: &Server,
    segment: Option<SegmentName>,
    checks: &mut Checks,
    between: &mut dyn FnMut(),
) -> Result<()> {
    let Some(segment) = segment else {
        checks.add(
            ITEM,
            Status::Skipped,
            "no segment of the archive is needed, or none can be told",
        );
        return Ok(());
    };
    let command = server::setting(c"restore_command").unwrap_or_default();
    if command.is_empty() {
        let found = format!(
            "it is not set on this server, so it was not tried; the recovery needs one that fetches segment {segment} and what follows"
        );
        checks.add(ITEM, Status::Warning, found);
        return Ok(());
    }
    let expected = prepare::verified_sha256(&segment.to_string())?;
    let began = Instant::now();
    let fetched = match restore_command::fetch(server, &command, &segment.to_string(), between) {
        Ok(Fetched::File(file)) => file,
        Ok(Fetched::NotThere(why)) => {
            checks.add(
                ITEM,
                Status::Failed,
                format!("it did not bring segment {segment}: {why}"),
            );
            return Ok(());
        }
        Err(error) => {
            checks.add(ITEM, Status::Failed, error);
            return Ok(());
        }
    };
    let took = began.elapsed().as_millis();
    let history = server.history()?;
    // It may have made a link to the archive, whose disk need not answer.
    let read = process::look_at(&format!("what it left at %p for segment {segment}"), |working| {
        let opened = restore_command::open(&fetched.path());
        let (file, _) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return Err(restore_command::left_nothing(&segment.to_string())),
            Err(what) => return Err(format!("what it left at %p {what}")),
        };
        let history = history.contains(segment.timeline).then_some(&history);
        let verifier = SegmentVerifier::new(&server.format, segment, history, None);
        let outcome = SegmentReader::new().verify(file, verifier, &mut |_| working());
        let fault = outcome.result.err();
        Ok((
            hexadecimal(&outcome.sha256),
            fault.map(|fault| format!("{}: {fault}", fault.problem.status().as_str())),
        ))
    });
    let (sha256, fault) = match read.flatten() {
        Ok(read) => read,
        Err(why) => {
            checks.add(ITEM, Status::Failed, why);
            return Ok(());
        }
    };
    let (status, found) = match (fault, expected) {
        (Some(fault), _) => (
            Status::Failed,
            format!("it brought a segment {segment} that is {fault}"),
        ),
        (None, Some(expected)) if expected != sha256 => (
            Status::Failed,
            format!(
                "it brought another segment {segment} than the one that was verified in the archive: its SHA-256 is {sha256}, where \
                 {expected} was expected"
            ),
        ),
        (None, Some(_)) => (
            Status::Passed,
            format!("it brought segment {segment} in {took} ms, the same content as was verified in the archive"),
        ),
        (None, None) => (
            Status::Passed,
            format!(
                "it brought segment {segment} in {took} ms, which is sound; the archive has no verified one to compare it with"
            ),
        ),
    };
    checks.add(ITEM, status, found);
    Ok(())
}
