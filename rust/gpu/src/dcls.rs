//! Kernels from elements at learned positions and their gradients, cuda/dcls.cuh: what a block takes.
//!
//! What it costs, worked out and not run on a device: 768 filters of 17 x 17 with 34 elements read 313 kB and write
//! 888 kB, 0.3e-6 s of an H200 at 4.3 TB/s; the 7.5 million grid points and elements are 4 operations and 4 loads
//! from shared memory each, 4e-6 s at 128 B per clock of 132 multiprocessors and 1.75 GHz, which bound it. The
//! gradients are 12 operations and 8 loads (16 and 11 with sigmas) for the same pairs. A launch costs as much as either.

use crate::depthwise::{ceil_div, scalar};
use striate_core::recipe::{Unit, values};
use striate_core::spacings::{EPSILON, Profile};
use striate_core::{DType, DeviceOperation, Launch, Recipe, Request, Spacings, Why, Word};

/// The row that builds.
pub const KERNEL: DeviceOperation = DeviceOperation {
    name: "cuda.dcls_kernel",
    op: "dcls_kernel",
    dtypes: &[DType::F32, DType::F64],
    supports: |request| Share::of(request, 0).map(|_| ()),
    compile: |request| compile(request, 0),
    note: "a block for every filter, the profiles of its elements in shared memory",
};
/// The row of the gradients.
pub const GRADIENT: DeviceOperation = DeviceOperation {
    name: "cuda.dcls_kernel_grad",
    op: "dcls_kernel_grad",
    supports: |request| Share::of(request, 1).map(|_| ()),
    compile: |request| compile(request, 1),
    note: "a warp for every element, which alone writes its gradients",
    ..KERNEL
};

/// Shared memory a block may use without asking, less what the system keeps.
const SHARED: i64 = 47 * 1024;
/// Threads that a multiprocessor holds at least, which leaves each so many registers that none is spilled.
const RESIDENT: u32 = 512;
const WARPS: i64 = 4;

/// What a block takes: elements whose profiles are in shared memory at once.
struct Share {
    spacings: Spacings,
    chunk: i64,
    blocks: i64,
    warps: i64,
    bytes: i64,
}

impl Share {
    /// `first` is the position of the weight among the operands: 0 to build, 1 to differentiate.
    fn of(request: &Request<'_>, first: usize) -> Result<Share, Why> {
        let spacings = Spacings::of(request, first)?;
        let (lines, size) = (spacings.size.iter().sum::<usize>() as i64, spacings.dtype.size() as i64);
        // To build, an element has a number per grid point of an axis, and its weight.
        let each = size * if first == 0 { lines + 1 } else { 3 * lines };
        let most = SHARED / each;
        if most == 0 {
            return Err(format!("takes at most {SHARED} bytes of profiles, an element of this grid has {each}"));
        }
        let elements = spacings.elements as i64;
        let chunk = if first == 0 { most.min(elements.max(1)) } else { most.min(WARPS) };
        let warps = if first == 0 { WARPS } else { chunk };
        let filters = spacings.filters as i64;
        let blocks = if first == 0 { filters } else { ceil_div(filters * elements, warps) };
        if spacings.volume() >= 1 << 31 || blocks >= 1 << 31 {
            return Err(format!("takes less than 2^31 grid points and blocks, got {} and {blocks}", spacings.volume()));
        }
        Ok(Share { spacings, chunk, blocks, warps, bytes: chunk * each })
    }
}

fn compile(request: &Request<'_>, first: usize) -> Recipe {
    // `supports` has made the same.
    let Ok(share) = Share::of(request, first) else { return Recipe::default() };
    let s = &share.spacings;
    let upstream = if first == 0 { Word::Value(0) } else { Word::Operand(0) };
    let spread = if s.spread { Word::Operand(first + 2) } else { Word::Value(0) };
    let mut words = vec![upstream, Word::Operand(first), Word::Operand(first + 1), spread, Word::Result(0)];
    words.extend(values([s.filters, s.elements].map(|size| size as i64)));
    words.extend(values(s.size.map(|size| size as i64)));
    // The kernel reads these as doubles.
    words.extend(values([s.base, EPSILON].map(|number| number.to_bits() as i64)));
    let row = |axis: usize| s.axes[..s.rank].iter().position(|&moved| moved == axis).map_or(-1, |row| row as i64);
    let profile = match s.profile {
        Profile::Scatter => 0,
        Profile::Triangle => 1,
        Profile::Gauss => 2,
    };
    let unit = Unit {
        header: "dcls.cuh",
        arguments: "SpacingArgs",
        function: if first == 0 { "dcls_build<K>" } else { "dcls_differentiate<K>" },
        types: &[("T", scalar(s.dtype))],
        constants: &[
            ("profile", profile),
            ("row0", row(0)),
            ("row1", row(1)),
            ("row2", row(2)),
            ("rank", s.rank as i64),
            ("spread", i64::from(s.spread)),
            ("chunk", share.chunk),
        ],
    };
    let (block, grid) = (32 * share.warps as u32, share.blocks as u32);
    let source = unit.source(block, RESIDENT, words.len());
    Recipe { launches: vec![Launch { source, grid, block, shared: share.bytes as u32, words }], workspace: 0 }
}
