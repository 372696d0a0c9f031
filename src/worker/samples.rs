//! placeholder
use crate::error::Result;
use crate::server::Server;
#[derive(Default)]
pub struct SampleDuty;
impl SampleDuty { pub fn tick(&mut self, _s: &Server, _u: u64) -> Result<()> { Ok(()) } }
