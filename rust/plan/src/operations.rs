//! The choice of a row for an operation that is not a convolution. Requests are not remembered: asking the few rows
//! of an operation costs less than looking a request up.

use crate::filter;
use striate_core::{DeviceOperation, Operation, Request, Why};
pub use striate_gpu::operations as device_operations;

/// Every row, most preferred first, the definitions last.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    striate_cpu::operations().chain(striate_reference::OPERATIONS)
}

/// Whether the filter leaves an operation a row of this processor, its definition aside.
pub fn admits(op: &str) -> bool {
    let filter = filter::current();
    striate_cpu::operations().any(|row| row.op == op && filter.admits(row.name, row.available, row.isa).is_ok())
}

/// A row, and why those before it refused.
pub struct Chosen {
    /// The row that runs.
    pub row: &'static Operation,
    /// Rows that were asked first, and why each refused.
    pub refusals: Vec<(&'static str, Why)>,
}

/// The first row that takes a request, or the complaints of all.
pub fn operation(request: &Request<'_>) -> Result<Chosen, String> {
    let rows = || operations().filter(|row| row.op == request.op);
    let filter = filter::current();
    // A filter that leaves an operation no row at all was meant for others.
    let meant = rows().any(|row| filter.allows(row.name));
    let filter = if meant { filter } else { filter::none() };
    let mut refusals = Vec::new();
    for row in rows() {
        match filter.admits(row.name, row.available, row.isa).and_then(|()| (row.supports)(request)) {
            Ok(()) => {
                if filter::logging() {
                    eprintln!("striate: {request} -> {}", row.name);
                }
                return Ok(Chosen { row, refusals });
            }
            Err(why) => refusals.push((row.name, why)),
        }
    }
    let why: Vec<String> = refusals.iter().map(|(row, why)| format!("; {row}: {why}")).collect();
    Err(format!("no kernel row takes `{request}`{}", why.concat()))
}

/// The row of a CUDA device that takes a request, or why none does.
pub fn device_operation(request: &Request<'_>) -> Result<&'static DeviceOperation, Why> {
    let filter = filter::current();
    let mut why = format!("no row of the device does {}", request.op);
    for row in device_operations().iter().filter(|row| row.op == request.op) {
        match filter.admits(row.name, || true, "cuda").and_then(|()| (row.supports)(request)) {
            Ok(()) => {
                if filter::logging() {
                    eprintln!("striate: {request} -> {}", row.name);
                }
                return Ok(row);
            }
            Err(refusal) => why = format!("{}: {refusal}", row.name),
        }
    }
    Err(why)
}
