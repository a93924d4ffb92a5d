//! One time step of a layer of delays, cuda/delays.cuh.
//!
//! What it costs, worked out and not run on a device: 256 outputs of 256 inputs read 0.5 MB of weights and delays,
//! 0.1e-6 s of an H200 at 4.3 TB/s, and meet as many samples for each of the batch, in lines of 32 bytes where it is
//! less than 8: 2 MB of the second-level cache. One launch, which costs more than either, stands for the ten or so of
//! torch's operators.

use crate::depthwise::{ceil_div, scalar};
use striate_core::delays::Delays;
use striate_core::recipe::{Unit, values};
use striate_core::{DType, DeviceOperation, Launch, Recipe, Request, Why, Word};

/// The only row.
pub const ROW: DeviceOperation = DeviceOperation {
    name: "cuda.delay_step",
    op: "delay_step",
    dtypes: &[DType::F32, DType::F64],
    supports: |request| fitting(request).map(|_| ()),
    // `supports` has made the same.
    compile: |request| fitting(request).map_or_else(|_| Recipe::default(), |sizes| compile(request, &sizes)),
    note: "a warp for an output and neighbouring samples, its other lanes share out the inputs",
};

const THREADS: u32 = 128;

/// Samples of a warp.
fn samples(sizes: &Delays) -> i64 {
    sizes.batch.next_power_of_two().min(32) as i64
}

fn blocks(sizes: &Delays) -> i64 {
    let warps = sizes.outputs as i64 * ceil_div(sizes.batch as i64, samples(sizes));
    ceil_div(warps, i64::from(THREADS / 32))
}

fn fitting(request: &Request<'_>) -> Result<Delays, Why> {
    let sizes = Delays::of(request)?;
    match blocks(&sizes) {
        0..=0x7fff_ffff => Ok(sizes),
        many => Err(format!("takes at most 2^31 - 1 blocks, this needs {many}")),
    }
}

fn compile(request: &Request<'_>, sizes: &Delays) -> Recipe {
    let &Delays { slots, channels, batch, outputs, inputs, head, dtype } = sizes;
    let bias = request.operands.get(3).is_some_and(Option::is_some);
    let mut words: Vec<Word> = (0..3).map(Word::Operand).collect();
    words.extend([if bias { Word::Operand(3) } else { Word::Value(0) }, Word::Result(0)]);
    let spread = outputs / (channels / inputs);
    words.extend(values([slots, channels, batch, outputs, spread, inputs, head].map(|size| size as i64)));
    let unit = Unit {
        header: "delays.cuh",
        arguments: "DelayArgs",
        function: "delay_step<K>",
        types: &[("T", scalar(dtype))],
        constants: &[("samples", samples(sizes))],
    };
    let source = unit.source(THREADS, 1024, words.len());
    let launch = Launch { source, grid: blocks(sizes) as u32, block: THREADS, shared: 0, words };
    Recipe { launches: vec![launch], workspace: 0 }
}
