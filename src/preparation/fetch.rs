//! Whether `restore_command` brings what recovery will ask it for: tried with one segment, and compared with what was verified.

use std::time::Instant;

use wal::{SegmentName, SegmentReader, SegmentVerifier};

use super::{Checks, Status};
use crate::catalog::prepare;
use crate::error::Result;
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
    let history = history.contains(segment.timeline).then_some(&history);
    let verifier = SegmentVerifier::new(&server.format, segment, history, None);
    let outcome = SegmentReader::new().verify(fetched.file, verifier, &mut |_| between());
    let sha256 = hexadecimal(&outcome.sha256);
    let (status, found) = match (outcome.result, expected) {
        (Err(fault), _) => (
            Status::Failed,
            format!(
                "it brought a segment {segment} that is {}: {fault}",
                fault.problem.status().as_str()
            ),
        ),
        (Ok(_), Some(expected)) if expected != sha256 => (
            Status::Failed,
            format!(
                "it brought another segment {segment} than the one that was verified in the archive: its SHA-256 is {sha256}, where \
                 {expected} was expected"
            ),
        ),
        (Ok(_), Some(_)) => (
            Status::Passed,
            format!("it brought segment {segment} in {took} ms, the same content as was verified in the archive"),
        ),
        (Ok(_), None) => (
            Status::Passed,
            format!(
                "it brought segment {segment} in {took} ms, which is sound; the archive has no verified one to compare it with"
            ),
        ),
    };
    checks.add(ITEM, status, found);
    Ok(())
}
